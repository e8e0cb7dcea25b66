//! The open dead letters, as the records of the topic leave them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tandem_model::Version;
use tandem_wire::WireError;
use tandem_wire::control::{DeadLetter, RecordPlace, decode_control};
use tandem_wire::log::InRecord;

/// How many settled dead letters are remembered. A check compares with those since it began, and takes seconds.
const REMEMBERED: usize = 10_000;

/// An open dead letter. It does not hold the record, which may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLetter {
    /// The place of the change.
    pub place: RecordPlace,
    /// `database.table` of the source.
    pub table: Arc<str>,
    /// The key of the change's record, framed.
    pub key: Box<[u8]>,
    /// The version of the change.
    pub version: Version,
    /// A short name of the reason.
    pub reason: Arc<str>,
    /// When the change was put aside, in microseconds since the epoch.
    pub at_us: i64,
    /// The offset of the dead letter on its topic.
    pub offset: i64,
}

/// A key of a table.
type TableKey = (Arc<str>, Box<[u8]>);

/// Follows the records of the dead-letter topic.
#[derive(Debug, Default)]
pub(crate) struct Open {
    letters: BTreeMap<RecordPlace, Arc<OpenLetter>>,
    /// How many open dead letters each key of a table has. The keys are without their frames, because the schema id in a
    /// frame changes with the schema.
    keys: HashMap<Arc<str>, HashMap<Box<[u8]>, usize>>,
    /// The keys of settled dead letters, with the offset of the record that settled each.
    settled: VecDeque<(i64, TableKey)>,
    /// Settled dead letters below this offset may be forgotten.
    forgotten: i64,
    /// The offset after the last record.
    pub(crate) end: i64,
}

impl Open {
    /// Nothing is known yet of the topic, which begins at this offset.
    pub(crate) fn from(first: i64) -> Self {
        Self { end: first, ..Self::default() }
    }

    /// Applies a record of the topic.
    ///
    /// # Errors
    /// The record cannot be decoded.
    pub(crate) fn take(&mut self, record: &InRecord) -> Result<(), WireError> {
        self.end = record.offset + 1;
        let Some(value) = &record.value else {
            let place = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            if let Some(place) = place.and_then(|place| place.parse().ok()) {
                self.close(&place, record.offset);
            }
            return Ok(());
        };
        let letter: DeadLetter = decode_control(value)?;
        let place = letter.place();
        if letter.discarded.is_some() {
            self.close(&place, record.offset);
            return Ok(());
        }
        let table = self.keys.keys().find(|known| ***known == *letter.table).cloned();
        let opened = Arc::new(OpenLetter {
            place: place.clone(),
            table: table.unwrap_or_else(|| letter.table.as_str().into()),
            key: letter.record_key.into(),
            version: Version(letter.version),
            reason: letter.reason.into(),
            at_us: letter.at_us,
            offset: record.offset,
        });
        // Apply may meet a change again after a crash. That is still one dead letter.
        if self.letters.insert(place, Arc::clone(&opened)).is_none() {
            let keys = self.keys.entry(Arc::clone(&opened.table)).or_default();
            *keys.entry(unframed(&opened.key).into()).or_default() += 1;
        }
        Ok(())
    }

    fn close(&mut self, place: &RecordPlace, at: i64) {
        let Some(letter) = self.letters.remove(place) else { return };
        if let Some(keys) = self.keys.get_mut(&letter.table)
            && let Some(count) = keys.get_mut(unframed(&letter.key))
        {
            *count -= 1;
            if *count == 0 {
                keys.remove(unframed(&letter.key));
            }
        }
        self.settled.push_back((at, (Arc::clone(&letter.table), unframed(&letter.key).into())));
        while self.settled.len() > REMEMBERED {
            if let Some((offset, _)) = self.settled.pop_front() {
                self.forgotten = offset + 1;
            }
        }
    }

    /// Whether a dead letter of the key is open. `key` is framed.
    pub(crate) fn is_open(&self, table: &str, key: &[u8]) -> bool {
        self.keys.get(table).is_some_and(|keys| keys.contains_key(unframed(key)))
    }

