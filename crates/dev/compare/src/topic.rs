//! A topic as any Kafka client sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the committed records of one topic.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    partitions: i32,
}

impl Topic {
    /// Opens a topic, which must exist.
    ///
    /// # Errors
    /// If there is no such topic, or Kafka does not answer within 30 s.
    pub fn open(brokers: &str, name: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "tandem-compare")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.message.max.bytes", "16777216")
            .create()
            .context("make a Kafka consumer")?;
        let metadata = consumer.fetch_metadata(Some(name), TIMEOUT).context("ask Kafka for a topic")?;
        let partitions =
            metadata.topics().iter().find(|t| t.name() == name).map_or(0, |t| t.partitions().len());
        if partitions == 0 {
            bail!("there is no topic `{name}`");
        }
        Ok(Self { consumer, name: name.to_owned(), partitions: partitions as i32 })
    }

    /// The offset after the last record of each partition, transaction markers included.
    ///
    /// # Errors
    /// If Kafka does not answer within 30 s.
    pub fn ends(&self) -> Result<Vec<i64>> {
        (0..self.partitions)
            .map(|p| Ok(self.consumer.fetch_watermarks(&self.name, p, TIMEOUT).context("ask for offsets")?.1))
            .collect()
    }

    /// Reads every committed record.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_all(&self, each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
        self.read(&vec![0; self.partitions as usize], each)
    }

    /// Waits until no record has arrived for `time`.
    ///
    /// # Errors
    /// As for [`Self::ends`].
    pub async fn quiet(&self, time: Duration) -> Result<()> {
        let (mut ends, mut since) = (self.ends()?, Instant::now());
        while since.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.ends()?;
            if now != ends {
                (ends, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Reads every committed record from these offsets to the end. The partitions are interleaved.
    ///
    /// # Errors
    /// If `each` fails, reading fails, or the end is not reached in time.
    pub fn read(&self, from: &[i64], mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
        let mut places = TopicPartitionList::new();
        for (partition, &offset) in from.iter().enumerate() {
            places.add_partition_offset(&self.name, partition as i32, Offset::Offset(offset))?;
        }
        self.consumer.assign(&places).context("read a topic")?;
        let mut open = from.len();
        while open > 0 {
            match self.consumer.poll(TIMEOUT) {
                Some(Ok(message)) => each(&message)?,
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => return Err(error).context("read a topic"),
                None => bail!("topic `{}` is not read to its end within {} s", self.name, TIMEOUT.as_secs()),
            }
        }
        Ok(())
    }
}
