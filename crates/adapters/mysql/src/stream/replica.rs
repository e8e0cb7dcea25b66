//! A connection that reads the binlog as a replica.
//!
//! The driver's own binlog stream decompresses each compressed transaction into memory as a whole, treats a
//! damaged one as empty, and offers no way around this. So this module implements the protocol itself:
//! packets, the handshake and three commands (MySQL internals, "Client/Server Protocol"). It returns the
//! driver's errors, so that they are reported like all others.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mysql_async::{DriverError, Error, IoError, Opts, ServerError};
use mysql_common::crypto::encrypt;
use mysql_common::scramble::{scramble_native, scramble_sha256};
use native_tls::TlsConnector;
use tandem_binlog::{Cursor, Malformed};
use tandem_model::GtidSet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::stream::dump;

/// A packet of this length is continued by the next one.
const FULL: usize = 0xff_ffff;
/// The least space for one read from the socket.
const READ: usize = 64 << 10;

/// `CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_TRANSACTIONS | CLIENT_SECURE_CONNECTION |
/// CLIENT_PLUGIN_AUTH | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA`.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_2000 | 0x0000_8000 | 0x0008_0000 | 0x0020_0000;
/// `utf8mb4_general_ci`.
const COLLATION: u8 = 45;
/// `CLIENT_SSL`.
const TLS: u32 = 0x0000_0800;
/// The longest packet that this client accepts.
const MAX_PACKET: u32 = 1 << 30;

const NATIVE: &str = "mysql_native_password";
const SHA2: &str = "caching_sha2_password";

/// The first bytes of the server's answers.
const OK: u8 = 0;
const MORE: u8 = 1;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) struct Replica {
    stream: Box<dyn Stream>,
    encrypted: bool,
    /// Received bytes that are not processed yet.
    buffer: BytesMut,
    /// The beginning of a packet that is longer than [`FULL`].
    begun: Vec<u8>,
    /// The sequence number of the next packet, sent or received.
    sequence: u8,
    /// When the last bytes arrived.
    last_received: Instant,
}

impl Replica {
    /// Connects and logs in. With `tls`, the connection is always encrypted.
    pub(crate) async fn connect(opts: &Opts, tls: Option<TlsConnector>) -> Result<Self, Error> {
        let host = opts.ip_or_hostname();
        let stream = TcpStream::connect((host, opts.tcp_port())).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let mut this = Self {
            stream: Box::new(stream),
            encrypted: false,
            buffer: BytesMut::new(),
            begun: Vec::new(),
            sequence: 0,
            last_received: Instant::now(),
        };
        let greeting = Greeting::read(&this.packet().await?).map_err(unexpected)?;
        if let Some(tls) = tls {
            this = this.encrypt(host, tls, &greeting).await?;
        }
        let user = opts.user().unwrap_or_default();
        let password = opts.pass().unwrap_or_default().as_bytes();
        // The server switches an account with another method in `prove`.
        let method = if greeting.method == NATIVE { NATIVE } else { SHA2 };
        let proof = proof(method, password, &greeting.nonce)?;
        let mut login = this.login_head();
        login.extend_from_slice(user.as_bytes());
        login.push(0);
        login.push(proof.len() as u8);
        login.extend_from_slice(&proof);
        login.extend_from_slice(method.as_bytes());
        login.push(0);
        this.send(&login).await?;
        this.prove(password, greeting.nonce).await?;
        Ok(this)
    }

    /// The first part of a login packet. Sent alone, it requests TLS (`SSLRequest`).
    fn login_head(&self) -> Vec<u8> {
        let capabilities = if self.encrypted { CAPABILITIES | TLS } else { CAPABILITIES };
        let mut head = capabilities.to_le_bytes().to_vec();
        head.extend_from_slice(&MAX_PACKET.to_le_bytes());
        head.push(COLLATION);
        head.extend_from_slice(&[0; 23]);
        head
    }

