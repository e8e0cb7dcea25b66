//! Follows the watermark topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_kafka::{KafkaConfig, TailReader};
use tandem_model::{BinlogPosition, Disposition, GtidSet, Remedy, TableName, Version, Watermark};
use tandem_mysql::{MysqlError, Reader};
use tandem_protocol::watermark::{covers, knows, newest_borrowable};
use tandem_protocol::watermark_log::WatermarkReader;
use tandem_wire::log::Topics;
use tokio::sync::watch;

use crate::newest::{NewestWatermark, WatermarkReadError, read_watermark};

/// How many watermarks are kept. A reader's server is at most a few transactions behind the newest watermark,
/// and a thousand watermarks cover minutes.
const REMEMBERED: usize = 1000;

/// How long a wait for a watermark takes before the server is asked again what it has executed.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Why no watermark is available.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// Reading the topic failed.
    #[error(transparent)]
    Read(#[from] WatermarkReadError),
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
            Self::Read(error) => error.retry(),
            Self::Mysql(error) => error.retry(),
            Self::Late { .. } => Disposition::Retry,
            // Nothing starts the task again.
            Self::Ended => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Mysql(_) | Self::Late { .. } | Self::Ended => None,
        }
    }
}

/// The watermarks of one source, in log order. Cheap to clone.
#[derive(Clone)]
pub struct Watermarks {
    seen: watch::Receiver<VecDeque<Arc<Watermark>>>,
    timeout: Duration,
    topics: Topics,
}

impl Watermarks {
    /// Follows `<prefix>.watermarks` from its last record on. `timeout` limits every wait for a watermark.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn follow(config: &KafkaConfig, timeout: Duration) -> Result<Self, WatermarkError> {
        let topic = config.topics().watermarks();
        let (newest, next, mut watermarks) = match NewestWatermark::read(config).await? {
            Some(NewestWatermark { watermark, offset, reader }) => (Some(watermark), offset + 1, reader),
            None => (None, 0, WatermarkReader::default()),
        };
        let mut reader =
            TailReader::start(config, vec![(topic, 0, next)]).await.map_err(WatermarkReadError::from)?;
        let (sender, seen) = watch::channel(newest.into_iter().collect::<VecDeque<_>>());
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
                    match read_watermark(&mut watermarks, record) {
                        Ok(watermark) => fresh.extend(watermark),
                        Err(error) => {
                            tracing::error!(%error, "following the watermark topic failed");
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
        Ok(Self { seen, timeout, topics: config.topics() })
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
        let topic = self.topics.changes(table);
        self.seen.borrow().iter().rev().find(|w| knows(w, table, &topic)).cloned()
    }

    /// Returns the first kept watermark that contains all these transactions completely. Returns `None` while
    /// capture has not reached them.
    pub fn containing(&self, gtids: &GtidSet) -> Option<Arc<Watermark>> {
        first_containing(&self.seen.borrow(), gtids)
    }

    /// Waits without limit for a watermark that contains all these transactions, and returns the first one. A caller that
    /// needs a limit sets its own timeout.
    ///
    /// # Errors
    /// [`WatermarkError::Ended`] if the topic is no longer followed.
    pub async fn until_containing(&self, gtids: &GtidSet) -> Result<Arc<Watermark>, WatermarkError> {
        let mut seen = self.seen.clone();
        loop {
            if let Some(watermark) = first_containing(&seen.borrow_and_update(), gtids) {
                return Ok(watermark);
            }
            seen.changed().await.map_err(|_| WatermarkError::Ended)?;
        }
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
        let (what, topic) = (format!("of {table} that the server has executed"), self.topics.changes(table));
        let deadline = Instant::now() + self.timeout;
        loop {
            let executed = reader.executed().await?;
            let find = |seen: &VecDeque<Arc<Watermark>>| {
                newest_borrowable(seen.iter().cloned(), &executed, table, &topic, least)
            };
            // Asked again from time to time: a watermark that comes later names transactions that the server had not
            // executed when it was asked.
            let wait = deadline.saturating_duration_since(Instant::now()).min(ASK_AGAIN);
            match self.wait_for(&what, wait, find).await {
                Err(WatermarkError::Late { .. }) if Instant::now() < deadline => {}
                Err(WatermarkError::Late { what, .. }) => {
                    return Err(WatermarkError::Late { what, waited: self.timeout });
                }
                found => return found,
            }
        }
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
        let topics: Vec<String> = tables.iter().map(|table| self.topics.changes(table)).collect();
        let all =
            |w: &&Arc<Watermark>| tables.iter().zip(&topics).all(|(table, topic)| knows(w, table, topic));
        self.wait("that knows every mapped table", |seen| seen.iter().rev().find(all).cloned()).await
    }

    async fn wait(
        &self,
        what: &str,
        find: impl Fn(&VecDeque<Arc<Watermark>>) -> Option<Arc<Watermark>>,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        self.wait_for(what, self.timeout, find).await
    }

    async fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&VecDeque<Arc<Watermark>>) -> Option<Arc<Watermark>>,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(timeout, async {
            loop {
                if let Some(watermark) = find(&seen.borrow_and_update()) {
                    return Ok(watermark);
                }
                seen.changed().await.map_err(|_| WatermarkError::Ended)?;
            }
        });
        found.await.unwrap_or_else(|_| Err(WatermarkError::Late { what: what.to_owned(), waited: timeout }))
    }
}

fn first_containing(seen: &VecDeque<Arc<Watermark>>, gtids: &GtidSet) -> Option<Arc<Watermark>> {
    let has = |watermark: &Arc<Watermark>| gtids.is_subset(&watermark.gtid_set);
    // The newest one says cheaply that capture is not there yet.
    seen.back().filter(|newest| has(newest))?;
    let first = seen.partition_point(|watermark| !has(watermark));
    // After a failover the sets may have shrunk.
    seen.get(first).filter(|watermark| has(watermark)).cloned()
}

#[cfg(test)]
mod tests {
    use tandem_kafka::ConsumeError;

    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Retry, Stop};
        let late = WatermarkError::Late { what: "of t".into(), waited: Duration::from_secs(1) };
        let denied = MysqlError::AccessDenied { address: "h".into(), user: "u".into() };
        let away = MysqlError::Unreachable { address: "h".into(), cause: "refused".into() };
        for (error, expected) in [
            (WatermarkReadError::Consume(ConsumeError::Closed).into(), Retry),
            (WatermarkReadError::Consume(ConsumeError::NoTopic("t".into())).into(), Stop),
            (WatermarkError::Mysql(away), Retry),
            (WatermarkError::Mysql(denied), Stop),
            (late, Retry),
            (WatermarkError::Ended, Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
