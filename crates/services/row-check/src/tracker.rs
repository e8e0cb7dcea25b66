//! Knows which keys changed when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_kafka::{ConsumeError, KafkaConfig, TailReader};
use tandem_model::{Version, Watermark};
use tandem_protocol::watermark::reached;
use tandem_wire::log::InRecord;
use tokio::sync::{mpsc, watch};

/// Keys remembered before those that changed long ago are forgotten.
const REMEMBERED: usize = 1_000_000;

/// How far back, in microseconds of versions, changes are kept when some must be forgotten.
const KEPT_US: i64 = 300_000_000;

/// By how much the floor rises at least when some are forgotten: all keys are looked at then.
const FORGET_US: i64 = 30_000_000;

/// Following the change topics has failed. Whoever relies on it must start it again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("following the change topics failed: {0}")]
pub struct TrackerError(Arc<ConsumeError>);

#[derive(Default)]
struct State {
    /// The newest change of each key, by topic and key (without its schema id, which changes with
    /// the schema while the key does not).
    last: HashMap<Arc<str>, HashMap<Box<[u8]>, Version>>,
    /// The offset after the last record seen, by topic and partition.
    consumed: HashMap<Arc<str>, Vec<i64>>,
    /// Changes up to this version may have been forgotten, or never been seen.
    floor: Version,
    newest: Version,
    remembered: usize,
}

/// Follows the change topics of a set of tables from a watermark on. Cheap to clone.
#[derive(Clone)]
pub struct ChangeTracker {
    state: Arc<Mutex<State>>,
    moved: watch::Receiver<Option<TrackerError>>,
}

impl ChangeTracker {
    /// Starts at `from`: it knows of every change after that watermark once it has read so far.
    /// With `feed`, every record is handed on as well.
    pub async fn start(
        kafka: &KafkaConfig,
        topics: &[String],
        from: &Watermark,
        feed: Option<mpsc::Sender<Vec<InRecord>>>,
    ) -> Result<Self, ConsumeError> {
        let mut state = State { floor: from.version, newest: from.version, ..State::default() };
        let mut assignment = Vec::new();
        for topic in topics {
            let Some(ends) = from.offsets.get(topic) else { continue };
            state.consumed.insert(topic.as_str().into(), ends.clone());
            assignment.extend(ends.iter().enumerate().map(|(p, &end)| (topic.clone(), p as i32, end)));
        }
        let mut reader = TailReader::start(kafka, assignment).await?;
        let state = Arc::new(Mutex::new(state));
        let (sender, moved) = watch::channel(None);
        let tracked = Arc::clone(&state);
        tokio::spawn(async move {
            while !sender.is_closed() {
                match reader.next_batch(5000, Duration::from_millis(500)).await {
                    Ok(records) if records.is_empty() => {}
                    Ok(records) => {
                        lock(&tracked).take_in(&records);
                        sender.send_replace(None);
                        if let Some(feed) = &feed {
                            // Without a receiver nobody wants the records any more.
                            let _ = feed.send(records).await;
                        }
                    }
                    Err(error) => {
                        sender.send_replace(Some(TrackerError(Arc::new(error))));
                        return;
                    }
                }
            }
        });
        Ok(Self { state, moved })
    }

    /// Waits until every record of `topic` below `ends` has been seen.
    pub async fn seen(&self, topic: &str, ends: &[i64]) -> Result<(), TrackerError> {
        let mut moved = self.moved.clone();
        loop {
            if let Some(error) = moved.borrow_and_update().clone() {
                return Err(error);
            }
            if lock(&self.state).has_seen(topic, ends) {
                return Ok(());
            }
            if moved.changed().await.is_err() {
                let ended = moved.borrow().clone();
                return Err(ended.unwrap_or_else(|| TrackerError(Arc::new(ConsumeError::Closed))));
            }
        }
    }

