//! Ends statements whose answers nobody awaits any more.
//!
//! A server notices that a client is gone only once it writes to it. A statement that waits for a lock, or that reads for
//! long, would keep its thread and its locks until then. So it is killed, over another connection.
//!
//! **Only the right connection is killed.** After a restart of the server, the id of a connection may belong to another
//! one. So each connection takes a user-level lock with a random name when it is new, and the server is asked which
//! connection holds that lock. After a restart, or on another server, none does.

use std::collections::HashMap;
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
    /// The names of the connections' locks, by the connections' ids.
    locks: Mutex<HashMap<u32, String>>,
}

impl Killer {
    /// Creates a killer that connects with these options when it has something to kill.
    pub(crate) fn new(opts: Opts, server: Server) -> Arc<Self> {
        Arc::new(Self { opts, server, permits: Semaphore::new(CONNECTIONS), locks: Mutex::default() })
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<u32, String>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection with this id has no lock yet.
    ///
    /// An id may come back after a restart of the server. Its entry then names a lock that nobody holds, and the new
    /// connection is not killed.
    pub(crate) fn is_new(&self, id: u32) -> bool {
        !self.locks().contains_key(&id)
    }

    /// Has a connection take its lock. The caller limits the time.
    pub(crate) async fn know(&self, conn: &mut Conn) -> mysql_async::Result<()> {
        let name = format!("tandem-{:032x}", rand::random::<u128>());
        conn.query_drop(format!("DO GET_LOCK('{name}', 0)")).await?;
        let mut locks = self.locks();
        if locks.len() >= MAX_KNOWN {
            locks.clear();
        }
        locks.insert(conn.id(), name);
        Ok(())
    }

    /// Kills the connection on the server, and then closes it.
    pub(crate) async fn kill(self: Arc<Self>, conn: Conn) {
        let name = self.locks().remove(&conn.id());
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
