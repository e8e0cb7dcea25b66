//! Puts changes aside that cannot be written.

use std::collections::{HashMap, VecDeque};

use tandem_kafka::{KafkaConfig, Producer, read_all};
use tandem_model::TableName;
use tandem_runtime::now_us;
use tandem_wire::control::{DeadLetter, decode_control};
use tandem_wire::log::InRecord;

use crate::error::ApplyError;
use crate::metrics::{LetterLabel, Metrics};

/// The time over which dead letters are counted against the limit, in microseconds.
const WINDOW_US: i64 = 60_000_000;

/// A change that cannot be written.
#[derive(Debug)]
pub(crate) struct BadRow {
    pub(crate) table: TableName,
    pub(crate) letter: DeadLetter,
}

impl BadRow {
    /// `reason` is a short name, `cause` the error. `None` if the record has no key: nobody could tell which row it is.
    pub(crate) fn new(record: &InRecord, table: &TableName, reason: &str, cause: String) -> Option<Self> {
        let letter = DeadLetter {
            table: table.to_string(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            record_key: record.key.clone()?,
            record_value: record.value.clone()?,
            version: record.version?.0,
            reason: reason.to_owned(),
            cause,
            at_us: now_us(),
            discarded: None,
        };
        Some(Self { table: table.clone(), letter })
    }
}

/// Publishes dead letters, within a limit for each table.
pub(crate) struct DeadLetterBox {
    topic: String,
    producer: Producer,
    recent: Recent,
    metrics: Metrics,
}

impl DeadLetterBox {
    pub(crate) async fn open(
        kafka: &KafkaConfig,
        limit: usize,
        metrics: Metrics,
    ) -> Result<Self, ApplyError> {
        let topic = kafka.topics().dead_letters();
        let mut recent = Recent { limit, by_table: HashMap::new() };
        // Those of an earlier start count, too. Otherwise a wrong mapping would have the limit anew at each start.
        for value in read_all(kafka, &topic).await?.iter().filter_map(|record| record.value.as_deref()) {
            let letter: DeadLetter = decode_control(value)?;
            if let Ok(table) = letter.table.parse() {
                recent.by_table.entry(table).or_default().push_back(letter.at_us);
            }
        }
        Ok(Self { topic, producer: Producer::start(kafka).await?, recent, metrics })
    }

    /// Publishes the dead letters. When this returns, Kafka has acknowledged all of them.
    ///
    /// # Errors
    /// A table has more than its limit, and none is published; or Kafka does not take them.
    pub(crate) async fn put(&mut self, bad: Vec<BadRow>) -> Result<(), ApplyError> {
        if bad.is_empty() {
            return Ok(());
        }
        self.recent.admit(&bad, now_us())?;
        let mut records = Vec::with_capacity(bad.len());
        for BadRow { letter, .. } in &bad {
            records.push(letter.record(&self.topic)?);
        }
        self.producer.send(records).await?;
        for BadRow { table, letter } in bad {
            tracing::warn!(%table, letter = %letter.place(), reason = letter.reason, cause = letter.cause, "a change is a dead letter");
            let label = LetterLabel { table: letter.table, reason: letter.reason };
            self.metrics.dead_letters.get_or_create(&label).inc();
        }
        Ok(())
    }
}

/// The dead letters of the last minute.
struct Recent {
    /// The most dead letters of a table within the window.
    limit: usize,
    /// When each was put aside, in microseconds since the epoch, in about this order.
    by_table: HashMap<TableName, VecDeque<i64>>,
}

impl Recent {
    /// Counts the dead letters, unless a table would exceed its limit.
    fn admit(&mut self, bad: &[BadRow], now_us: i64) -> Result<(), ApplyError> {
        let mut more: HashMap<&TableName, usize> = HashMap::new();
        for BadRow { table, letter } in bad {
            let more = more.entry(table).or_default();
            *more += 1;
            let recent = self.by_table.entry(table.clone()).or_default();
            recent.retain(|at| now_us - at < WINDOW_US);
            if recent.len() + *more > self.limit {
                return Err(ApplyError::TooManyDeadLetters {
                    table: table.clone(),
                    limit: self.limit,
                    cause: letter.cause.clone(),
                });
            }
        }
        for (table, more) in more {
            self.by_table.entry(table.clone()).or_default().extend(std::iter::repeat_n(now_us, more));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Version;

    fn bad(table: &str) -> BadRow {
        let record = InRecord {
            topic: "p.changes".into(),
            partition: 1,
            offset: 2,
            key: Some(vec![1]),
            value: Some(vec![2]),
            version: Some(Version(3)),
            timestamp_ms: None,
        };
        BadRow::new(&record, &TableName::new("d", table), "filter", "why".into()).unwrap()
    }

    #[test]
    fn a_table_above_its_limit_is_refused_and_others_are_not() {
        let (mut recent, now) = (Recent { limit: 2, by_table: HashMap::new() }, 1_000_000_000);
        recent.admit(&[bad("a"), bad("b"), bad("a")], now).unwrap();
        let error = recent.admit(&[bad("a")], now + WINDOW_US / 2).unwrap_err();
        assert!(error.to_string().contains("d.a") && error.to_string().contains("why"), "{error}");
        recent.admit(&[bad("b")], now + WINDOW_US / 2).unwrap();
        recent.admit(&[bad("a")], now + WINDOW_US).unwrap();
    }
}
