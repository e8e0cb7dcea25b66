//! A member of a consumer group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::admin::client::list_offsets;
use crate::connect::client::{REQUEST, blocking, created, log, ping};
use crate::connect::config::KafkaConfig;
use crate::connect::health::Health;
use crate::connect::rebootstrap::Watched;
use crate::consume::admission::Admission;
use crate::consume::fetch::{self, Shared, commit_failed, note_positions};
use crate::error::{BoxError, ConsumeError};
use tandem_model::Disposition;
use tandem_wire::log::InRecord;

/// How long closing waits for the last commit and for leaving the group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads topics as a member of a consumer group. The group shares the partitions among its members.
///
/// The consumer reads only committed records. It commits an offset only after every record below it was
/// marked [done](Self::done), and within about 10 ms after that. Once all records are done, the committed
/// offset is the end of the partition, transaction markers included, so Kafka's tools show a lag of 0.
///
/// A partition without a committed offset starts at offset 0. The consumer commits this start at once, so the
/// group has an offset from its first assignment on. If the log no longer begins at offset 0, the consumer
/// fails with [`ConsumeError::OffsetOutOfRange`].
pub struct GroupConsumer {
    shared: Arc<Shared>,
    ended: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl GroupConsumer {
    /// Joins `group` for these topics. The group assigns the partitions later, in the background.
    ///
    /// # Errors
    /// [`ConsumeError::Unreachable`] if no broker answers within 8 s; otherwise the configuration is wrong or
    /// the subscription fails.
    pub async fn start(config: &KafkaConfig, group: &str, topics: &[String]) -> Result<Self, ConsumeError> {
        Self::join(config, group, topics, Rules::default()).await
    }

    /// The same, for a member whose effects keep their own offsets: it reads each partition from where `starts` says, and
    /// from the group's offset only where that says nothing.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_from(
        config: &KafkaConfig,
        group: &str,
        topics: &[String],
        starts: StartOffsets,
    ) -> Result<Self, ConsumeError> {
        Self::join(config, group, topics, Rules { starts: Some(starts), admission: None }).await
    }