    /// Waits until following the topics has failed, and says why.
    pub async fn failure(&self) -> TrackerError {
        let mut moved = self.moved.clone();
        match moved.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => TrackerError(Arc::new(ConsumeError::Closed)),
        }
    }

    /// The newest change of a key seen so far. `key` is the framed key of its records.
    pub fn last_change(&self, topic: &str, key: &[u8]) -> Option<Version> {
        lock(&self.state).last.get(topic).and_then(|keys| keys.get(unframed(key))).copied()
    }

    /// Changes up to this version may be unknown.
    pub fn floor(&self) -> Version {
        lock(&self.state).floor
    }
}

impl State {
    fn take_in(&mut self, records: &[InRecord]) {
        for record in records {
            if let Some(end) =
                self.consumed.get_mut(&record.topic).and_then(|c| c.get_mut(record.partition as usize))
            {
                *end = (*end).max(record.offset + 1);
            }
            let (Some(key), Some(version)) = (&record.key, record.version) else { continue };
            self.newest = self.newest.max(version);
            let keys = self.last.entry(Arc::clone(&record.topic)).or_default();
            if let Some(last) = keys.get_mut(unframed(key)) {
                *last = (*last).max(version);
            } else {
                keys.insert(unframed(key).into(), version);
                self.remembered += 1;
            }
        }
        if self.remembered > REMEMBERED && self.newest.0 - KEPT_US > self.floor.0 + FORGET_US {
            self.forget();
        }
    }

    /// Forgets changes from long ago, and says so by raising the floor. Where most changes are
    /// recent, more is kept than [`REMEMBERED`]: what a check needs is never forgotten silently.
    fn forget(&mut self) {
        let floor = Version(self.newest.0 - KEPT_US);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        for keys in self.last.values_mut() {
            keys.retain(|_, version| *version > floor);
        }
        self.remembered = self.last.values().map(HashMap::len).sum();
    }

    fn has_seen(&self, topic: &str, ends: &[i64]) -> bool {
        self.consumed.get(topic).is_none_or(|at| reached(ends, |partition| at.get(partition).copied()))
    }
}

/// A key without the frame that names its schema.
fn unframed(key: &[u8]) -> &[u8] {
    key.get(5..).unwrap_or(key)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tracker_that_has_ended_is_told_to_all_who_wait() {
        let (sender, moved) = watch::channel(None);
        let tracker = ChangeTracker { state: Arc::default(), moved };
        lock(&tracker.state).consumed.insert("t".into(), vec![0]);
        sender.send_replace(Some(TrackerError(Arc::new(ConsumeError::NoTopic("t".into())))));
        drop(sender);
        let bound = Duration::from_secs(10);
        let failure = tokio::time::timeout(bound, tracker.failure()).await.unwrap().to_string();
        let waiter = tokio::time::timeout(bound, tracker.seen("t", &[1])).await.unwrap().unwrap_err();
        assert_eq!(failure, waiter.to_string());
        assert!(failure.contains('t'));
    }

    fn record(offset: i64, key: &[u8], version: i64) -> InRecord {
        let mut framed = vec![0; 5];
        framed.extend(key);
        InRecord {
            topic: "t".into(),
            partition: 0,
            offset,
            key: Some(framed),
            value: None,
            version: Some(Version(version)),
            timestamp_ms: None,
        }
    }

    #[test]
    fn the_newest_change_of_a_key_and_how_far_it_has_read() {
        let mut state = State::default();
        state.consumed.insert("t".into(), vec![5]);
        assert!(state.has_seen("t", &[5]) && !state.has_seen("t", &[6]));
        state.take_in(&[record(5, b"a", 10), record(6, b"b", 11), record(7, b"a", 12)]);
        assert!(state.has_seen("t", &[8]) && !state.has_seen("t", &[9]));
        assert_eq!(state.last["t"][&b"a"[..]], Version(12));
        assert_eq!(state.last["t"][&b"b"[..]], Version(11));
    }

    #[test]
    fn forgetting_raises_the_floor() {
        let mut state = State::default();
        state.take_in(&[record(0, b"old", 10), record(1, b"new", 20 + KEPT_US)]);
        state.forget();
        assert_eq!(state.floor, Version(20));
        assert!(!state.last["t"].contains_key(&b"old"[..]));
        assert!(state.last["t"].contains_key(&b"new"[..]));
    }
}
