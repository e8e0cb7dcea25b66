//! The thread that polls a consumer, and the bounded queue between the thread and the async reader.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use crate::connect::health::Health;
use crate::connect::rebootstrap::{Watched, rebootstrap};
use crate::consume::progress::Progress;
use crate::error::ConsumeError;
use crate::message::{from_kafka, in_weight};
use tandem_model::Disposition;
use tandem_wire::log::InRecord;

/// The most memory of the fetched records. Fetching waits above it.
const QUEUE_BYTES: usize = 16 << 20;
/// The most records in the queue.
const QUEUE_RECORDS: usize = 50_000;
/// How long a poll waits for a record while nothing is left to do. A stop may be delayed by as much.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);
/// How long it waits while records are left to do: their commit may be delayed by as much.
const BUSY_POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// The shortest interval between two commits. Clients' reads wait for these offsets.
const COMMIT_INTERVAL: Duration = Duration::from_millis(10);
/// The shortest interval between two looks at the positions of a reader that commits nothing.
const POSITION_INTERVAL: Duration = Duration::from_millis(50);
/// After so long without a record, the thread asks whether a broker answers.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it waits for the answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the thread of a consumer that failed waits for the reader to mark the last records as done.
const LAST_RECORDS: Duration = Duration::from_secs(10);
/// How long the thread waits for space in the queue without polling. After that it pauses its partitions and
/// polls without records, because the group would expel a member that does not poll.
const SPACE_TIMEOUT: Duration = Duration::from_secs(3);

/// The state that the thread and the reader share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notified when records arrive or the thread ends.
    arrived: Notify,
    /// Notified when the queue has space.
    drained: Condvar,
    stop: AtomicBool,
    pub(crate) health: Arc<Health>,
}

/// The queue and the assigned partitions.
#[derive(Default)]
pub(crate) struct State {
    queue: VecDeque<InRecord>,
    bytes: usize,
    partitions: HashMap<Arc<str>, BTreeMap<i32, Progress>>,
    /// The client's positions at the last revocation.
    revoked_at: HashMap<(String, i32), i64>,
    /// The error to return once the queue is empty.
    failed: Option<ConsumeError>,
    /// Whether there was an error. Nothing is fetched after it.
    has_failed: bool,
    ended: bool,
}

impl State {
    pub(crate) fn progress(&mut self, topic: &str, partition: i32) -> Option<&mut Progress> {
        self.partitions.get_mut(topic)?.get_mut(&partition)
    }

    /// Starts a partition.
    pub(crate) fn assign(&mut self, topic: &str, partition: i32, position: i64, committed: Option<i64>) {
        let stale = self.revoked_at.get(&(topic.to_owned(), partition)).copied();
        let progress = Progress::new(position, committed, stale);
        match self.partitions.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, progress);
            }
            None => {
                self.partitions.insert(topic.into(), BTreeMap::from([(partition, progress)]));
            }
        }
    }

    /// Removes a partition and its records in the queue.
    pub(crate) fn revoke(&mut self, topic: &str, partition: i32, position: Option<i64>) {
        if let Some(position) = position {
            self.revoked_at.insert((topic.to_owned(), partition), position);
        }
        if let Some(partitions) = self.partitions.get_mut(topic) {
            partitions.remove(&partition);
        }
        self.queue.retain(|record| record.partition != partition || record.topic.as_ref() != topic);
        self.bytes = self.queue.iter().map(in_weight).sum();
    }

    /// Returns the offsets that have moved since the last commit.
    pub(crate) fn take_commit(&mut self, only: impl Fn(&str, i32) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in &mut self.partitions {
            for (&partition, progress) in partitions {
                if only(topic, partition)
                    && let Some(offset) = progress.take_commit()
                    && list.add_partition_offset(topic, partition, Offset::Offset(offset)).is_err()
                {
                    progress.commit_failed();
                }
            }
        }
        list
    }

    /// The offset of each partition below which every record is done.
    pub(crate) fn done_up_to(&self) -> Vec<(String, i32, i64)> {
        let of_topic = |(topic, partitions): (&Arc<str>, &BTreeMap<i32, Progress>)| {
            let safe =
                |(partition, progress): (&i32, &Progress)| (topic.to_string(), *partition, progress.safe());
            partitions.iter().map(safe).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of_topic).collect()
    }

    /// Whether every delivered record is done and committed.
    fn is_settled(&self) -> bool {
        self.partitions.values().flat_map(BTreeMap::values).all(Progress::is_settled)
    }

    fn full(&self) -> bool {
        self.bytes >= QUEUE_BYTES || self.queue.len() >= QUEUE_RECORDS
    }
}

