//! Pooled connections that never return to the pool with an unread answer.
//!
//! The driver does not notice an unread answer if the query was cancelled before its first packet arrived.

use mysql_async::Conn;

/// A connection taken from a pool.
///
/// On drop it returns to the pool only if it is clean: the last answer was read to its end and no transaction
/// is open. Otherwise it is closed, because the next user would read the wrong answer.
#[derive(Debug)]
pub(crate) struct Lease {
    conn: Option<Conn>,
    clean: bool,
}

impl Lease {
    pub(crate) fn new(conn: Conn) -> Self {
        Self { conn: Some(conn), clean: true }
    }

    pub(crate) fn conn(&mut self) -> &mut Conn {
        self.clean = false;
        self.conn.as_mut().expect("only drop takes the connection")
    }

    /// Marks the connection as clean: the last answer was read to its end, and no transaction is open.
    pub(crate) fn is_clean(&mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(conn)) = (self.clean, self.conn.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // An error does not matter: the socket is closed either way.
            runtime.spawn(async move { drop(conn.disconnect().await) });
        }
    }
}
