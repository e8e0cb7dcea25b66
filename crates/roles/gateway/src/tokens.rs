//! Tokens: what a client has written, and whether Cassandra has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tandem_model::{GtidSet, Watermark};
use tandem_protocol::watermark::applied_in;
use tandem_runtime::now_us;
use tandem_watermarks::{Applied, Watermarks};
use tokio::sync::watch;

use crate::problem::Problem;

/// The token of a write whose GTID could not be had: it counts as never applied.
pub(crate) const UNKNOWN: &str = "unknown";

/// Between two looks at the apply group's offsets.
const LOOK: Duration = Duration::from_millis(20);
/// So long after the last token nobody needs to know.
const INTEREST: Duration = Duration::from_secs(10);

/// What a request's token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// These transactions.
    Gtids(GtidSet),
    /// A write of which nothing is known.
    Unknown,
}

impl Token {
    /// Reads a `Tandem-Token` header.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        if text == UNKNOWN {
            return Ok(Self::Unknown);
        }
        let bad = |_| Problem::bad_request("the Tandem-Token is none that a write was answered with");
        text.parse().map(Self::Gtids).map_err(bad)
    }
}

type Committed = HashMap<(String, i32), Option<i64>>;

/// Knows how far apply has come. What it knows may be some milliseconds old: then a read is served by
/// MySQL that Cassandra could have served.
#[derive(Clone)]
pub(crate) struct Tokens {
    watermarks: Watermarks,
    committed: watch::Receiver<Committed>,
    asked_us: Arc<AtomicI64>,
}

impl Tokens {
    /// Watches the apply group's offsets in these topics while tokens are about.
    pub(crate) fn watch(watermarks: Watermarks, applied: Applied, topics: Vec<String>) -> Self {
        let (sender, committed) = watch::channel(Committed::new());
        let asked_us = Arc::new(AtomicI64::new(0));
        let asked = Arc::clone(&asked_us);
        tokio::spawn(async move {
            let mut failing = false;
            while !sender.is_closed() {
                let idle = now_us() - asked.load(Ordering::Relaxed);
                if idle < INTEREST.as_micros() as i64 {
                    match applied.committed(&topics).await {
                        Ok(offsets) => {
                            sender.send_replace(offsets);
                            failing = false;
                        }
                        Err(error) if !failing => {
                            tracing::warn!(%error, "how far apply has come is not known: MySQL serves reads with tokens");
                            failing = true;
                        }
                        Err(_) => {}
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { watermarks, committed, asked_us }
    }

    /// A token is about.
    pub(crate) fn interest(&self) {
        self.asked_us.store(now_us(), Ordering::Relaxed);
    }

    /// Whether Cassandra has what the token stands for, as far as changes of `topic` go.
    pub(crate) fn applied(&self, token: &Token, topic: &str) -> bool {
        self.interest();
        let Token::Gtids(gtids) = token else { return false };
        let Some(watermark) = self.watermarks.containing(gtids) else { return false };
        let committed = self.committed.borrow();
        is_applied(&watermark, topic, |partition| {
            committed.get(&(topic.to_owned(), partition as i32)).copied().flatten()
        })
    }
}

/// Whether the changes of `topic` up to a watermark are applied. One that does not know the topic is
/// from before its table was captured: the write may not be on the log at all.
fn is_applied(watermark: &Watermark, topic: &str, committed: impl Fn(usize) -> Option<i64>) -> bool {
    watermark.offsets.contains_key(topic) && applied_in(watermark, topic, committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{BinlogPosition, Version};

    #[test]
    fn what_does_not_know_a_table_says_nothing_of_it() {
        let watermark = Watermark {
            source: "s".into(),
            gtid_set: GtidSet::default(),
            position: BinlogPosition { file: "binlog.000001".into(), pos: 4 },
            version: Version(1),
            offsets: [("known".to_owned(), vec![5])].into(),
            partial: None,
            clock_us: 0,
        };
        assert!(is_applied(&watermark, "known", |_| Some(5)));
        assert!(!is_applied(&watermark, "known", |_| Some(4)));
        assert!(!is_applied(&watermark, "new", |_| Some(5)));
    }

    #[test]
    fn tokens_are_gtid_sets() {
        let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5";
        assert_eq!(Token::parse(text), Ok(Token::Gtids(text.parse().unwrap())));
        assert_eq!(Token::parse(UNKNOWN), Ok(Token::Unknown));
        assert_eq!(Token::parse("nonsense").unwrap_err().status.as_u16(), 400);
    }
}
