//! Connections that are given back only where nothing of an answer is left in them. The driver does not
//! know of an answer for which nobody waits any more before its first packet has come.

use mysql_async::Conn;

/// A connection of a pool. One whose last answer was not awaited to its end, or that is inside a
/// transaction, is closed and not given to anybody else: the next one would read the wrong answer.
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
        self.conn.as_mut().expect("it is taken by drop only")
    }

    /// The last answer was read to its end, and no transaction is open.
    pub(crate) fn is_clean(&mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(conn)) = (self.clean, self.conn.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Whether the server heard that it ends does not matter: the socket is closed.
            runtime.spawn(async move { drop(conn.disconnect().await) });
        }
    }
}
