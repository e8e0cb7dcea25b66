//! A connection that reads the binlog as a replica does.
//!
//! The driver has one too, which inflates each compressed transaction into memory whole, and takes a
//! damaged one for an empty one; it does not let anyone do better. So this speaks the protocol
//! itself: packets, the handshake, and three commands (MySQL internals, "Client/Server Protocol").
//! Errors are the driver's, so that they are told as all others.

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
/// How much is read at once, at least.
const READ: usize = 64 << 10;

/// `CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_TRANSACTIONS | CLIENT_SECURE_CONNECTION |
/// CLIENT_PLUGIN_AUTH | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA`.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_2000 | 0x0000_8000 | 0x0008_0000 | 0x0020_0000;
/// `utf8mb4_general_ci`.
const COLLATION: u8 = 45;
/// `CLIENT_SSL`.
const TLS: u32 = 0x0000_0800;
/// The longest packet that we take.
const LONGEST: u32 = 1 << 30;

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
    /// What has come and is not yet taken.
    buffer: BytesMut,
    /// The beginning of a packet that is longer than [`FULL`].
    begun: Vec<u8>,
    /// The number of the next packet, either way.
    sequence: u8,
    heard: Instant,
}

impl Replica {
    /// Connects and logs in; with `tls`, over an encrypted connection only.
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
            heard: Instant::now(),
        };
        let greeting = Greeting::read(&this.packet().await?).map_err(unexpected)?;
        if let Some(tls) = tls {
            this = this.encrypt(host, tls, &greeting).await?;
        }
        let user = opts.user().unwrap_or_default();
        let password = opts.pass().unwrap_or_default().as_bytes();
        // An account with another method is switched to it below.
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

    /// What a login begins with, and what alone asks for TLS (`SSLRequest`).
    fn login_head(&self) -> Vec<u8> {
        let capabilities = if self.encrypted { CAPABILITIES | TLS } else { CAPABILITIES };
        let mut head = capabilities.to_le_bytes().to_vec();
        head.extend_from_slice(&LONGEST.to_le_bytes());
        head.push(COLLATION);
        head.extend_from_slice(&[0; 23]);
        head
    }

    /// The same connection, encrypted.
    async fn encrypt(mut self, host: &str, tls: TlsConnector, greeting: &Greeting) -> Result<Self, Error> {
        if greeting.capabilities & TLS == 0 {
            return Err(DriverError::NoClientSslFlagFromServer.into());
        }
        self.encrypted = true;
        let request = self.login_head();
        self.send(&request).await?;
        // It would pass for what comes encrypted.
        if !self.buffer.is_empty() {
            return Err(unexpected("bytes that come before TLS does".into()));
        }
        let stream = tokio_native_tls::TlsConnector::from(tls).connect(host, self.stream).await?;
        Ok(Self { stream: Box::new(stream), ..self })
    }

    /// Goes through the rest of the authentication.
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
                // caching_sha2_password: the server remembers the account.
                (Some(&MORE), Some(3)) => {}
                // It does not, and wants the password itself.
                (Some(&MORE), Some(4)) if self.encrypted => self.send(&[password, &[0]].concat()).await?,
                // The same where others may listen: encrypted by the server's public key.
                (Some(&MORE), Some(4)) => {
                    self.send(&[2]).await?;
                    let key = self.packet().await?;
                    let hidden = password.iter().chain(&[0]).zip(nonce.iter().cycle()).map(|(p, n)| p ^ n);
                    let hidden: Vec<u8> = hidden.collect();
                    self.send(&encrypt(&hidden, key.get(1..).unwrap_or_default())).await?;
                }
                _ => return Err(unexpected("an answer to the login that is not known".into())),
            }
        }
    }

    /// Runs a statement that gives no rows.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.command(&[&[3], sql.as_bytes()].concat()).await?;
        self.accepted().await
    }

    /// Asks for the transactions that are not in `from`, in the name of the replica `server_id`.
    pub(crate) async fn dump(&mut self, server_id: u32, from: &GtidSet) -> Result<(), Error> {
        self.command(&dump::register(server_id)).await?;
        self.accepted().await?;
        self.command(&dump::request(server_id, from)).await
    }

    /// The next event with its header and checksum; `None` where the server has ended the stream.
    /// Cancelling it loses nothing.
    pub(crate) async fn event(&mut self) -> Result<Option<Bytes>, Error> {
        let mut packet = self.packet().await?;
        match packet.first() {
            Some(&OK) => {
                packet.advance(1);
                Ok(Some(packet))
            }
            Some(&EOF) => Ok(None),
            _ => Err(unexpected("a packet that is no event".into())),
        }
    }

    /// When the last bytes came.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    async fn accepted(&mut self) -> Result<(), Error> {
        match self.packet().await?.first() {
            Some(&OK) => Ok(()),
            _ => Err(unexpected("an answer that is not known".into())),
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

    /// The next packet; an error packet is an error.
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
            self.heard = Instant::now();
        }
    }

    /// A packet that has come whole.
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
            return Err("a greeting of another protocol".into());
        }
        // The server's version, and the connection's id.
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

/// What shows the server that we know the password.
fn proof(method: &str, password: &[u8], nonce: &[u8]) -> Result<Vec<u8>, Error> {
    let proof = match method {
        NATIVE => scramble_native(nonce, password).map(Vec::from),
        SHA2 => scramble_sha256(nonce, password).map(Vec::from),
        other => return Err(DriverError::UnknownAuthPlugin { name: other.to_owned() }.into()),
    };
    // Of an empty password there is none.
    Ok(proof.unwrap_or_default())
}

/// An ERR packet: 0xff, the code, `#` and an SQLSTATE (but not before the login), the message.
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

/// The statement that sets a session up for a dump.
pub(crate) fn preparation(heartbeat: Duration, checksum: &str) -> String {
    let nanoseconds = heartbeat.as_nanos();
    // Both names of each: older servers know only the old one.
    format!(
        "SET @source_heartbeat_period = {nanoseconds}, @master_heartbeat_period = {nanoseconds}, \
         @source_binlog_checksum = '{checksum}', @master_binlog_checksum = '{checksum}', \
         SESSION net_write_timeout = 600"
    )
}
