//! Native writes that MySQL refuses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_dead_letters::{DeadLetters, OpenLetter};
use tandem_kafka::{Admin, ConsumeError, KafkaConfig, Producer, SchemaStore, TailReader};
use tandem_mysql::ReverseSession;
use tandem_runtime::{Backoff, now_us};
use tandem_wire::control::{DeadLetter, RecordPlace, decode_control, settled};
use tandem_wire::log::InRecord;

use crate::batch::{Decoder, NativeChange};
use crate::error::ReverseError;
use crate::metrics::Metrics;
use crate::write::write_what_it_takes;

/// The first and the longest pause between two retries of dead letters.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Dead letters of one retry at most, and the bytes of their records.
const OF_ONE_RETRY: (usize, usize) = (500, 32 << 20);

/// Records of the dead-letter topic that are read at a time, and how long to wait for the first.
const READ: (usize, Duration) = (100, Duration::from_secs(1));

/// Reverse's dead letters.
pub(crate) struct Letters {
    kafka: KafkaConfig,
    topic: String,
    producer: Producer,
    open: DeadLetters,
    metrics: Metrics,
}

impl Letters {
    pub(crate) async fn open(kafka: &KafkaConfig, metrics: Metrics) -> Result<Self, ReverseError> {
        let letters = Self {
            kafka: kafka.clone(),
            topic: kafka.topics().reverse_dead_letters(),
            producer: Producer::start(kafka).await?,
            open: DeadLetters::follow_reverse(kafka).await?,
            metrics,
        };
        letters.count();
        Ok(letters)
    }

    /// Publishes a dead letter. When this returns, Kafka has acknowledged it.
    pub(crate) async fn put(
        &self,
        record: &InRecord,
        native: &NativeChange,
        cause: String,
    ) -> Result<(), ReverseError> {
        let letter = DeadLetter {
            table: native.change.table.name.to_string(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            record_key: record.key.clone().unwrap_or_default(),
            record_value: record.value.clone().unwrap_or_default(),
            version: native.change.version.0,
            reason: "refused-by-mysql".to_owned(),
            cause,
            at_us: now_us(),
            discarded: None,
        };
        self.producer.send(vec![letter.record(&self.topic)?]).await?;
        self.metrics.dead_letters.inc();
        tracing::warn!(
            table = letter.table, letter = %letter.place(), cause = letter.cause,
            "MySQL refuses a native write: it is a dead letter of reverse"
        );
        Ok(())
    }

    /// Waits until the dead letters are no longer followed, which happens only after an error.
    pub(crate) async fn ended(&self) -> ReverseError {
        self.open.ended().await.into()
    }

    /// Writes the next open dead letters above the offset `after`, or the first ones, in one transaction. Settles those that MySQL has now, or
    /// a newer write of their row. Returns how many, and the offset of the last one that was tried.
    ///
    /// Two processes may retry at a time: a version is written once.
    pub(crate) async fn retry(
        &self,
        session: &mut ReverseSession,
        schemas: &SchemaStore,
        decoder: &mut Decoder,
        after: i64,
    ) -> Result<(usize, i64), ReverseError> {
        let mut open = self.open.all();
        open.sort_by_key(|letter| letter.offset);
        let first = open.partition_point(|letter| letter.offset <= after);
        if first < open.len() {
            open.drain(..first);
        }
        open.truncate(OF_ONE_RETRY.0);
        let letters = self.read(&open).await?;
        let records: Vec<InRecord> = letters.values().cloned().map(record_of).collect();
        let changes = decoder.decode(schemas, &records).await?;
        let refused = write_what_it_takes(session, &self.metrics, &changes).await?;
        let places: Vec<RecordPlace> = changes
            .iter()
            .enumerate()
            .filter(|(index, _)| !refused.contains_key(index))
            .map(|(_, native)| place_of(&records[native.record]))
            .collect();
        self.producer.send(places.iter().map(|place| settled(&self.topic, place)).collect()).await?;
        for place in &places {
            tracing::info!(letter = %place, "a dead letter of reverse is settled");
        }
        self.metrics.settled.inc_by(places.len() as u64);
        self.open.up_to_now().await?;
        self.count();
        let last = letters.keys().next_back().copied().unwrap_or(after);
        Ok((places.len(), last))
    }

    /// Writes settled dead letters that MySQL does not have any more: it has failed over and lost the transaction. The offsets
    /// do not lead back to them. Kafka keeps them for the retention, the tombstones included.
    pub(crate) async fn restore(
        &self,
        session: &mut ReverseSession,
        schemas: &SchemaStore,
        decoder: &mut Decoder,
    ) -> Result<(), ReverseError> {
        let admin = Admin::connect(&self.kafka).await?;
        let first = admin.first_offsets(&self.topic, 1).await?[0];
        let end = admin.end_offsets(&self.topic, 1).await?[0];
        // The last word about each dead letter: a tombstone settles it.
        let mut settled = HashMap::new();
        let mut reader = self.reader(first).await?;
        while !has_read(&reader, &self.topic, end) {
            for record in reader.next_batch(READ.0, READ.1).await? {
                settled.insert(record.key.unwrap_or_default(), record.value.is_none());
            }
        }
        settled.retain(|_, settled| *settled);
        if settled.is_empty() {
            return Ok(());
        }
        let mut reader = self.reader(first).await?;
        let (mut some, mut bytes) = (Vec::new(), 0);
        while !has_read(&reader, &self.topic, end) {
            for record in reader.next_batch(READ.0, READ.1).await? {
                let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
                if settled.contains_key(key) {
                    bytes += value.len();
                    some.push(record_of(decode_control(value)?));
                }
            }
            if some.len() >= OF_ONE_RETRY.0 || bytes >= OF_ONE_RETRY.1 || has_read(&reader, &self.topic, end)
            {
                let changes = decoder.decode(schemas, &some).await?;
                for (index, cause) in write_what_it_takes(session, &self.metrics, &changes).await? {
                    let native = &changes[index];
                    self.put(&some[native.record], native, cause).await?;
                }
                (some, bytes) = (Vec::new(), 0);
            }
        }
        Ok(())
    }

    /// Reads these dead letters, by their offsets. One that is settled meanwhile may be missing.
    async fn read(&self, open: &[Arc<OpenLetter>]) -> Result<BTreeMap<i64, DeadLetter>, ReverseError> {
        let offsets: BTreeSet<i64> = open.iter().map(|letter| letter.offset).collect();
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(found) };
        let mut reader = self.reader(*first).await?;
        while !has_read(&reader, &self.topic, last + 1) && bytes < OF_ONE_RETRY.1 {
            for record in reader.next_batch(READ.0, READ.1).await? {
                let Some(value) = &record.value else { continue };
                if offsets.contains(&record.offset) && bytes < OF_ONE_RETRY.1 {
                    bytes += value.len();
                    found.insert(record.offset, decode_control(value)?);
                }
            }
        }
        Ok(found)
    }

