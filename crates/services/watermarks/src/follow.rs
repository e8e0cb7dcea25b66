//! Follows the watermark topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{ConsumeError, KafkaConfig, TailReader, read_last};
use tandem_model::{BinlogPosition, GtidSet, Version, Watermark};
use tandem_mysql::{MysqlError, Reader};
use tandem_protocol::watermark::{covers, newest_borrowable};
use tandem_wire::log::Topics;
use tokio::sync::watch;

/// How many watermarks are remembered. A reader's server is at most a few transactions behind the
/// newest one; a thousand watermarks are minutes.
const REMEMBERED: usize = 1000;

/// Why no watermark could be had.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// Reading the topic failed.
    #[error("reading the watermark topic: {0}")]
    Consume(#[from] ConsumeError),
    /// A record of the topic could not be read.
    #[error("a record of the watermark topic could not be decoded: {0}")]
    Decode(String),
    /// Asking MySQL failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// No watermark came in time.
    #[error(
        "no watermark {what} within {}s: is `capture` running and reading this server's binlog?",
        waited.as_secs()
    )]
    Late {
        /// Which watermark was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The task that follows the topic has ended.
    #[error("the watermark topic is no longer followed")]
    Ended,
}

/// The watermarks of one source, newest last, as they appear on the log. Cheap to clone.
#[derive(Clone)]
pub struct Watermarks {
    seen: watch::Receiver<VecDeque<Arc<Watermark>>>,
    patience: Duration,
}

impl Watermarks {
    /// Starts to follow `<prefix>.watermarks` from its last record on. `patience` bounds every wait
    /// for a watermark.
    pub async fn follow(config: &KafkaConfig, patience: Duration) -> Result<Self, WatermarkError> {
        let topic = Topics::new(&config.prefix).watermarks();
        let start = read_last(config, &topic, 0).await?.map_or(0, |r| r.offset);
        let mut reader = TailReader::start(config, vec![(topic, 0, start)]).await?;
        let (sender, seen) = watch::channel(VecDeque::new());
        tokio::spawn(async move {
            // Ends with the last receiver, or with the first record that cannot be read: waiters
            // then see `Ended` instead of an old watermark for ever.
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
        Ok(Self { seen, patience })
    }

    /// Waits until the topic is no longer followed, which ends only with an error. What looks at
    /// watermarks without waiting for one must watch this: it would see an old one for ever.
    pub async fn ended(&self) -> WatermarkError {
        let mut seen = self.seen.clone();
        while seen.changed().await.is_ok() {}
        WatermarkError::Ended
    }

    /// The newest watermark seen, cut or not.
    pub fn newest(&self) -> Option<Arc<Watermark>> {
        self.seen.borrow().back().cloned()
    }

    /// The newest watermark that knows the table whose changes are in `topic`, cut or not: what a
    /// client's write may borrow that takes it before its COMMIT and writes what it read under the
    /// row's lock.
    pub fn newest_knowing(&self, topic: &str) -> Option<Arc<Watermark>> {
        self.seen.borrow().iter().rev().find(|w| w.offsets.contains_key(topic)).cloned()
    }

    /// The first watermark remembered by which all these transactions were out whole; none while
    /// capture has not come so far.
    pub fn containing(&self, gtids: &GtidSet) -> Option<Arc<Watermark>> {
        let seen = self.seen.borrow();
        let first = seen.partition_point(|w| !gtids.is_subset(&w.gtid_set));
        // After a fail-over the sets need not have grown.
        seen.get(first).filter(|w| gtids.is_subset(&w.gtid_set)).cloned()
    }

    /// The newest watermark that may be borrowed for what `reader` reads next of the table whose
    /// changes are in `topic`. Asks the server on the reader's own connection; whatever the caller
    /// reads must be read after this.
    pub async fn borrow(&self, reader: &mut Reader, topic: &str) -> Result<Arc<Watermark>, WatermarkError> {
        self.borrow_from(reader, topic, Version(i64::MIN)).await
    }

    /// The same, but none below the version `least`: that of the watermark with which the log goes on after
    /// a gap, for what writes over the cells of before it.
    pub async fn borrow_from(
        &self,
        reader: &mut Reader,
        topic: &str,
        least: Version,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let executed = reader.executed().await?;
        self.wait(&format!("of {topic} that the server has executed"), |seen| {
            newest_borrowable(seen.iter().cloned(), &executed, topic, least)
        })
        .await
    }

    /// The first watermark above `lower` that covers `end` of the binlog: an upper bound of whatever
    /// was read before `end` was asked for. `lower` is what was borrowed before: older watermarks may
    /// be those of another server, before a fail-over, whose positions mean nothing here.
    pub async fn covering(
        &self,
        end: &BinlogPosition,
        lower: Version,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let above = |w: &&Arc<Watermark>| w.version > lower && covers(w, end);
        self.wait(&format!("that covers {end}"), |seen| seen.iter().find(above).cloned()).await
    }

    /// The newest watermark that knows the ends of all these change topics: where a follower of
    /// them may begin. One from before a table was mapped does not know its topic.
    pub async fn knowing(&self, topics: &[String]) -> Result<Arc<Watermark>, WatermarkError> {
        let knows = |w: &&Arc<Watermark>| topics.iter().all(|t| w.offsets.contains_key(t));
        self.wait("that knows every change topic", |seen| seen.iter().rev().find(knows).cloned()).await
    }

    async fn wait(
        &self,
        what: &str,
        find: impl Fn(&VecDeque<Arc<Watermark>>) -> Option<Arc<Watermark>>,
    ) -> Result<Arc<Watermark>, WatermarkError> {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(self.patience, async {
            loop {
                if let Some(watermark) = find(&seen.borrow_and_update()) {
                    return Ok(watermark);
                }
                seen.changed().await.map_err(|_| WatermarkError::Ended)?;
            }
        });
        found
            .await
            .unwrap_or_else(|_| Err(WatermarkError::Late { what: what.to_owned(), waited: self.patience }))
    }
}
