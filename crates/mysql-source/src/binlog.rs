//! The binlog stream.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, ServerError};
use tandem_model::{GtidSet, TableName};
use tokio::time::Instant;

use crate::bytes::{Cursor, Fault, Problem};
use crate::charset::Collations;
use crate::client::Server;
use crate::machine::{Header, Machine, PAYLOAD};
use crate::replica::{Replica, preparation};
use crate::{BinlogError, BinlogEvent, MysqlConfig, MysqlError};

/// The binlog of a server from a GTID set on.
///
/// After an error the stream yields that error for ever: going on would skip an event. Open a new
/// one. A new stream begins at the start of a binlog file, so its first positions may lie before
/// the last ones of the stream that it follows.
pub struct BinlogStream {
    replica: Replica,
    machine: Machine,
    server: Server,
    server_id: u32,
    /// Whether events end in a checksum.
    checksums: bool,
    pending: Option<BinlogEvent>,
    failed: Option<BinlogError>,
    silence: Duration,
}

impl fmt::Debug for BinlogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinlogStream").field("at", self.machine.position()).finish_non_exhaustive()
    }
}

/// What comes over the connection: an event, an error, or the stream's end.
type Raw = Result<Option<Bytes>, Error>;

impl BinlogStream {
    /// Asks the server for every transaction that is not in `from`. Rows come only of tables that
    /// are `wanted`; everything else comes whole.
    pub async fn open(
        config: &MysqlConfig,
        from: &GtidSet,
        wanted: impl Fn(&TableName) -> bool + Send + 'static,
    ) -> Result<Self, BinlogError> {
        let opts: Opts = config.options(Vec::new())?.into();
        let server = Server::new(config, &opts);
        let tls = config.connector(&opts)?;
        let mut replica = server.connecting(Replica::connect(&opts, tls)).await?;
        let mut conn = server.connecting(Conn::new(opts)).await?;
        let doing = "preparing to read the binlog";
        let (collations, checksum) = server.answer(server.timeout, doing, settings(&mut conn)).await?;
        // It is of no more use; whether it ends well is of no interest.
        let _ = conn.disconnect().await;
        let prepared = async {
            replica.run(&preparation(config.heartbeat, &checksum)).await?;
            replica.dump(config.server_id, from).await
        };
        server.answer(server.timeout, "asking for the binlog", prepared).await?;

        let mut this = Self {
            replica,
            machine: Machine::new(Box::new(wanted), config.excluded.clone(), collations),
            server,
            server_id: config.server_id,
            checksums: checksum != "NONE",
            pending: None,
            failed: None,
            silence: config.silence(),
        };
        // The server refuses, where it does, instead of sending the first event.
        this.pending = Some(this.next().await?);
        Ok(this)
    }

    /// Waits for the next event. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<BinlogEvent, BinlogError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // What has come while nobody listened is seen only once the runtime has looked.
            let look = Instant::now() + Duration::from_millis(100);
            let deadline = (self.replica.heard() + self.silence).max(look);
            match tokio::time::timeout_at(deadline, self.replica.event()).await {
                Ok(raw) => self.pending = self.take_in(raw)?,
                // A large event comes in parts.
                Err(_) if self.replica.heard().elapsed() < self.silence => {}
                Err(_) => {
                    let seconds = self.replica.heard().elapsed().as_secs();
                    return self.fail(BinlogError::Silent { seconds });
                }
            }
        }
    }

    /// The next event if one has arrived already.
    pub fn try_next(&mut self) -> Result<Option<BinlogEvent>, BinlogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Some(event) = self.pending.take() {
            return Ok(Some(event));
        }
        loop {
            match self.machine.more() {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => return self.fail(error),
            }
            let Some(raw) = self.replica.event().now_or_never() else { return Ok(None) };
            if let Some(event) = self.take_in(raw)? {
                return Ok(Some(event));
            }
        }
    }

    fn take_in(&mut self, raw: Raw) -> Result<Option<BinlogEvent>, BinlogError> {
        let event = match raw {
            Ok(Some(event)) => event,
            Err(error) => return self.fail(self.sorted(error)),
            Ok(None) => return self.fail(BinlogError::Ended { at: self.machine.position().to_string() }),
        };
        let fed = match self.opened(&event) {
            Ok((header, body)) if header.kind == PAYLOAD => self.machine.feed_payload(&header, &body),
            Ok((header, body)) => self.machine.feed(&header, &body),
            // The kind is the fifth byte of the header.
            Err(problem) => {
                Err(self.machine.error(event.get(4).copied().unwrap_or_default(), Fault::Malformed(problem)))
            }
        };
        fed.or_else(|error| self.fail(error))
    }

    /// The header and the body of an event whose checksum is right.
    fn opened(&mut self, event: &Bytes) -> Result<(Header, Bytes), Problem> {
        let mut cursor = Cursor::new(event);
        let (header, size) = Header::read(&mut cursor)?;
        if size as usize != event.len() {
            return Err(format!("it has {} bytes and says {size}", event.len()));
        }
        let begin = event.len() - cursor.len();
        if header.kind == FORMAT_DESCRIPTION {
            // It says whether the events after it have checksums. Its own is there in any case.
            let algorithm = event.len().checked_sub(5).and_then(|at| event.get(at));
            self.checksums = *algorithm.ok_or("it is too short")? != 0;
        }
        if !self.checksums {
            return Ok((header, event.slice(begin..)));
        }
        let (body, checksum) = event.split_last_chunk::<4>().ok_or("it has no checksum")?;
        if body.len() < begin || crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err("its checksum is wrong; the binlog or the connection is damaged".into());
        }
        Ok((header, event.slice(begin..body.len())))
    }

    fn fail<T>(&mut self, error: BinlogError) -> Result<T, BinlogError> {
        self.failed = Some(error.clone());
        Err(error)
    }

    fn sorted(&self, error: Error) -> BinlogError {
        match error {
            Error::Server(ServerError { code: 1236 | 1789, message, .. }) if message.contains("purged") => {
                BinlogError::Purged { message }
            }
            Error::Server(ServerError { code: 1236, message, .. }) if message.contains("server_id") => {
                BinlogError::ServerIdClash { server_id: self.server_id }
            }
            other => MysqlError::while_doing(other, &self.server.address, "reading the binlog").into(),
        }
    }
}

/// The type code of a format description event.
const FORMAT_DESCRIPTION: u8 = 15;

/// The server's collations, and whether it writes checksums: `NONE` or `CRC32`.
async fn settings(conn: &mut Conn) -> mysql_async::Result<(Collations, String)> {
    let checksum = conn.query_first("SELECT @@GLOBAL.binlog_checksum").await?.unwrap_or_default();
    let collations: Vec<(u64, String)> =
        conn.query("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS").await?;
    Ok((Collations::new(collations), checksum))
}