    /// Upgrades the connection to TLS.
    async fn encrypt(mut self, host: &str, tls: TlsConnector, greeting: &Greeting) -> Result<Self, Error> {
        if greeting.capabilities & TLS == 0 {
            return Err(DriverError::NoClientSslFlagFromServer.into());
        }
        self.encrypted = true;
        let request = self.login_head();
        self.send(&request).await?;
        // Bytes received in the clear would be taken for encrypted ones.
        if !self.buffer.is_empty() {
            return Err(unexpected("data before the TLS handshake".into()));
        }
        let stream = tokio_native_tls::TlsConnector::from(tls).connect(host, self.stream).await?;
        Ok(Self { stream: Box::new(stream), ..self })
    }

    /// Completes the authentication.
    async fn prove(&mut self, password: &[u8], mut nonce: Vec<u8>) -> Result<(), Error> {
        loop {
            let packet = self.packet().await?;
            match (packet.first(), packet.get(1)) {
                (Some(&OK), _) => return Ok(()),
                // AuthSwitchRequest: the method's name, zero, a new nonce, zero.
                (Some(&EOF), Some(_)) => {
                    let mut parts = packet[1..].splitn(2, |b| *b == 0);
                    let method = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                    let given = parts.next().unwrap_or_default();
                    nonce = given.strip_suffix(&[0]).unwrap_or(given).to_vec();
                    let proof = proof(&method, password, &nonce)?;
                    self.send(&proof).await?;
                }
                // caching_sha2_password: the server has the account in its cache.
                (Some(&MORE), Some(3)) => {}
                // The account is not in the cache: the server asks for the password itself.
                (Some(&MORE), Some(4)) if self.encrypted => self.send(&[password, &[0]].concat()).await?,
                // The same without TLS: the password is encrypted with the server's public key.
                (Some(&MORE), Some(4)) => {
                    self.send(&[2]).await?;
                    let key = self.packet().await?;
                    let hidden = password.iter().chain(&[0]).zip(nonce.iter().cycle()).map(|(p, n)| p ^ n);
                    let hidden: Vec<u8> = hidden.collect();
                    self.send(&encrypt(&hidden, key.get(1..).unwrap_or_default())).await?;
                }
                _ => return Err(unexpected("an unknown answer to the login".into())),
            }
        }
    }

    /// Runs a statement that returns no rows.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.command(&[&[3], sql.as_bytes()].concat()).await?;
        self.accepted().await
    }

    /// Requests the transactions that are not in `from`, as the replica `server_id`.
    pub(crate) async fn dump(&mut self, server_id: u32, from: &GtidSet) -> Result<(), Error> {
        self.command(&dump::register(server_id)).await?;
        self.accepted().await?;
        self.command(&dump::request(server_id, from)).await
    }

    /// Returns the next event with its header and checksum; `None` where the server has ended the stream.
    /// Cancelling the call loses no event.
    pub(crate) async fn event(&mut self) -> Result<Option<Bytes>, Error> {
        let mut packet = self.packet().await?;
        match packet.first() {
            Some(&OK) => {
                packet.advance(1);
                Ok(Some(packet))
            }
            Some(&EOF) => Ok(None),
            _ => Err(unexpected("a packet that is not an event".into())),
        }
    }

    /// When the last bytes arrived.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    async fn accepted(&mut self) -> Result<(), Error> {
        match self.packet().await?.first() {
            Some(&OK) => Ok(()),
            _ => Err(unexpected("an unknown answer".into())),
        }
    }

    async fn command(&mut self, command: &[u8]) -> Result<(), Error> {
        self.sequence = 0;
        self.send(command).await
    }

    async fn send(&mut self, mut payload: &[u8]) -> Result<(), Error> {
        let mut out = Vec::with_capacity(payload.len() + 4);
        loop {
            let (part, rest) = payload.split_at(payload.len().min(FULL));
            out.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            out.push(self.sequence);
            out.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            payload = rest;
            if part.len() < FULL {
                break;
            }
        }
        self.stream.write_all(&out).await.map_err(io)
    }

    /// Reads the next packet. An error packet becomes an error.
    async fn packet(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(packet) = self.take() {
                return match packet.first() {
                    Some(&ERR) => Err(server_error(&packet).unwrap_or_else(unexpected)),
                    _ => Ok(packet),
                };
            }
            self.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.buffer).await.map_err(io)? == 0 {
                return Err(io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.last_received = Instant::now();
        }
    }

    /// Takes the next packet from the buffer, if it has arrived completely.
    fn take(&mut self) -> Option<Bytes> {
        loop {
            let head = *self.buffer.first_chunk::<4>()?;
            let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
            if self.buffer.len() < 4 + length {
                self.buffer.reserve(4 + length - self.buffer.len());
                return None;
            }
            self.sequence = head[3].wrapping_add(1);
            self.buffer.advance(4);
            let part = self.buffer.split_to(length).freeze();
            if length < FULL && self.begun.is_empty() {
                return Some(part);
            }
            self.begun.extend_from_slice(&part);
            if length < FULL {
                return Some(std::mem::take(&mut self.begun).into());
            }
        }
    }
}

