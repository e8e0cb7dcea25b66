//! Write tokens, for reading one's own writes: which transactions a client depends on, and whether Cassandra has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tandem_dead_letters::{DeadLetters, DeadLettersError};
use tandem_http_api::Problem;
use tandem_model::{GtidSet, TableName, Watermark};
use tandem_protocol::watermark::{applied_in, knows};
use tandem_runtime::now_us;
use tandem_watermarks::{Applied, Watermarks};
use tokio::sync::watch;

use crate::entity::Entity;

/// The token of a write whose GTID is unknown. It counts as never applied.
pub(crate) const UNKNOWN: &str = "unknown";

/// The longest token, in bytes. The set of a write is one transaction, or everything that was visible to it: a run for
/// each server and each gap.
const MAX_LENGTH: usize = 16 << 10;

/// How often the apply group's offsets are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long polling continues after the last request with a token.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// What a `Tandem-Token` header says. It grants no access: that is what access tokens do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteToken {
    /// The transactions that the client depends on.
    Gtids(GtidSet),
    /// A write whose transaction is unknown.
    Unknown,
}

impl WriteToken {
    /// Parses a `Tandem-Token` header.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        if text == UNKNOWN {
            return Ok(Self::Unknown);
        }
        let bad = || Problem::bad_request("the Tandem-Token is not one that a write returned");
        if text.len() > MAX_LENGTH {
            return Err(bad());
        }
        text.parse().map(Self::Gtids).map_err(|_| bad())
    }

    /// The token of a write, as a `Tandem-Token` header. A set that a request could not send back is not told.
    pub(crate) fn text_of(gtids: Option<&GtidSet>) -> String {
        let text = gtids.map(ToString::to_string).filter(|text| text.len() <= MAX_LENGTH);
        text.unwrap_or_else(|| UNKNOWN.to_owned())
    }
}

/// How far apply was at one moment.
#[derive(Default)]
struct Progress {
    /// The committed offset of each partition.
    committed: HashMap<(String, i32), Option<i64>>,
    /// The end of the dead-letter topic, as asked for after the offsets. A dead letter is published before the offset of
    /// its change is committed, so every dead letter below the offsets lies below this end.
    letters_end: i64,
}

/// Tracks how far apply has come.
///
/// The state may be some milliseconds old. In that case MySQL serves a read that Cassandra could have served.
#[derive(Clone)]
pub(crate) struct WriteTokens {
    watermarks: Watermarks,
    progress: watch::Receiver<Progress>,
    letters: DeadLetters,
    asked_us: Arc<AtomicI64>,
}

impl WriteTokens {
    /// Starts to poll the apply group's offsets in these topics, while requests carry tokens.
    pub(crate) fn watch(
        watermarks: Watermarks,
        applied: Applied,
        letters: DeadLetters,
        topics: Vec<String>,
    ) -> Self {
        let (sender, progress) = watch::channel(Progress::default());
        let asked_us = Arc::new(AtomicI64::new(0));
        let (asked, ends) = (Arc::clone(&asked_us), letters.clone());
        tokio::spawn(async move {
            let mut failing = false;
            while !sender.is_closed() {
                let idle = now_us() - asked.load(Ordering::Relaxed);
                if idle < IDLE_AFTER.as_micros() as i64 {
                    match progress_of(&applied, &topics, &ends).await {
                        Ok(progress) => {
                            sender.send_replace(progress);
                            failing = false;
                        }
                        Err(error) if !failing => {
                            tracing::warn!(%error, "the progress of apply is unknown: MySQL serves reads with tokens");
                            failing = true;
                        }
                        Err(_) => {}
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Self { watermarks, progress, letters, asked_us }
    }

    /// Notes that a request carries a token, which keeps the polling active.
    pub(crate) fn note_request(&self) {
        self.asked_us.store(now_us(), Ordering::Relaxed);
    }

    /// Whether apply has written the entity's changes that the token covers, or put them aside, and the dead letters among
    /// them are known.
    pub(crate) fn applied(&self, token: &WriteToken, entity: &Entity) -> bool {
        self.note_request();
        let WriteToken::Gtids(gtids) = token else { return false };
        let Some(watermark) = self.watermarks.containing(gtids) else { return false };
        let progress = self.progress.borrow();
        self.letters.has_read(progress.letters_end)
            && is_applied(&watermark, &entity.table().name, &entity.topic, |partition| {
                progress.committed.get(&(entity.topic.clone(), partition as i32)).copied().flatten()
            })
    }
}

/// Asks for the offsets first, and for the end of the dead letters after that.
async fn progress_of(
    applied: &Applied,
    topics: &[String],
    letters: &DeadLetters,
) -> Result<Progress, DeadLettersError> {
    let committed = applied.committed(topics).await?;
    Ok(Progress { committed, letters_end: letters.end().await? })
}

/// Whether a table's changes up to a watermark are applied. They are in `topic`.
///
/// A watermark that does not know the table is older than its capture, or the table's changes are in another topic. The
/// write may not be in this topic at all, so it does not count as applied.
fn is_applied(
    watermark: &Watermark,
    table: &TableName,
    topic: &str,
    committed: impl Fn(usize) -> Option<i64>,
) -> bool {
    knows(watermark, table, topic) && applied_in(watermark, topic, committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{BinlogPosition, CapturedTables, Version};

    #[test]
    fn a_watermark_without_the_table_counts_as_not_applied() {
        let (known, new) = (TableName::new("d", "known"), TableName::new("d", "new"));
        let captured = [(known.clone(), "t".into())].into();
        let watermark = Watermark {
            source: "s".into(),
            gtid_set: GtidSet::default(),
            position: BinlogPosition { file: "binlog.000001".into(), pos: 4 },
            version: Version(1),
            tables: Arc::new(CapturedTables { captured, ..CapturedTables::default() }),
            offsets: [("t".to_owned(), vec![5])].into(),
            partial: None,
            clock_us: 0,
        };
        assert!(is_applied(&watermark, &known, "t", |_| Some(5)));
        assert!(!is_applied(&watermark, &known, "t", |_| Some(4)));
        assert!(!is_applied(&watermark, &new, "t", |_| Some(5)));
        assert!(!is_applied(&watermark, &known, "u", |_| Some(5)));
    }

    #[test]
    fn a_token_is_bounded_in_length_both_ways() {
        const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let numbers = |count: u64| (1..=count).map(|n| (n * 2).to_string()).collect::<Vec<_>>().join(":");
        let (short, long) = (format!("{UUID}:{}", numbers(1000)), format!("{UUID}:{}", numbers(10_000)));
        assert!(short.len() < MAX_LENGTH && long.len() > MAX_LENGTH);
        assert!(WriteToken::parse(&short).is_ok());
        assert_eq!(WriteToken::parse(&long).unwrap_err().status.as_u16(), 400);
        let told = |text: &str| WriteToken::text_of(Some(&text.parse().unwrap()));
        assert_eq!(told(&short), short);
        assert_eq!(told(&long), UNKNOWN);
        assert_eq!(WriteToken::text_of(None), UNKNOWN);
    }

    #[test]
    fn tokens_are_gtid_sets() {
        let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5";
        assert_eq!(WriteToken::parse(text), Ok(WriteToken::Gtids(text.parse().unwrap())));
        assert_eq!(WriteToken::parse(UNKNOWN), Ok(WriteToken::Unknown));
        assert_eq!(WriteToken::parse("nonsense").unwrap_err().status.as_u16(), 400);
    }
}
