//! Retries dead letters in the background, so that what the next change of a row has corrected settles by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_dead_letters::{OpenLetter, Retried, Retrier};
use tandem_model::{TableName, Version};
use tandem_mysql::Reader;
use tandem_protocol::table_state::is_applied;
use tandem_row_check::{CheckError, Checker};
use tandem_wire::control::RecordPlace;
use tandem_wire::log::Topics;

use crate::metrics::Metrics;

/// How often the open dead letters are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The first and the longest pause between two attempts for a dead letter whose row has not changed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Attempts between two looks at most.
const ATTEMPTS: usize = 50;

/// Retries dead letters until following them fails.
pub(crate) struct Retries<'a> {
    pub(crate) checker: &'a Checker,
    pub(crate) retrier: Retrier,
    pub(crate) topics: Topics,
    /// The mapped tables.
    pub(crate) tables: HashMap<String, TableName>,
    pub(crate) metrics: &'a Metrics,
}

impl Retries<'_> {
    /// # Errors
    /// The dead-letter topic is no longer followed. A retry that fails is repeated later.
    pub(crate) async fn run(&self) -> Result<(), CheckError> {
        let letters = &self.checker.letters;
        let mut schedule = Schedule::default();
        let mut reader: Option<Reader> = None;
        loop {
            let open = letters.all();
            self.metrics.show_open(&open);
            let states = self.checker.states.now()?;
            // A retry would wait for a watermark that a table does not get while it is not captured.
            let newest = self.checker.watermarks.newest();
            let captured = |table| newest.as_ref().is_none_or(|w| w.tables.captured.contains_key(table));
            let can_settle = |letter: &Arc<OpenLetter>| {
                let table = self.tables.get(&*letter.table);
                table.is_some_and(|table| is_applied(states.get(table)) && captured(table))
            };
            let open: Vec<Arc<OpenLetter>> = open.into_iter().filter(can_settle).collect();
            for (letter, change) in schedule.due(&open, Instant::now(), |letter| self.last_change(letter)) {
                let outcome = self.retry(&mut reader, &letter).await;
                schedule.attempted(&letter, change, Instant::now());
                let name = outcome.unwrap_or_else(|error| {
                    // Its connection may be broken.
                    reader = None;
                    tracing::warn!(letter = %letter.place, %error, "a dead letter was not retried: trying again");
                    "failed"
                });
                self.metrics.count_retry(name);
            }
            tokio::select! {
                ended = letters.ended() => return Err(ended.into()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn retry(
        &self,
        reader: &mut Option<Reader>,
        letter: &OpenLetter,
    ) -> Result<&'static str, tandem_dead_letters::RetryError> {
        let mut connected = match reader.take() {
            Some(reader) => reader,
            None => self.checker.mysql.reader().await?,
        };
        let outcome = self.retrier.retry(&mut connected, letter).await?;
        *reader = Some(connected);
        Ok(match outcome {
            Retried::Settled => {
                tracing::info!(table = %letter.table, letter = %letter.place, "a dead letter is settled");
                "settled"
            }
            Retried::Refused(cause) => {
                tracing::info!(table = %letter.table, letter = %letter.place, cause, "a dead letter stays open");
                "refused"
            }
        })
    }

    /// The newest change of the letter's row that this process has seen.
    fn last_change(&self, letter: &OpenLetter) -> Option<Version> {
        let table = self.tables.get(&*letter.table)?;
        self.checker.tracker.last_change(&self.topics.changes(table), &letter.key)
    }
}

/// When each dead letter is tried again: at once after a change of its row, otherwise after longer and longer pauses.
#[derive(Default)]
struct Schedule {
    attempts: HashMap<RecordPlace, Attempt>,
}

struct Attempt {
    next: Instant,
    pause: Duration,
    /// The newest change of the row at the last attempt.
    change: Option<Version>,
}

type Due = Vec<(Arc<OpenLetter>, Option<Version>)>;

impl Schedule {
    /// The letters to try now, each with the newest change of its row. Forgets letters that are not open any more.
    fn due(
        &mut self,
        open: &[Arc<OpenLetter>],
        now: Instant,
        last_change: impl Fn(&OpenLetter) -> Option<Version>,
    ) -> Due {
        if self.attempts.len() > open.len() {
            let places: std::collections::HashSet<&RecordPlace> = open.iter().map(|l| &l.place).collect();
            self.attempts.retain(|place, _| places.contains(place));
        }
        let due = open.iter().filter_map(|letter| {
            let change = last_change(letter);
            // Those whose rows have changed come first, then those that have waited longest.
            let since = match self.attempts.get(&letter.place) {
                Some(attempt) if change > attempt.change => None,
                Some(attempt) if now >= attempt.next => Some(attempt.next),
                Some(_) => return None,
                None => None,
            };
            Some((since, (Arc::clone(letter), change)))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(since, _)| *since);
        due.into_iter().map(|(_, due)| due).take(ATTEMPTS).collect()
    }

    /// Notes an attempt. `change` is the newest change of the row as it was known before.
    fn attempted(&mut self, letter: &OpenLetter, change: Option<Version>, now: Instant) {
        let attempt = self.attempts.entry(letter.place.clone()).or_insert(Attempt {
            next: now,
            pause: PAUSE.0 / 2,
            change: None,
        });
        attempt.pause = (attempt.pause * 2).min(PAUSE.1);
        attempt.next = now + attempt.pause;
        attempt.change = change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64) -> Arc<OpenLetter> {
        Arc::new(OpenLetter {
            place: RecordPlace { topic: "t".into(), partition: 0, offset },
            table: "d.t".into(),
            key: [0; 6].into(),
            version: Version(offset),
            reason: "invalid-date".into(),
            at_us: 0,
            offset,
        })
    }

    #[test]
    fn a_change_of_the_row_makes_its_letter_due_at_once() {
        let (mut schedule, now, open) = (Schedule::default(), Instant::now(), [letter(1), letter(2)]);
        let none = |_: &OpenLetter| None;
        assert_eq!(schedule.due(&open, now, none).len(), 2);
        for letter in &open {
            schedule.attempted(letter, None, now);
        }
        assert_eq!(schedule.due(&open, now, none), []);
        let changed = |letter: &OpenLetter| (letter.version == Version(2)).then_some(Version(9));
        let due = schedule.due(&open, now, changed);
        assert_eq!(due, [(Arc::clone(&open[1]), Some(Version(9)))]);
        schedule.attempted(&open[1], Some(Version(9)), now);
        assert_eq!(schedule.due(&open, now, changed), []);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let (mut schedule, mut now, open) = (Schedule::default(), Instant::now(), [letter(1)]);
        let none = |_: &OpenLetter| None;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.attempted(&open[0], None, now);
            let pause = schedule.attempts[&open[0].place].pause;
            now += pause / 2;
            assert_eq!(schedule.due(&open, now, none), []);
            now += pause / 2;
            assert_eq!(schedule.due(&open, now, none).len(), 1);
            pauses.push(pause);
        }
        assert_eq!((pauses[0], pauses[1], pauses[11]), (PAUSE.0, PAUSE.0 * 2, PAUSE.1));
    }

    #[test]
    fn a_changed_row_does_not_wait_behind_many_others() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let open: Vec<_> = (0..200).map(letter).collect();
        for letter in &open {
            schedule.attempted(letter, None, now);
        }
        let changed = |letter: &OpenLetter| (letter.version == Version(199)).then_some(Version(900));
        let due = schedule.due(&open, now + PAUSE.1, changed);
        assert_eq!((due.len(), &due[0].0), (ATTEMPTS, &open[199]));
    }

    #[test]
    fn closed_letters_are_forgotten() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.attempted(&letter(1), None, now);
        schedule.attempted(&letter(2), None, now);
        schedule.due(&[letter(2)], now, |_| None);
        assert_eq!(schedule.attempts.len(), 1);
    }
}