impl Shared {
    pub(crate) fn new(health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            drained: Condvar::new(),
            stop: AtomicBool::new(false),
            health,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.drained.notify_all();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns the error of a consumer whose thread has ended: its own error, unless that was returned before.
    pub(crate) fn check_running(&self) -> Result<(), ConsumeError> {
        let mut state = self.lock();
        if state.ended { Err(state.failed.take().unwrap_or(ConsumeError::Closed)) } else { Ok(()) }
    }

    /// Ends fetching with `error`. What was fetched before can still be read and marked as done.
    pub(crate) fn fail(&self, error: ConsumeError) {
        let mut state = self.lock();
        state.failed = Some(error);
        state.has_failed = true;
    }

    /// Whether the thread goes on fetching.
    fn fetches(&self) -> bool {
        !self.stopped() && !self.lock().has_failed
    }

    fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Waits up to `wait` for a first record, then takes the available records, at most `max`. Returns the
    /// records fetched before an error before the error itself.
    pub(crate) async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<InRecord>, ConsumeError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Registered before the check, so that no later arrival is missed.
            let arrived = self.arrived.notified();
            {
                let mut state = self.lock();
                if !state.queue.is_empty() {
                    let count = state.queue.len().min(max);
                    let records: Vec<InRecord> = state.queue.drain(..count).collect();
                    state.bytes -= records.iter().map(in_weight).sum::<usize>();
                    self.drained.notify_all();
                    return Ok(records);
                }
                if let Some(error) = state.failed.take() {
                    return Err(error);
                }
                if state.ended || state.has_failed || self.stopped() {
                    return Err(ConsumeError::Closed);
                }
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// Waits up to [`SPACE_TIMEOUT`] for space in the queue. Returns whether there is space.
    fn wait_for_space(&self) -> bool {
        let state = self.lock();
        let (state, _) = self
            .drained
            .wait_timeout_while(state, SPACE_TIMEOUT, |state| state.full() && !self.stopped())
            .unwrap_or_else(PoisonError::into_inner);
        !state.full()
    }

    /// Adds a fetched record to the queue. Ignores a record of a partition that was revoked meanwhile.
    fn take_in(&self, message: &BorrowedMessage<'_>) -> Result<(), ConsumeError> {
        let mut state = self.lock();
        let Some((topic, _)) = state.partitions.get_key_value(message.topic()) else { return Ok(()) };
        let topic = Arc::clone(topic);
        let Some(progress) = state.progress(&topic, message.partition()) else { return Ok(()) };
        // Before the record is read: one that cannot be read counts as delivered and never as done, so no offset behind
        // it is committed.
        if progress.deliver(message.offset()) {
            let record = from_kafka(message, topic)?;
            state.bytes += in_weight(&record);
            state.queue.push_back(record);
        }
        Ok(())
    }
}

/// Polls until stopped. With `commits`, commits the done records for the consumer's group. `topic` is one of the consumer's
/// topics, if it has any.
pub(crate) fn run<C: ConsumerContext + Watched>(
    consumer: &BaseConsumer<C>,
    shared: &Shared,
    commits: bool,
    topic: Option<&str>,
) {
    let (mut ticked, mut heard) = (Instant::now(), Instant::now());
    let mut paused = false;
    while shared.fetches() {
        if let Err(error) = pause_or_resume(consumer, shared, &mut paused) {
            shared.health.failed(error.to_string());
        }
        // Waits for one record, then takes those behind it without waiting.
        let busy = commits && !shared.lock().is_settled();
        let mut wait = if busy { BUSY_POLL_TIMEOUT } else { POLL_TIMEOUT };
        let mut taken = 0;
        while taken < 1000 {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if let Err(error) = shared.take_in(&message) {
                        shared.fail(error);
                        break;
                    }
                    taken += 1;
                }
                Some(Err(error)) => {
                    if let Some(fatal) = fatal_error(&error, &shared.health) {
                        shared.fail(fatal);
                    }
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        if taken > 0 {
            heard = Instant::now();
            shared.health.ok();
            shared.arrived.notify_one();
        }
        if heard.elapsed() >= SILENCE {
            heard = Instant::now();
            // A client that has no broker left hears nothing, and reports no error.
            if topic.is_some_and(|topic| consumer.fetch_metadata(Some(topic), ASK_TIMEOUT).is_err()) {
                rebootstrap(consumer.client());
            }
        }
        if ticked.elapsed() >= if commits { COMMIT_INTERVAL } else { POSITION_INTERVAL } {
            ticked = Instant::now();
            note_positions(consumer, shared);
            if commits {
                commit(consumer, shared, CommitMode::Async);
            }
        }
    }
    if commits {
        // The reader still handles what came before an error. Without the wait those records would be read again.
        let failed = Instant::now();
        shared.arrived.notify_one();
        while !shared.stopped() && failed.elapsed() < LAST_RECORDS {
            std::thread::sleep(COMMIT_INTERVAL);
        }
        note_positions(consumer, shared);
        commit(consumer, shared, CommitMode::Sync);
    }
    shared.end();
}

/// Blocks while the queue is full. Pauses the partitions if this takes longer than [`SPACE_TIMEOUT`].
fn pause_or_resume<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    shared: &Shared,
    paused: &mut bool,
) -> Result<(), KafkaError> {
    let full = if *paused { shared.lock().full() } else { !shared.wait_for_space() };
    if full {
        // Repeated on every round, because a new assignment is not paused.
        consumer.pause(&consumer.assignment()?)?;
        *paused = true;
    } else if *paused {
        consumer.resume(&consumer.assignment()?)?;
        *paused = false;
    }
    Ok(())
}

/// Records the client's positions in the partitions' progress.
pub(crate) fn note_positions<C: ConsumerContext>(consumer: &BaseConsumer<C>, shared: &Shared) {
    let Ok(positions) = consumer.position() else { return };
    let mut state = shared.lock();
    for element in positions.elements() {
        if let Offset::Offset(position) = element.offset()
            && let Some(progress) = state.progress(element.topic(), element.partition())
        {
            progress.at(position);
        }
    }
}

/// Commits the offsets that have moved.
fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>, shared: &Shared, mode: CommitMode) {
    let list = shared.lock().take_commit(|_, _| true);
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, mode)
    {
        commit_failed(shared, &list, &error);
    }
}

