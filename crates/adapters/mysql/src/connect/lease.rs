//! Pooled connections that never return to the pool with an unread answer.
//!
//! The driver does not notice an unread answer if the query was cancelled before its first packet arrived.

use std::sync::Arc;

use mysql_async::Conn;

use crate::connect::killer::Killer;
use crate::error::MysqlError;

/// A connection taken from a pool.
///
/// On drop it returns to the pool only if it is clean: the last answer was read to its end and no transaction
/// is open. Otherwise it is closed, because the next user would read the wrong answer. If an answer is still awaited and
/// there is a killer, its statement is killed first.
#[derive(Debug)]
pub(crate) struct Lease {
    conn: Option<Conn>,
    killer: Option<Arc<Killer>>,
    /// Whether the killer may kill its statements.
    spared: bool,
    clean: bool,
    awaits: bool,
}

impl Lease {
    pub(crate) fn new(conn: Conn) -> Self {
        Self { conn: Some(conn), killer: None, spared: false, clean: true, awaits: false }
    }

    /// A connection whose statements are killed once nobody awaits their answers any more. The second part of the result
    /// says whether the connection must take its lock first.
    pub(crate) fn watched(conn: Conn, killer: &Arc<Killer>) -> (Self, bool) {
        let is_new = killer.used(conn.id());
        let mut lease = Self::new(conn);
        lease.killer = Some(Arc::clone(killer));
        (lease, is_new)
    }

    pub(crate) fn conn(&mut self) -> &mut Conn {
        self.clean = false;
        self.awaits = true;
        self.conn.as_mut().expect("only drop takes the connection")
    }

    /// Notes whether the last statement was answered. An error is an answer too, unless the connection was lost.
    pub(crate) fn answered<T>(&mut self, answer: &Result<T, MysqlError>) {
        self.awaits = matches!(answer, Err(MysqlError::Lost { .. }));
    }

    /// Whether the answer to the last statement is still awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.awaits
    }

    /// From now on no statement is killed.
    pub(crate) fn spare(&mut self) {
        self.spared = true;
    }

    /// Marks the connection as clean: the last answer was read to its end, and no transaction is open.
    pub(crate) fn is_clean(&mut self) {
        self.clean = true;
        self.awaits = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let killer = self.killer.take();
        if let (Some(killer), Some(conn)) = (&killer, &self.conn) {
            killer.unused(conn.id());
        }
        if let (false, Some(conn)) = (self.clean, self.conn.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            match killer.filter(|_| self.awaits && !self.spared) {
                Some(killer) => drop(runtime.spawn(killer.kill(conn))),
                // An error does not matter: the socket is closed either way.
                None => drop(runtime.spawn(async move { drop(conn.disconnect().await) })),
            }
        }
    }
}
