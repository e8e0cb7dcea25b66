//! The binlog stream.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, ServerError};
use tandem_binlog::{BinlogEvent, EventDecoder};
use tandem_model::{GtidSet, NameCase, TableName};
use tokio::time::Instant;

use crate::connect::{MysqlConfig, Server};
use crate::error::{BinlogError, MysqlError};
use crate::schema::LOWER_CASE_TABLE_NAMES;
use replica::{Replica, preparation};

mod dump;
mod replica;

/// A server's binlog from a GTID set on.
///
/// After an error the stream returns the same error on every call, because to continue would skip an event.
/// Open a new stream instead. A new stream begins at the start of a binlog file, so its first positions may
/// precede the last positions of the old stream.
pub struct BinlogStream {
    replica: Replica,
    decoder: EventDecoder,
    server: Server,
    server_id: u32,
    pending: Option<BinlogEvent>,
    failed: Option<BinlogError>,
    silence: Duration,
}

impl fmt::Debug for BinlogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinlogStream").field("at", self.decoder.position()).finish_non_exhaustive()
    }
}

/// A result of the connection: an event, the end of the stream, or an error.
type Raw = Result<Option<Bytes>, Error>;

impl BinlogStream {
    /// Requests every transaction that is not in `from`. The stream returns row events only for tables that
    /// are `wanted`. It returns all other events. Names are in the case in which the server compares them.
    ///
    /// # Errors
    /// The server cannot be reached, refuses the account, or has purged transactions that are not in `from`.
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
        let Settings { collations, checksum, names } =
            server.answer(server.timeout, doing, settings(&mut conn)).await?;
        // The connection is no longer needed, so an error does not matter.
        let _ = conn.disconnect().await;
        let prepared = async {
            replica.run(&preparation(config.heartbeat, &checksum)).await?;
            replica.dump(config.server_id, from).await
        };
        server.answer(server.timeout, "asking for the binlog", prepared).await?;

        let mut this = Self {
            replica,
            decoder: EventDecoder::new(collations, wanted)
                .excluding(config.excluded.clone())
                .comparing_names(names)
                .with_checksums(checksum != "NONE"),
            server,
            server_id: config.server_id,
            pending: None,
            failed: None,
            silence: config.silence(),
        };
        // The server reports a refusal in place of the first event.
        this.pending = Some(this.next().await?);
        Ok(this)
    }

    /// Waits for the next event. Cancelling the call loses no event.
    ///
    /// # Errors
    /// The connection is lost or silent, the server ends the stream, or an event cannot be decoded.
    pub async fn next(&mut self) -> Result<BinlogEvent, BinlogError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // Bytes that arrived between two calls are visible only after the runtime has polled the socket.
            let look = Instant::now() + Duration::from_millis(100);
            let deadline = (self.replica.last_received() + self.silence).max(look);
            match tokio::time::timeout_at(deadline, self.replica.event()).await {
                Ok(raw) => self.pending = self.take_in(raw)?,
                // A large event arrives in parts.
                Err(_) if self.replica.last_received().elapsed() < self.silence => {}
                Err(_) => {
                    let seconds = self.replica.last_received().elapsed().as_secs();
                    return self.fail(BinlogError::Silent { seconds });
                }
            }
        }
    }

    /// Returns the next event if it has arrived already.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn try_next(&mut self) -> Result<Option<BinlogEvent>, BinlogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Some(event) = self.pending.take() {
            return Ok(Some(event));
        }
        loop {
            match self.decoder.more() {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => return self.fail(error.into()),
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
            Err(error) => return self.fail(self.classify(error)),
            Ok(None) => return self.fail(BinlogError::Ended { at: self.decoder.position().to_string() }),
        };
        self.decoder.receive(&event).or_else(|error| self.fail(error.into()))
    }

    fn fail<T>(&mut self, error: BinlogError) -> Result<T, BinlogError> {
        self.failed = Some(error.clone());
        Err(error)
    }

    fn classify(&self, error: Error) -> BinlogError {
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

/// What decoding depends on.
struct Settings {
    /// The id of each collation and its character set.
    collations: Vec<(u64, String)>,
    /// `NONE` or `CRC32`.
    checksum: String,
    names: NameCase,
}

async fn settings(conn: &mut Conn) -> mysql_async::Result<Settings> {
    let checksum = conn.query_first("SELECT @@GLOBAL.binlog_checksum").await?.unwrap_or_default();
    let collations = conn.query("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS").await?;
    let names = conn.query_first(LOWER_CASE_TABLE_NAMES).await?;
    Ok(Settings { collations, checksum, names: NameCase::of(names.unwrap_or_default()) })
}
