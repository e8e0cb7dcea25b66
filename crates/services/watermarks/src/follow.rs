//! Follows the watermark topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{ConsumeError, KafkaConfig, TailReader, read_last};
use tandem_model::{BinlogPosition, Disposition, GtidSet, Remedy, TableName, Version, Watermark};
use tandem_mysql::{MysqlError, Reader};
use tandem_protocol::watermark::{covers, knows, newest_borrowable};
use tokio::sync::watch;

/// How many watermarks are kept. A reader's server is at most a few transactions behind the newest watermark,
/// and a thousand watermarks cover minutes.
const REMEMBERED: usize = 1000;

/// Why no watermark is available.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// Reading the topic failed.
    #[error("reading the watermark topic: {0}")]
    Consume(#[from] ConsumeError),
    /// A record of the topic could not be decoded.
    #[error("a record of the watermark topic could not be decoded: {0}")]
    Decode(String),
    /// A query to MySQL failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// No matching watermark arrived in time.
    #[error(
        "no watermark {what} within {}s: is `capture` running and reading this server's binlog?",
        waited.as_secs()
    )]
    Late {
        /// The expected watermark.
        what: String,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The task that follows the topic has ended.
    #[error("the watermark topic is no longer followed")]
    Ended,
}

impl WatermarkError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            Self::Mysql(error) => error.retry(),
            Self::Late { .. } => Disposition::Retry,
            // Every later watermark is behind the bad record, and nothing starts the task again.
            Self::Decode(_) | Self::Ended => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Decode(_) | Self::Mysql(_) | Self::Late { .. } | Self::Ended => None,
        }
    }
}

/// The watermarks of one source, in log order. Cheap to clone.
#[derive(Clone)]
pub struct Watermarks {
    seen: watch::Receiver<VecDeque<Arc<Watermark>>>,
    timeout: Duration,
}

