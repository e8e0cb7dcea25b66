//! The binlog stream.

use std::fmt;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Conn, Error, GnoInterval, Opts, ServerError, Sid};
use tandem_model::{GtidSet, TableName};
use tokio::time::Instant;

use crate::bytes::Fault;
use crate::charset::Collations;
use crate::client::Server;
use crate::machine::{Header, Machine};
use crate::{BinlogError, BinlogEvent, MysqlConfig, MysqlError};

/// The binlog of a server from a GTID set on.
///
/// After an error the stream yields that error for ever: going on would skip an event. Open a new
/// one. A new stream begins at the start of a binlog file, so its first positions may lie before
/// the last ones of the stream that it follows.
pub struct BinlogStream {
    stream: mysql_async::BinlogStream,
    machine: Machine,
    server: Server,
    server_id: u32,
    /// Whether events made before the first format description end in a checksum that the driver
    /// does not know of yet.
    unknown_checksums: bool,
    pending: Option<BinlogEvent>,
    failed: Option<BinlogError>,
    last_heard: Instant,
    silence: Duration,
}

impl fmt::Debug for BinlogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinlogStream").field("at", self.machine.position()).finish_non_exhaustive()
    }
}

/// What the driver's stream gives.
type Raw = Option<mysql_async::Result<Event>>;

impl BinlogStream {
    /// Asks the server for every transaction that is not in `from`. Rows come only of tables that
    /// are `wanted`; everything else comes whole.
    pub async fn open(
        config: &MysqlConfig,
        from: &GtidSet,
        wanted: impl Fn(&TableName) -> bool + Send + 'static,
    ) -> Result<Self, BinlogError> {
        let sids = sids(from).ok_or(BinlogError::TaggedGtids)?;
        // Events may be larger than the server lets other clients' packets be.
        let opts: Opts = config.options(Vec::new())?.max_allowed_packet(Some(1 << 30)).into();
        let server = Server::new(config, &opts);
        let mut conn = server.connecting(Conn::new(opts)).await?;

        let doing = "preparing to read the binlog";
        let (collations, checksum) =
            server.answer(server.timeout, doing, prepare(&mut conn, config.heartbeat)).await?;
        let request = BinlogStreamRequest::new(config.server_id).with_gtid().with_gtid_set(sids);
        let request = conn.get_binlog_stream(request);
        let stream = server.answer(server.timeout, "asking for the binlog", request).await?;

        let mut this = Self {
            stream,
            machine: Machine::new(Box::new(wanted), collations),
            server,
            server_id: config.server_id,
            unknown_checksums: checksum != "NONE",
            pending: None,
            failed: None,
            last_heard: Instant::now(),
            silence: (config.heartbeat * 4).max(Duration::from_secs(4)),
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
            let deadline = self.last_heard + self.silence;
            // What has come while nobody listened is seen only once the runtime has looked.
            let deadline = deadline.max(Instant::now() + Duration::from_millis(10));
            match tokio::time::timeout_at(deadline, self.stream.next()).await {
                Ok(raw) => self.pending = self.take_in(raw)?,
                Err(_) => {
                    return self.fail(BinlogError::Silent { seconds: self.last_heard.elapsed().as_secs() });
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
        while let Some(raw) = self.stream.next().now_or_never() {
            if let Some(event) = self.take_in(raw)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn take_in(&mut self, raw: Raw) -> Result<Option<BinlogEvent>, BinlogError> {
        self.last_heard = Instant::now();
        let event = match raw {
            Some(Ok(event)) => event,
            Some(Err(error)) => return self.fail(self.sorted(error)),
            None => return self.fail(BinlogError::Ended { at: self.machine.position().to_string() }),
        };
        let header = event.header();
        let header = Header {
            kind: header.event_type_raw(),
            timestamp: header.timestamp(),
            server_id: header.server_id(),
            log_pos: header.log_pos(),
        };
        self.unknown_checksums &= header.kind != FORMAT_DESCRIPTION;
        let mut body = event.data();
        if self.unknown_checksums {
            body = &body[..body.len().saturating_sub(4)];
        } else if !intact(&event) {
            let fault =
                Fault::Malformed("its checksum is wrong; the binlog or the connection is damaged".into());
            return self.fail(self.machine.error(header.kind, fault));
        }
        match self.machine.feed(&header, body) {
            Ok(event) => Ok(event),
            Err(error) => self.fail(error),
        }
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

/// Whether an event's bytes are those that the server has written.
fn intact(event: &Event) -> bool {
    let (Some(checksum), Ok(Some(algorithm))) = (event.checksum(), event.footer().get_checksum_alg()) else {
        return true;
    };
    algorithm == mysql_async::binlog::BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_OFF
        || event.calc_checksum(algorithm).to_le_bytes() == checksum
}

/// Sets the session up for a dump. The answer: the server's collations, and its checksums.
async fn prepare(conn: &mut Conn, heartbeat: Duration) -> mysql_async::Result<(Collations, String)> {
    let nanoseconds = heartbeat.as_nanos();
    conn.query_drop(format!(
        "SET @source_heartbeat_period = {nanoseconds}, @master_heartbeat_period = {nanoseconds}, \
         @source_binlog_checksum = @@GLOBAL.binlog_checksum, SESSION net_write_timeout = 600"
    ))
    .await?;
    let checksum = conn.query_first("SELECT @@GLOBAL.binlog_checksum").await?.unwrap_or_default();
    let collations: Vec<(u64, String)> =
        conn.query("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS").await?;
    Ok((Collations::new(collations), checksum))
}

/// The set in the form of the dump request, whose intervals end before their last number; `None`
/// where there are tags.
fn sids(set: &GtidSet) -> Option<Vec<Sid<'static>>> {
    set.untagged()?
        .map(|(uuid, runs)| {
            let mut bytes = [0; 16];
            let mut digits = uuid.bytes().filter(|b| *b != b'-').map(|b| char::from(b).to_digit(16));
            for byte in &mut bytes {
                *byte = (digits.next()?? << 4 | digits.next()??) as u8;
            }
            let intervals =
                runs.iter().map(|&(first, last)| GnoInterval::new(first, last.saturating_add(1))).collect();
            Some(Sid::new(bytes).with_intervals(intervals))
        })
        .collect()
}