    /// Whether a dead letter of any row of the table is open.
    pub(crate) fn any_open(&self, table: &str) -> bool {
        self.keys.get(table).is_some_and(|keys| !keys.is_empty())
    }

    /// Whether a dead letter of the key was settled or discarded after the topic ended at `since`. It is also true if that
    /// is not remembered any more.
    pub(crate) fn was_settled_since(&self, table: &str, key: &[u8], since: i64) -> bool {
        let mut later = self.settled.iter().rev().take_while(|(at, _)| *at >= since);
        since < self.forgotten
            || later.any(|(_, (of, settled))| **of == *table && **settled == *unframed(key))
    }

    /// The open dead letters, by place.
    pub(crate) fn all(&self) -> Vec<Arc<OpenLetter>> {
        self.letters.values().cloned().collect()
    }
}

/// A key without the frame that holds its schema id.
fn unframed(key: &[u8]) -> &[u8] {
    key.get(5..).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_wire::control::{Discarded, settled};
    use tandem_wire::log::OutRecord;

    fn letter(offset: i64, key: u8) -> DeadLetter {
        DeadLetter {
            table: "d.t".into(),
            topic: "p.changes".into(),
            partition: 0,
            offset,
            record_key: vec![0, 0, 0, 0, 9, key],
            record_value: vec![1],
            version: offset,
            reason: "invalid-date".into(),
            cause: "c".into(),
            at_us: 1,
            discarded: None,
        }
    }

    struct Topic(Open);

    impl Topic {
        fn take(&mut self, record: OutRecord) {
            let read = InRecord {
                topic: record.topic,
                partition: 0,
                offset: self.0.end,
                key: Some(record.key),
                value: record.value,
                version: None,
                timestamp_ms: None,
            };
            self.0.take(&read).unwrap();
        }

        fn open(&mut self, offset: i64, key: u8) {
            self.take(letter(offset, key).record("d").unwrap());
        }

        fn settle(&mut self, offset: i64) {
            self.take(settled("d", &letter(offset, 0).place()));
        }
    }

    /// A framed key under another schema id than the dead letter's.
    fn key(key: u8) -> Vec<u8> {
        vec![0, 0, 0, 0, 1, key]
    }

    #[test]
    fn a_key_is_open_until_its_last_dead_letter_is_settled() {
        let mut topic = Topic(Open::default());
        topic.open(5, 1);
        topic.open(6, 1);
        topic.open(6, 1);
        assert!(topic.0.is_open("d.t", &key(1)) && !topic.0.is_open("d.t", &key(2)));
        assert!(!topic.0.is_open("d.u", &key(1)) && !topic.0.any_open("d.u"));
        topic.settle(5);
        assert!(topic.0.is_open("d.t", &key(1)));
        let discarded = Some(Discarded { at_us: 2, reason: "r".into() });
        topic.take(DeadLetter { discarded, ..letter(6, 1) }.record("d").unwrap());
        assert!(!topic.0.is_open("d.t", &key(1)) && !topic.0.any_open("d.t"));
        assert_eq!(topic.0.all(), []);
    }

    #[test]
    fn a_check_under_way_knows_what_was_settled_meanwhile() {
        let mut topic = Topic(Open::default());
        topic.open(5, 1);
        topic.settle(5);
        let after = topic.0.end;
        assert!(topic.0.was_settled_since("d.t", &key(1), after - 1));
        assert!(!topic.0.was_settled_since("d.t", &key(1), after));
        assert!(!topic.0.was_settled_since("d.t", &key(2), 0));
    }

    #[test]
    fn what_is_forgotten_counts_as_settled() {
        let mut topic = Topic(Open::default());
        for offset in 0..=REMEMBERED as i64 {
            topic.open(offset, 1);
            topic.settle(offset);
        }
        assert!(topic.0.was_settled_since("d.t", &key(2), 0));
        assert!(!topic.0.was_settled_since("d.t", &key(2), topic.0.end));
    }
}
