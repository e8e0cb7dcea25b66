//! What a process waits for, because something outside of it does not answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::now_us;

/// A shorter wait is a hiccup, and is not reported.
const HICCUP: Duration = Duration::from_secs(2);

/// Something that this process waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who waits, or for what: `capture`, `writes to Cassandra`.
    pub what: &'static str,
    /// Since when, in microseconds since the epoch.
    pub since_us: i64,
    /// The last error.
    pub cause: String,
    /// When it is tried again, in microseconds since the epoch. `None` if it is tried all the time.
    pub next_try_us: Option<i64>,
}

/// The waits of one process. Cheap to clone.
///
/// A wait lasts as long as somebody holds it: [`Self::begin`] returns a [`Hold`], and dropping the last one of its name
/// ends the wait. So a loop that is cancelled leaves no wait behind.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Mutex<BTreeMap<&'static str, Held>>>);

/// Two of them are equal if they are the same waits.
impl PartialEq for Waits {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Waits {}

#[derive(Debug)]
struct Held {
    wait: Wait,
    holds: usize,
}

impl Waits {
    /// Waits from now on, unless somebody waits under this name already: then the wait goes on, with the newer cause.
    pub fn begin(&self, what: &'static str, cause: String) -> Hold {
        let mut waits = self.lock();
        let held = waits.entry(what).or_insert_with(|| Held {
            wait: Wait { what, since_us: now_us(), cause: String::new(), next_try_us: None },
            holds: 0,
        });
        held.wait.cause = cause;
        held.holds += 1;
        drop(waits);
        Hold { waits: self.clone(), what }
    }

    /// The waits of more than two seconds, by name.
    pub fn now(&self) -> Vec<Wait> {
        self.longer_than(HICCUP)
    }

    fn longer_than(&self, shortest: Duration) -> Vec<Wait> {
        let before = now_us() - i64::try_from(shortest.as_micros()).unwrap_or(i64::MAX);
        let waits = self.lock();
        waits.values().map(|held| &held.wait).filter(|wait| wait.since_us <= before).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a wait.
#[derive(Debug)]
pub struct Hold {
    waits: Waits,
    what: &'static str,
}

impl Hold {
    /// It has failed again, and is tried again after `pause`.
    pub fn failed(&self, cause: String, pause: Duration) {
        if let Some(held) = self.waits.lock().get_mut(self.what) {
            held.wait.cause = cause;
            held.wait.next_try_us = Some(now_us() + i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut waits = self.waits.lock();
        if let Some(held) = waits.get_mut(self.what) {
            held.holds -= 1;
            if held.holds == 0 {
                waits.remove(self.what);
            }
        }
    }
}

/// The wait of a loop that tries something again and again. Cheap to clone: the clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trying(Arc<Mutex<Option<Hold>>>);

impl Trying {
    /// It has failed, and is tried again after `pause`. The wait begins with the first failure.
    pub fn failed(&self, waits: &Waits, what: &'static str, cause: String, pause: Duration) {
        self.lock().get_or_insert_with(|| waits.begin(what, String::new())).failed(cause, pause);
    }

    /// It has succeeded: nobody waits any more.
    pub fn succeeded(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_lasts_as_long_as_somebody_holds_it() {
        let waits = Waits::default();
        let first = waits.begin("writes", "no node".to_owned());
        let since = waits.longer_than(Duration::ZERO)[0].since_us;
        std::thread::sleep(Duration::from_millis(5));
        let second = waits.begin("writes", "timeout".to_owned());
        drop(first);
        second.failed("timeout again".to_owned(), Duration::from_secs(3));
        let trying = Trying::default();
        trying.failed(&waits, "capture", "no server".to_owned(), Duration::from_secs(1));
        trying.failed(&waits, "capture", "no address".to_owned(), Duration::from_secs(1));
        let now = waits.longer_than(Duration::ZERO);
        let causes: Vec<_> = now.iter().map(|wait| (wait.what, wait.cause.as_str())).collect();
        assert_eq!(causes, [("capture", "no address"), ("writes", "timeout again")]);
        assert_eq!(now[1].since_us, since);
        assert!(now[1].next_try_us.is_some_and(|next| next > since + 2_000_000));
        assert_eq!(waits.now(), [], "only hiccups");
        trying.succeeded();
        drop(second);
        assert_eq!(waits.longer_than(Duration::ZERO), []);
    }
}