    async fn reader(&self, from: i64) -> Result<TailReader, ConsumeError> {
        TailReader::start(&self.kafka, vec![(self.topic.clone(), 0, from)]).await
    }

    fn count(&self) {
        self.metrics.open.set(self.open.all().len() as i64);
    }
}

fn has_read(reader: &TailReader, topic: &str, end: i64) -> bool {
    reader.consumed_to(topic, 0).is_some_and(|at| at >= end)
}

/// The record that became a dead letter.
fn record_of(letter: DeadLetter) -> InRecord {
    InRecord {
        topic: letter.topic.into(),
        partition: letter.partition,
        offset: letter.offset,
        key: Some(letter.record_key),
        value: Some(letter.record_value),
        version: None,
        timestamp_ms: None,
    }
}

fn place_of(record: &InRecord) -> RecordPlace {
    RecordPlace { topic: record.topic.to_string(), partition: record.partition, offset: record.offset }
}

/// When dead letters are tried again: soon after a new one, then less and less often.
pub(crate) struct Retries {
    /// The offset of the last dead letter that was tried.
    pub(crate) last: i64,
    /// The topic's end when the pauses began.
    seen: i64,
    backoff: Backoff,
    next: Instant,
}

impl Default for Retries {
    fn default() -> Self {
        Self { last: -1, seen: -1, backoff: Backoff::new(PAUSE.0, PAUSE.1), next: Instant::now() }
    }
}

impl Retries {
    pub(crate) fn are_due(&mut self, letters: &Letters) -> bool {
        let end = letters.open.position();
        if end > self.seen {
            self.seen = end;
            self.backoff.reset();
            self.next = self.next.min(Instant::now() + self.backoff.next());
        }
        self.next <= Instant::now() && !letters.open.all().is_empty()
    }

    pub(crate) fn made(&mut self, (_, last): (usize, i64)) {
        self.last = last;
        self.next = Instant::now() + self.backoff.next();
    }
}