    /// The same, for a member that takes partitions only if `admission` lets it.
    ///
    /// [`Self::next_batch`] fails with [`ConsumeError::NotAdmitted`] once it does not.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_admitted(
        config: &KafkaConfig,
        group: &str,
        topics: &[String],
        admission: Admission,
    ) -> Result<Self, ConsumeError> {
        Self::join(config, group, topics, Rules { admission: Some(admission), starts: None }).await
    }

    async fn join(
        config: &KafkaConfig,
        group: &str,
        topics: &[String],
        rules: Rules,
    ) -> Result<Self, ConsumeError> {
        let health = Health::new(&config.refusals, &config.brokers);
        let shared = Shared::new(Arc::clone(&health));
        let mut client = config.consumer(group, &[]);
        if let Some(admission) = &rules.admission {
            admission.label(&mut client);
        }
        let context = GroupContext { shared: Arc::clone(&shared), group: group.to_owned(), rules };
        let consumer: BaseConsumer<GroupContext> = created(client.create_with_context(context))?;
        let (config, topics) = (config.clone(), topics.to_vec());
        let topic = topics.first().cloned();
        let consumer = blocking(move || {
            ping(&consumer, &config, &health)?;
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            consumer.subscribe(&names).map_err(|e| ConsumeError::request("subscribing", &e))?;
            Ok(consumer)
        })
        .await?;
        let (sender, ended) = tokio::sync::oneshot::channel();
        let polled = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || {
                fetch::run(&consumer, &polled, true, topic.as_deref());
                drop(consumer);
                let _ = sender.send(());
            })
            .map_err(|e| ConsumeError::Config(format!("no thread could be started: {e}")))?;
        Ok(Self { shared, ended: Some(ended) })
    }

    /// Waits up to `wait` for a first record, then returns the available records, at most `max_records`.
    /// Records of a partition are in log order. Dropping the future loses no record. One caller at a time gets what
    /// arrives.
    ///
    /// # Errors
    /// [`ConsumeError::OffsetOutOfRange`] if retention deleted unread records; [`ConsumeError::Closed`] after
    /// any other error was returned; otherwise reading failed.
    pub async fn next_batch(
        &self,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<InRecord>, ConsumeError> {
        self.shared.next_batch(max_records, wait).await
    }

    /// Marks records as done: their effects are durable elsewhere. The order does not matter. An offset is
    /// committed once all records below it are done.
    ///
    /// Records of partitions that this member has lost are ignored. The new owner reads them again.
    ///
    /// # Errors
    /// If the consumer has ended: the error that ended it, or [`ConsumeError::Closed`] if that was returned before.
    pub fn done(&self, records: &[InRecord]) -> Result<(), ConsumeError> {
        self.done_offsets(records.iter().map(|r| (r.topic.as_ref(), r.partition, r.offset)))
    }

    /// [`Self::done`], by topic, partition and offset.
    ///
    /// # Errors
    /// As for [`Self::done`].
    pub fn done_offsets<'a>(
        &self,
        records: impl IntoIterator<Item = (&'a str, i32, i64)>,
    ) -> Result<(), ConsumeError> {
        let mut state = self.shared.lock();
        for (topic, partition, offset) in records {
            if let Some(progress) = state.progress(topic, partition) {
                progress.done(offset);
            }
        }
        drop(state);
        self.shared.check_running()
    }

    /// Returns, for each partition of this member, the offset below which every record is done. Transaction markers count as
    /// done.
    pub fn done_up_to(&self) -> Vec<(String, i32, i64)> {
        self.shared.lock().done_up_to()
    }

    /// Whether the partition is assigned to this member, as far as the member knows.
    pub fn is_assigned(&self, topic: &str, partition: i32) -> bool {
        self.shared.lock().progress(topic, partition).is_some()
    }

    /// The last problem with Kafka, until the next success.
    pub fn last_error(&self) -> Option<String> {
        self.shared.health.last()
    }

    /// Commits the done records and leaves the group. Returns after at most 10 s. If Kafka has not answered
    /// by then, closing continues in the background.
    pub async fn close(mut self) {
        self.shared.stop();
        if let Some(ended) = self.ended.take()
            && tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err()
        {
            tracing::warn!("Kafka did not answer in time while a consumer was being closed");
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Handles rebalances: starts partitions at the group's offsets, and commits before it gives them up.
struct GroupContext {
    shared: Arc<Shared>,
    group: String,
    rules: Rules,
}

/// What a member asks when the group assigns it partitions.
#[derive(Default)]
struct Rules {
    admission: Option<Admission>,
    starts: Option<StartOffsets>,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.health.report(&error, reason);
    }
}

impl Watched for GroupContext {
    fn health(&self) -> &Health {
        &self.shared.health
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let outcome = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, list)
        } else {
            self.revoked(consumer, list)
        };
        if let Err(error) = outcome {
            self.shared.health.failed(format!("rebalancing: {error}"));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            commit_failed(&self.shared, offsets, &error);
        }
    }
}

