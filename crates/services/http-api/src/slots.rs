//! The places of a server's connections, and who gives way when there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::connection::Connection;

/// How long a connection that waits for a place waits before it looks again for one that may give way.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The places of a server's connections.
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

/// The place of a connection. It becomes free when this is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    pub(crate) connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken().connections.remove(&self.id);
    }
}

impl Slots {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), taken: Mutex::default() })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a new connection. Where there is none, another connection gives way: first those that have
    /// been idle for the longest time, then those whose request has been awaited for the longest time.
    pub(crate) async fn take(self: &Arc<Self>) -> Slot {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.slot(permit);
            }
            let again = Instant::now() + LOOK_AGAIN;
            let until = match self.make_room() {
                Ok(()) => again,
                Err(earliest) => earliest.map_or(again, |earliest| earliest.min(again)),
            };
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout_at(until, free).await {
                return self.slot(permit);
            }
        }
    }

    fn slot(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        let connection = Arc::new(Connection::new());
        let mut taken = self.taken();
        let id = taken.next;
        taken.next += 1;
        taken.connections.insert(id, Arc::clone(&connection));
        drop(taken);
        Slot { slots: Arc::clone(self), id, connection, _permit: permit }
    }

    /// Closes the connection that gives way next. Where none may be closed yet, the error is when one may.
    pub(crate) fn make_room(&self) -> Result<(), Option<Instant>> {
        let now = Instant::now();
        let taken = self.taken();
        let (mut next, mut earliest) = (None, None::<Instant>);
        for connection in taken.connections.values() {
            let Some((class, from)) = connection.expendable() else { continue };
            if from > now {
                earliest = Some(earliest.map_or(from, |earliest| earliest.min(from)));
            } else if next.as_ref().is_none_or(|(order, _)| (class, from) < *order) {
                next = Some(((class, from), connection));
            }
        }
        match next {
            Some((_, connection)) if connection.give_way() => Ok(()),
            // Its client has sent its request meanwhile.
            Some(_) => Err(Some(now)),
            None => Err(earliest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Phase;

    fn full(count: usize) -> (Arc<Slots>, Vec<Slot>) {
        let slots = Slots::new(count);
        let taken =
            (0..count).map(|_| slots.slot(Arc::clone(&slots.free).try_acquire_owned().unwrap())).collect();
        (slots, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_give_way_first_the_longest_idle_before_others() {
        let (slots, taken) = full(4);
        let phases = [Phase::Opening, Phase::Idle, Phase::Idle, Phase::Working];
        for (slot, phase) in taken.iter().zip(phases) {
            slot.connection.enter(phase);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let mut closed = Vec::new();
        while slots.make_room().is_ok() {
            closed.push(taken.iter().map(|slot| slot.connection.is_closed()).collect::<Vec<_>>());
        }
        let [f, t] = [false, true];
        assert_eq!(closed, [[f, t, f, f], [f, t, t, f], [t, t, t, f]]);
    }

    /// Otherwise a burst would close its own connections before it closes idle ones.
    #[tokio::test(start_paused = true)]
    async fn connections_of_a_burst_do_not_close_each_other_at_once() {
        let (slots, taken) = full(3);
        let begun = Instant::now();
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take().await.id }
        });
        let first = async {
            loop {
                if let Some(at) = taken.iter().position(|slot| slot.connection.is_closed()) {
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let closed = tokio::time::timeout(Duration::from_mins(1), first).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        let mut taken = taken;
        drop(taken.swap_remove(closed));
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_is_taken_without_closing_anything() {
        let (slots, mut taken) = full(2);
        for slot in &taken {
            assert!(slot.connection.enter(Phase::Working));
        }
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take().await.id }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        drop(taken.pop());
        assert_eq!(waiting.await.unwrap(), 2);
        assert!(!taken[0].connection.is_closed());
    }
}