/// Records a failed commit. The next round commits the offsets again. A partition that was revoked meanwhile
/// is no longer known: its new owner starts at the previously committed offset.
pub(crate) fn commit_failed(shared: &Shared, list: &TopicPartitionList, error: &KafkaError) {
    shared.health.failed(format!("committing offsets: {error}"));
    let mut state = shared.lock();
    for element in list.elements() {
        if let Some(progress) = state.progress(element.topic(), element.partition()) {
            progress.commit_failed();
        }
    }
}

/// Returns the error to end with, unless librdkafka recovers from this error by itself.
fn fatal_error(error: &KafkaError, health: &Health) -> Option<ConsumeError> {
    use RDKafkaErrorCode as Code;
    // librdkafka reports the error's text separately, just before.
    let reason = health.last().unwrap_or_else(|| error.to_string());
    match error {
        KafkaError::PartitionEOF(_) => None,
        KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            Some(ConsumeError::OffsetOutOfRange(reason))
        }
        KafkaError::MessageConsumption(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::FencedInstanceId
            | Code::NotImplemented,
        )
        | KafkaError::MessageConsumptionFatal(_) => Some(ConsumeError::Request {
            doing: "reading records".into(),
            cause: reason,
            retry: match error {
                // A new client may succeed.
                KafkaError::MessageConsumptionFatal(_) => Disposition::Retry,
                _ => Disposition::Stop,
            },
        }),
        _ => {
            if health.last().is_none() {
                health.failed(error.to_string());
            }
            None
        }
    }
}
