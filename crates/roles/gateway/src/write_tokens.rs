//! Write tokens, for reading one's own writes: which transactions a client depends on, and whether Cassandra has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem_dead_letters::{DeadLetters, DeadLettersError};
use tandem_http_api::Problem;
use tandem_kafka::ConsumeError;
use tandem_model::{GtidSet, TableName, Watermark};
use tandem_protocol::watermark::{applied_in, knows};
use tandem_table_states::{TableStates, TableStatesError};
use tandem_watermarks::{Applied, Watermarks};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::circuit_breaker::CircuitBreaker;
use crate::entity::Entity;

/// The token of a write whose GTID is unknown. It counts as never applied.
pub(crate) const UNKNOWN: &str = "unknown";

/// The longest token, in bytes. The set of a write is one transaction, or everything that was visible to it: a run for
/// each server and each gap.
const MAX_LENGTH: usize = 16 << 10;

/// How often Kafka is asked for the apply group's offsets at most, while reads wait.
const ASK_INTERVAL: Duration = Duration::from_millis(5);
/// A wait of at least this length that ended in vain says something about apply or capture.
const TELLING: Duration = Duration::from_millis(50);
/// The pause after a request that failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

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
#[derive(Debug, Default, Clone, PartialEq)]
struct Progress {
    /// The committed offset of each partition.
    committed: HashMap<(String, i32), Option<i64>>,
    /// The end of the dead-letter topic, as asked for after the offsets. A dead letter is published before the offset of
    /// its change is committed, so every dead letter below the offsets lies below this end.
    letters_end: i64,
    /// The end of the control topic, as asked for after the offsets. A table halts before its changes are skipped, so what
    /// was skipped below the offsets is told below this end.
    states_end: i64,
}

/// Tracks how far apply has come, and waits for it.
///
/// Kafka is asked only while a read waits. All waiting reads share the answers.
#[derive(Clone)]
pub(crate) struct WriteTokens {
    watermarks: Watermarks,
    progress: watch::Receiver<Progress>,
    followers: Followers,
    waiting: Arc<Waiting>,
    /// Opens when waits for apply end in vain one after another, because it is far behind or stopped.
    circuit: Arc<CircuitBreaker>,
    /// The same for waits for capture. A token that names no transaction of this log waits in vain, too, and must not keep
    /// reads of captured writes from waiting.
    captured: Arc<CircuitBreaker>,
}

/// What tells which changes below apply's offsets are not in Cassandra.
#[derive(Clone)]
pub(crate) struct Followers {
    pub(crate) letters: DeadLetters,
    pub(crate) states: TableStates,
}

/// The progress of apply is not known.
#[derive(Debug, thiserror::Error)]
enum ProgressError {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Letters(#[from] DeadLettersError),
    #[error(transparent)]
    States(#[from] TableStatesError),
}

/// The reads that wait for apply's progress.
#[derive(Default)]
struct Waiting {
    reads: AtomicUsize,
    /// Notified when a read begins to wait, or would need newer progress.
    wanted: Notify,
}

impl Waiting {
    /// Counts one more until the guard is dropped.
    fn enter(&self) -> Waiter<'_> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.wanted.notify_one();
        Waiter(self)
    }
}

struct Waiter<'a>(&'a Waiting);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WriteTokens {
    /// Starts to follow the apply group's offsets in these topics, while reads wait for them.
    pub(crate) fn watch(
        watermarks: Watermarks,
        applied: Applied,
        followers: Followers,
        topics: Vec<String>,
    ) -> Self {
        let (sender, progress) = watch::channel(Progress::default());
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(follow(applied, topics, followers.clone(), Arc::clone(&waiting), sender));
        Self { watermarks, progress, followers, waiting, circuit: Arc::default(), captured: Arc::default() }
    }

    /// Whether apply has written the entity's changes that the token covers, or put them aside, or skipped them because the
    /// table has halted, and the dead letters among them and the state of the table are known. Waits for that up to `patience`, and at most until `deadline`. While waits end in vain, only one read
    /// a second waits. Without `patience`, MySQL serves the read anyway, and nothing is asked.
    pub(crate) async fn applied(
        &self,
        token: &WriteToken,
        entity: &Entity,
        patience: Option<Duration>,
        deadline: Instant,
    ) -> bool {
        let WriteToken::Gtids(gtids) = token else { return false };
        if self.is_applied_now(gtids, entity) {
            return true;
        }
        let Some(patience) = patience else { return false };
        if patience.is_zero() {
            self.waiting.wanted.notify_one();
            return false;
        }
        let now = Instant::now();
        let Some(watermark) = self.watermarks.containing(gtids) else {
            // Capture has to bring the write first.
            return self
                .wait(&self.captured, now, patience, deadline, self.until_applied(gtids, entity))
                .await;
        };
        self.wait(&self.circuit, now, patience, deadline, self.until_reached(&watermark, entity)).await
    }

