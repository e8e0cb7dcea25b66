//! Tracks the latest change of each key.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_kafka::{ConsumeError, KafkaConfig, TailReader};
use tandem_model::{Disposition, Remedy, Version, Watermark};
use tandem_protocol::watermark::reached;
use tandem_wire::log::InRecord;
use tokio::sync::{mpsc, watch};

/// The number of tracked keys above which old changes are dropped.
const MAX_KEYS: usize = 1_000_000;

/// How far back, in microseconds of versions, changes are kept when old ones are dropped.
const KEPT_US: i64 = 300_000_000;

/// The least rise of the floor when old changes are dropped. A larger rise means fewer passes over all keys.
const MIN_RISE_US: i64 = 30_000_000;

/// Following the change topics failed. The tracker has stopped, and its user must start a new one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("following the change topics failed: {0}")]
pub struct TrackerError(Arc<ConsumeError>);

impl From<ConsumeError> for TrackerError {
    fn from(error: ConsumeError) -> Self {
        Self(Arc::new(error))
    }
}

impl TrackerError {
    /// A tracker that has stopped does not start again, even where another attempt to read would succeed.
    pub fn retry(&self) -> Disposition {
        Disposition::Stop
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.remedy()
    }
}

#[derive(Default)]
struct State {
    /// The newest change of each key, by topic and key. The key is without its schema id, because that
    /// changes with the schema while the key does not.
    last: HashMap<Arc<str>, HashMap<Box<[u8]>, Version>>,
    /// The offset after the last seen record, by topic and partition.
    consumed: HashMap<Arc<str>, Vec<i64>>,
    /// Changes up to this version may have been dropped, or were never seen.
    floor: Version,
    newest: Version,
    /// The number of tracked keys.
    tracked: usize,
}

/// Follows the change topics of a set of tables, from a watermark on. Cheap to clone.
#[derive(Clone)]
pub struct ChangeTracker {
    state: Arc<Mutex<State>>,
    moved: watch::Receiver<Option<TrackerError>>,
}

impl ChangeTracker {
    /// Starts at the watermark `from` and tracks every later change. With `feed`, it also forwards every
    /// record.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub async fn start(
        kafka: &KafkaConfig,
        topics: &BTreeSet<String>,
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
                            // An error only means that the receiver was dropped.
                            let _ = feed.send(records).await;
                        }
                    }
                    Err(error) => {
                        sender.send_replace(Some(TrackerError::from(error)));
                        return;
                    }
                }
            }
        });
        Ok(Self { state, moved })
    }

    /// Waits until the tracker has seen every record of `topic` below `ends`.
    ///
    /// # Errors
    /// Following the topics failed.
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
                return Err(ended.unwrap_or_else(|| TrackerError::from(ConsumeError::Closed)));
            }
        }
    }

    /// Waits until following the topics fails. Returns the error.
    pub async fn failure(&self) -> TrackerError {
        let mut moved = self.moved.clone();
        match moved.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => TrackerError::from(ConsumeError::Closed),
        }
    }

    /// Returns the version of the newest seen change of a key. `key` is the framed key of its records.
    pub fn last_change(&self, topic: &str, key: &[u8]) -> Option<Version> {
        lock(&self.state).last.get(topic).and_then(|keys| keys.get(unframed(key))).copied()
    }

    /// The version up to which changes may be unknown.
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
                self.tracked += 1;
            }
        }
        if self.tracked > MAX_KEYS && self.newest.0 - KEPT_US > self.floor.0 + MIN_RISE_US {
            self.drop_old();
        }
    }

    /// Drops old changes and raises the floor accordingly, so a check always knows what may be missing. If
    /// most changes are recent, more than [`MAX_KEYS`] are kept.
    fn drop_old(&mut self) {
        let floor = Version(self.newest.0 - KEPT_US);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        for keys in self.last.values_mut() {
            keys.retain(|_, version| *version > floor);
        }
        self.tracked = self.last.values().map(HashMap::len).sum();
    }

    fn has_seen(&self, topic: &str, ends: &[i64]) -> bool {
        self.consumed.get(topic).is_none_or(|at| reached(ends, |partition| at.get(partition).copied()))
    }
}

/// A key without the frame that holds its schema id.
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
    async fn a_failed_tracker_reports_the_error_to_all_waiters() {
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
    fn tracks_the_newest_change_of_a_key_and_the_offsets() {
        let mut state = State::default();
        state.consumed.insert("t".into(), vec![5]);
        assert!(state.has_seen("t", &[5]) && !state.has_seen("t", &[6]));
        state.take_in(&[record(5, b"a", 10), record(6, b"b", 11), record(7, b"a", 12)]);
        assert!(state.has_seen("t", &[8]) && !state.has_seen("t", &[9]));
        assert_eq!(state.last["t"][&b"a"[..]], Version(12));
        assert_eq!(state.last["t"][&b"b"[..]], Version(11));
    }

    #[test]
    fn dropping_old_changes_raises_the_floor() {
        let mut state = State::default();
        state.take_in(&[record(0, b"old", 10), record(1, b"new", 20 + KEPT_US)]);
        state.drop_old();
        assert_eq!(state.floor, Version(20));
        assert!(!state.last["t"].contains_key(&b"old"[..]));
        assert!(state.last["t"].contains_key(&b"new"[..]));
    }
}