/// The server's first packet (`HandshakeV10`).
struct Greeting {
    capabilities: u32,
    nonce: Vec<u8>,
    method: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != 10 {
            return Err("a greeting with an unknown protocol version".into());
        }
        // The server's version and the connection's id.
        while cursor.u8()? != 0 {}
        cursor.take(4)?;
        let mut nonce = cursor.take(8)?.to_vec();
        // A zero, capabilities, collation, status, more capabilities, the nonce's length, ten zeros.
        cursor.take(1)?;
        let capabilities = cursor.uint(2)? as u32;
        cursor.take(3)?;
        let capabilities = capabilities | (cursor.uint(2)? as u32) << 16;
        cursor.take(11)?;
        nonce.extend_from_slice(cursor.take(12)?);
        cursor.take(1)?;
        let method = cursor.rest();
        let method = method.strip_suffix(&[0]).unwrap_or(method);
        Ok(Self { capabilities, nonce, method: String::from_utf8_lossy(method).into_owned() })
    }
}

/// Computes the authentication response that proves the password.
fn proof(method: &str, password: &[u8], nonce: &[u8]) -> Result<Vec<u8>, Error> {
    let proof = match method {
        NATIVE => scramble_native(nonce, password).map(Vec::from),
        SHA2 => scramble_sha256(nonce, password).map(Vec::from),
        other => return Err(DriverError::UnknownAuthPlugin { name: other.to_owned() }.into()),
    };
    // An empty password has an empty response.
    Ok(proof.unwrap_or_default())
}

/// Parses an ERR packet: 0xff, the code, `#` and an SQLSTATE (only after the login), the message.
fn server_error(packet: &[u8]) -> Result<Error, Malformed> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    let code = cursor.uint(2)? as u16;
    let rest = cursor.rest();
    let (state, message) = match rest.split_first_chunk::<6>() {
        Some(([b'#', state @ ..], message)) => (state.as_slice(), message),
        _ => (&[][..], rest),
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Error::Server(ServerError { code, message: text(message), state: text(state) }))
}

fn io(error: std::io::Error) -> Error {
    Error::Io(IoError::Io(error))
}

fn unexpected(problem: Malformed) -> Error {
    io(std::io::Error::other(problem))
}

/// The statement that prepares a session for a binlog dump.
pub(crate) fn preparation(heartbeat: Duration, checksum: &str) -> String {
    let nanoseconds = heartbeat.as_nanos();
    // Sets each variable under both names, because older servers know only the old one.
    format!(
        "SET @source_heartbeat_period = {nanoseconds}, @master_heartbeat_period = {nanoseconds}, \
         @source_binlog_checksum = '{checksum}', @master_binlog_checksum = '{checksum}', \
         SESSION net_write_timeout = 600"
    )
}