    /// The same for a read that no client waits for.
    pub(crate) async fn applied_within(&self, token: &WriteToken, entity: &Entity, limit: Duration) -> bool {
        let WriteToken::Gtids(gtids) = token else { return false };
        let applied = tokio::time::timeout(limit, self.until_applied(gtids, entity)).await;
        applied.unwrap_or(false)
    }

    async fn wait(
        &self,
        circuit: &CircuitBreaker,
        now: Instant,
        patience: Duration,
        deadline: Instant,
        applied: impl Future<Output = bool>,
    ) -> bool {
        if !circuit.ask(now) {
            // What is known of apply is renewed for the reads that come.
            self.waiting.wanted.notify_one();
            return false;
        }
        let applied = timeout_at(deadline.min(now + patience), applied).await.unwrap_or(false);
        // A wait that the client's own short deadline has ended says nothing.
        if applied || now.elapsed() >= patience.min(TELLING) {
            circuit.note(applied, Instant::now());
        }
        applied
    }

    fn is_applied_now(&self, gtids: &GtidSet, entity: &Entity) -> bool {
        let Some(watermark) = self.watermarks.containing(gtids) else { return false };
        let progress = self.progress.borrow();
        progress.covers(&watermark, entity)
            && self.followers.letters.has_read(progress.letters_end)
            && self.followers.states.has_read(progress.states_end)
    }

    /// Waits without limit. Returns false if the log is no longer followed.
    async fn until_applied(&self, gtids: &GtidSet, entity: &Entity) -> bool {
        let Ok(watermark) = self.watermarks.until_containing(gtids).await else { return false };
        self.until_reached(&watermark, entity).await
    }

    async fn until_reached(&self, watermark: &Watermark, entity: &Entity) -> bool {
        let _waiter = self.waiting.enter();
        let mut progress = self.progress.clone();
        let covering = progress.wait_for(|progress| progress.covers(watermark, entity)).await;
        let ends = covering.map(|progress| (progress.letters_end, progress.states_end));
        let Ok((letters_end, states_end)) = ends else { return false };
        self.followers.letters.up_to(letters_end).await.is_ok()
            && self.followers.states.up_to(states_end).await.is_ok()
    }
}

impl Progress {
    /// Whether the entity's changes up to a watermark are below the committed offsets.
    fn covers(&self, watermark: &Watermark, entity: &Entity) -> bool {
        is_applied(watermark, &entity.table().name, &entity.topic, |partition| {
            self.committed.get(&(entity.topic.clone(), partition as i32)).copied().flatten()
        })
    }
}

/// Asks for apply's progress while reads wait for it, until the last receiver is gone.
async fn follow(
    applied: Applied,
    topics: Vec<String>,
    followers: Followers,
    waiting: Arc<Waiting>,
    sender: watch::Sender<Progress>,
) {
    let mut failing = false;
    loop {
        if waiting.reads.load(Ordering::Relaxed) == 0 {
            tokio::select! {
                () = waiting.wanted.notified() => {}
                () = sender.closed() => return,
            }
        } else if sender.is_closed() {
            return;
        }
        let begun = Instant::now();
        let known = sender.borrow().clone();
        match newer_than(known, &applied, &topics, &followers).await {
            Ok(newer) => {
                newer.map(|progress| sender.send_replace(progress));
                failing = false;
            }
            Err(error) if !failing => {
                tracing::warn!(%error, "the progress of apply is unknown: MySQL serves reads with tokens");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep_until(begun + if failing { PAUSE_AFTER_ERROR } else { ASK_INTERVAL }).await;
    }
}

/// Asks for the offsets first, and for the ends of the dead letters and of the control topic after that. Offsets that have
/// not moved need no newer ends. Returns `None` if there is nothing new.
async fn newer_than(
    known: Progress,
    applied: &Applied,
    topics: &[String],
    followers: &Followers,
) -> Result<Option<Progress>, ProgressError> {
    let committed = applied.committed(topics).await?;
    if committed == known.committed {
        return Ok(None);
    }
    let (letters, states) = tokio::join!(followers.letters.end(), followers.states.end());
    Ok(Some(Progress { committed, letters_end: letters?, states_end: states? }))
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
