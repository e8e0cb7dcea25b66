//! Ends statements whose answers nobody awaits any more.
//!
//! A server notices that a client is gone only once it writes to it. A statement that waits for a lock, or that reads for
//! long, would keep its thread and its locks until then. So it is killed, over another connection.
//!
//! **Only the right connection is killed.** After a restart of the server, the id of a connection may belong to another
//! one. So each connection takes a user-level lock with a random name when it is new, and the server is asked which
//! connection holds that lock. After a restart, or on another server, none does.
//!
//! **Where this cannot be known, nothing is killed:** if two connections in use have the same id, because several servers
//! answer at one address, or if a proxy or a server setting stands in the way.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use tokio::sync::Semaphore;

use crate::connect::server::Server;
use crate::error::MysqlError;

/// Connections that kill others at most.
const CONNECTIONS: usize = 2;
/// Known connections at most. Beyond that all are forgotten: they take another lock when they are used next.
const MAX_KNOWN: usize = 4096;

/// Kills connections of one pool.
#[derive(Debug)]
pub(crate) struct Killer {
    opts: Opts,
    server: Server,
    permits: Semaphore,
    known: Mutex<Known>,
    /// Whether connections can be known at all.
    disabled: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// The names of the connections' locks, by the connections' ids.
    locks: HashMap<u32, String>,
    /// How many connections in use have an id.
    used: HashMap<u32, usize>,
    /// The ids that several connections had at one time. They are never killed.
    ambiguous: HashSet<u32>,
}

impl Killer {
    /// Creates a killer that connects with these options when it has something to kill.
    pub(crate) fn new(opts: Opts, server: Server) -> Arc<Self> {
        Arc::new(Self {
            opts,
            server,
            permits: Semaphore::new(CONNECTIONS),
            known: Mutex::default(),
            disabled: AtomicBool::new(false),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a connection is in use. Returns whether it must take a lock first.
    ///
    /// An id may come back after a restart of the server. Its entry then names a lock that nobody holds. The new connection
    /// is not killed, and takes a lock after the first attempt.
    pub(crate) fn used(&self, id: u32) -> bool {
        let mut known = self.known();
        let count = known.used.entry(id).or_default();
        *count += 1;
        if *count > 1 {
            known.ambiguous.insert(id);
        }
        !known.locks.contains_key(&id) && !self.disabled.load(Ordering::Relaxed)
    }

    /// Notes that a connection is no longer in use.
    pub(crate) fn unused(&self, id: u32) {
        let mut known = self.known();
        if let Some(count) = known.used.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                known.used.remove(&id);
            }
        }
    }

    /// Has a connection take its lock. The caller limits the time. A server that refuses locks, or a proxy that numbers
    /// connections by itself, ends all killing.
    pub(crate) async fn know(&self, conn: &mut Conn) -> mysql_async::Result<()> {
        let name = format!("tandem-{:032x}", rand::random::<u128>());
        let question = format!("SELECT GET_LOCK('{name}', 0), CONNECTION_ID()");
        let cause = match conn.query_first::<(Option<i64>, u64), _>(question).await {
            Ok(Some((Some(1), id))) if id == u64::from(conn.id()) => {
                let mut known = self.known();
                if known.locks.len() >= MAX_KNOWN {
                    known.locks.clear();
                }
                known.locks.insert(conn.id(), name);
                return Ok(());
            }
            Ok(answer) => {
                format!("GET_LOCK and CONNECTION_ID answered {answer:?} to connection {}", conn.id())
            }
            Err(mysql_async::Error::Server(error)) => error.to_string(),
            Err(error) => return Err(error),
        };
        if !self.disabled.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause,
                "statements that nobody awaits are not killed in MySQL: a connection cannot be known"
            );
        }
        Ok(())
    }

    /// Kills the connection on the server, and then closes it.
    pub(crate) async fn kill(self: Arc<Self>, conn: Conn) {
        let name = {
            let mut known = self.known();
            let name = known.locks.remove(&conn.id());
            name.filter(|_| !known.ambiguous.contains(&conn.id()))
        };
        if let Some(name) = name
            && let Err(error) = self.try_kill(&name).await
        {
            tracing::debug!(%error, "a statement that nobody awaits was not killed");
        }
        // An error does not matter: the socket is closed either way.
        drop(conn.disconnect().await);
    }

    async fn try_kill(&self, name: &str) -> Result<(), MysqlError> {
        let _permit = self.permits.acquire().await;
        let mut conn = self.server.connecting(Conn::new(self.opts.clone())).await?;
        let killing = async {
            let held: Option<Option<u64>> = conn.exec_first("SELECT IS_USED_LOCK(?)", (name,)).await?;
            if let Some(Some(holder)) = held {
                conn.query_drop(format!("KILL {holder}")).await?;
            }
            conn.disconnect().await
        };
        self.server.answer(self.server.timeout, "killing a statement that nobody awaits", killing).await
    }
}