impl Watermarks {
    /// Follows `<prefix>.watermarks` from its last record on. `timeout` limits every wait for a watermark.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn follow(config: &KafkaConfig, timeout: Duration) -> Result<Self, WatermarkError> {
        let topic = config.topics().watermarks();
        let start = read_last(config, &topic, 0).await?.map_or(0, |r| r.offset);
        let mut reader = TailReader::start(config, vec![(topic, 0, start)]).await?;
        let (sender, seen) = watch::channel(VecDeque::new());
        tokio::spawn(async move {
            // Ends with the last receiver or at the first unreadable record. Waiters then get `Ended`
            // instead of an old watermark.
            while !sender.is_closed() {
                let records = match reader.next_batch(500, Duration::from_millis(500)).await {
                    Ok(records) => records,
                    Err(error) => {
                        tracing::error!(%error, "following the watermark topic failed");
                        return;
                    }
                };
                let mut fresh = Vec::with_capacity(records.len());
                for record in &records {
                    let Some(value) = &record.value else { continue };
                    match tandem_wire::control::decode_watermark(value) {
                        Ok(watermark) => fresh.push(Arc::new(watermark)),
                        Err(error) => {
                            tracing::error!(%error, offset = record.offset, "a watermark could not be decoded");
                            return;
                        }
                    }
                }
                if !fresh.is_empty() {
                    sender.send_modify(|seen| {
                        seen.extend(fresh);
                        let excess = seen.len().saturating_sub(REMEMBERED);
                        seen.drain(..excess);
                    });
                }
            }
        });
        Ok(Self { seen, timeout })
    }

    /// Waits until the topic is no longer followed, which happens only after an error. A caller that reads
    /// watermarks without waiting must watch this. It would otherwise keep seeing an old watermark.
    pub async fn ended(&self) -> WatermarkError {
        let mut seen = self.seen.clone();
        while seen.changed().await.is_ok() {}
        WatermarkError::Ended
    }

    /// Returns the newest watermark, partial or not.
    pub fn newest(&self) -> Option<Arc<Watermark>> {
        self.seen.borrow().back().cloned()
    }

    /// Returns the newest watermark that knows the table, partial or not.
    ///
    /// A client's write may borrow it if the write takes it before its COMMIT and writes what it read under
    /// the row lock.
    pub fn newest_knowing(&self, table: &TableName) -> Option<Arc<Watermark>> {
        self.seen.borrow().iter().rev().find(|w| knows(w, table)).cloned()
    }

    /// Returns the first kept watermark that contains all these transactions completely. Returns `None` while
    /// capture has not reached them.
    pub fn containing(&self, gtids: &GtidSet) -> Option<Arc<Watermark>> {
        let seen = self.seen.borrow();
        let first = seen.partition_point(|w| !gtids.is_subset(&w.gtid_set));
        // After a failover the sets may have shrunk.
        seen.get(first).filter(|w| gtids.is_subset(&w.gtid_set)).cloned()
    }

    /// Returns the newest watermark that the caller may borrow for its next reads of the table. Queries the
    /// server on the reader's own connection. The caller must read only after this call.
    ///
    /// # Errors
    /// [`WatermarkError::Late`] if no such watermark arrives in time; otherwise the query fails or the topic
    /// is no longer followed.
    pub async fn borrow(
        &self,
        reader: &mut Reader,
        table: &TableName,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        self.borrow_from(reader, table, Version(i64::MIN)).await
    }

    /// The same, with `least` as the lowest version.
    ///
    /// A re-snapshot after a log gap overwrites cells from before the gap. Its `least` is the version of the
    /// watermark with which the log continues after the gap.
    ///
    /// # Errors
    /// As for [`Self::borrow`].
    pub async fn borrow_from(
        &self,
        reader: &mut Reader,
        table: &TableName,
        least: Version,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let executed = reader.executed().await?;
        self.wait(&format!("of {table} that the server has executed"), |seen| {
            newest_borrowable(seen.iter().cloned(), &executed, table, least)
        })
        .await
    }

    /// Returns the first watermark above `lower` that covers the binlog position `end`. It is an upper bound
    /// for everything that was read before `end` was queried.
    ///
    /// `lower` is the version of the borrowed watermark. Older watermarks may come from another server before
    /// a failover, and their positions have no meaning on this one.
    ///
    /// # Errors
    /// [`WatermarkError::Late`] if no such watermark arrives in time; [`WatermarkError::Ended`] if the topic
    /// is no longer followed.
    pub async fn covering(
        &self,
        end: &BinlogPosition,
        lower: Version,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let above = |w: &&Arc<Watermark>| w.version > lower && covers(w, end);
        self.wait(&format!("that covers {end}"), |seen| seen.iter().find(above).cloned()).await
    }

    /// Returns the newest watermark that knows all these tables. A follower of their change topics may start
    /// at it.
    ///
    /// # Errors
    /// As for [`Self::covering`].
    pub async fn knowing(&self, tables: &[&TableName]) -> Result<Arc<Watermark>, WatermarkError> {
        let all = |w: &&Arc<Watermark>| tables.iter().all(|table| knows(w, table));
        self.wait("that knows every mapped table", |seen| seen.iter().rev().find(all).cloned()).await
    }

    async fn wait(
        &self,
        what: &str,
        find: impl Fn(&VecDeque<Arc<Watermark>>) -> Option<Arc<Watermark>>,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(self.timeout, async {
            loop {
                if let Some(watermark) = find(&seen.borrow_and_update()) {
                    return Ok(watermark);
                }
                seen.changed().await.map_err(|_| WatermarkError::Ended)?;
            }
        });
        found
            .await
            .unwrap_or_else(|_| Err(WatermarkError::Late { what: what.to_owned(), waited: self.timeout }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Retry, Stop};
        let late = WatermarkError::Late { what: "of t".into(), waited: Duration::from_secs(1) };
        let denied = MysqlError::AccessDenied { address: "h".into(), user: "u".into() };
        let away = MysqlError::Unreachable { address: "h".into(), cause: "refused".into() };
        for (error, expected) in [
            (WatermarkError::Consume(ConsumeError::Closed), Retry),
            (WatermarkError::Consume(ConsumeError::NoTopic("t".into())), Stop),
            (WatermarkError::Mysql(away), Retry),
            (WatermarkError::Mysql(denied), Stop),
            (late, Retry),
            (WatermarkError::Decode("too short".into()), Stop),
            (WatermarkError::Ended, Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
