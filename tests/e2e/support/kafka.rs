//! Records that tests publish, and a reader with a given isolation level.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tandem_model::PhaseRecord;
use tandem_wire::control::{PHASE_KEY, encode_phase};
use tandem_wire::log::{OutRecord, Topics};

/// A record without a version, for a topic with one partition.
pub(crate) fn control_record(topic: &str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> OutRecord {
    OutRecord {
        topic: topic.into(),
        partition: 0,
        key: key.into(),
        value: Some(value.into()),
        version: None,
        timestamp_ms: None,
    }
}

/// The record that the controller publishes when it changes the phase.
pub(crate) fn phase_record(prefix: &str, record: &PhaseRecord) -> OutRecord {
    control_record(&Topics::new(prefix).control(), PHASE_KEY, encode_phase(record))
}

/// Reads a topic from beginning to end; with `uncommitted` also the records of aborted and open transactions.
pub(crate) fn read_to_end(
    brokers: &str,
    topic: &str,
    partitions: i32,
    uncommitted: bool,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reads-to-the-end")
        .set("enable.auto.commit", "false")
        .set("isolation.level", if uncommitted { "read_uncommitted" } else { "read_committed" })
        .set("enable.partition.eof", "true")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut ended = vec![false; partitions as usize];
    while ended.contains(&false) {
        match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => ended[partition as usize] = true,
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("{topic} is not read to its end"),
        }
    }
    Ok(())
}