impl GroupContext {
    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        let partitions: Vec<(String, i32)> =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        if let Some(admission) = &self.rules.admission
            && !admission.admitted(consumer, &self.group, &self.shared)
        {
            self.shared.fail(ConsumeError::NotAdmitted);
            return Ok(());
        }
        let kept = match self.rules.starts.as_ref().map(|starts| kept(starts, &partitions)).transpose() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                self.shared.fail(error);
                return Ok(());
            }
        };
        // Retries without limit, because nothing can be read without the answer.
        let starts = loop {
            if self.shared.stopped() {
                return Ok(());
            }
            match starts(consumer, list, &partitions, &kept) {
                Ok(starts) => break starts,
                Err(error) => {
                    self.shared.health.failed(error.to_string());
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        };
        // A new group and a group with expired offsets look the same. In both cases the log may have lost
        // records that the group has not handled.
        let lost = partitions.iter().zip(&starts).find(|(_, start)| !start.is_known && start.offset > 0);
        if let Some(((topic, partition), Start { offset: start, .. })) = lost {
            let place =
                format!("{topic}[{partition}] begins at offset {start}, and the group has no offset there");
            self.shared.fail(ConsumeError::OffsetOutOfRange(place));
            return Ok(());
        }
        let mut state = self.shared.lock();
        for ((topic, partition), start) in partitions.iter().zip(&starts) {
            state.assign(topic, *partition, start.offset, start.committed);
            if let Some(mut element) = list.find_partition(topic, *partition) {
                element.set_offset(Offset::Offset(start.offset))?;
            }
        }
        drop(state);
        consumer.assign(list)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        note_positions(consumer, &self.shared);
        let positions = consumer.position().ok();
        if !consumer.assignment_lost() {
            let done = self
                .shared
                .lock()
                .take_commit(|topic, partition| list.find_partition(topic, partition).is_some());
            if done.count() > 0
                && let Err(error) = consumer.commit(&done, CommitMode::Sync)
            {
                self.shared.health.failed(format!("committing offsets: {error}"));
            }
        }
        let mut state = self.shared.lock();
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let position = positions.as_ref().and_then(|p| p.find_partition(topic, partition));
            let position = position.and_then(|p| match p.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
            state.revoke(topic, partition, position);
        }
        drop(state);
        consumer.unassign()
    }
}

/// Where each of these partitions is read from, by topic and partition. `None` where nothing is known. It runs in the member's
/// own thread, which does not poll meanwhile. If it fails or panics, the member ends.
pub type StartOffsets = Arc<dyn Fn(&[(String, i32)]) -> Result<Vec<Option<i64>>, BoxError> + Send + Sync>;

/// Asks a member's effects where they are.
fn kept(starts: &StartOffsets, partitions: &[(String, i32)]) -> Result<Vec<Option<i64>>, ConsumeError> {
    // A panic must not go on into librdkafka, which called this.
    let answer = catch_unwind(AssertUnwindSafe(|| starts(partitions)));
    answer.unwrap_or_else(|_| Err(BoxError::from("it ended with a panic"))).map_err(|error| {
        ConsumeError::Request {
            doing: "asking where to begin".into(),
            cause: error.to_string(),
            retry: Disposition::Retry,
        }
    })
}

/// Where a partition is read from.
struct Start {
    offset: i64,
    /// The group's committed offset.
    committed: Option<i64>,
    /// Whether the member or the group has been there before.
    is_known: bool,
}

/// Returns the start of each partition. `kept` has the offsets that the member's effects keep.
fn starts(
    consumer: &BaseConsumer<GroupContext>,
    list: &TopicPartitionList,
    partitions: &[(String, i32)],
    kept: &[Option<i64>],
) -> Result<Vec<Start>, ConsumeError> {
    let failed = |e| ConsumeError::request("asking for the group's committed offsets", &e);
    let answer = consumer.committed_offsets(list.clone(), REQUEST).map_err(failed)?;
    let mut committed = Vec::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        let element = answer.find_partition(topic, *partition);
        let element = element.ok_or_else(|| ConsumeError::NoTopic(topic.clone()))?;
        element.error().map_err(failed)?;
        committed.push(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
    }
    let new: Vec<(String, i32)> =
        partitions.iter().zip(&committed).filter(|(_, c)| c.is_none()).map(|(p, _)| p.clone()).collect();
    let mut firsts = list_offsets(consumer, &new, Offset::Beginning)?.into_iter();
    let known = kept.iter().copied().chain(std::iter::repeat(None));
    let start = |(kept, committed): (Option<i64>, Option<i64>)| {
        let by_kafka = committed.or_else(|| firsts.next()).unwrap_or(0);
        let is_known = kept.or(committed).is_some();
        Start { offset: kept.unwrap_or(by_kafka), committed, is_known }
    };
    Ok(known.zip(committed).map(start).collect())
}
