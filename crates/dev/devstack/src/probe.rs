//! What the servers' probes share.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Connects to a port of this machine. Reads and writes on the socket time out after 5 s.
pub(crate) fn connect(port: u16) -> Result<TcpStream> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = TcpStream::connect_timeout(&address, TIMEOUT).context("connect")?;
    socket.set_read_timeout(Some(TIMEOUT)).context("set a timeout")?;
    socket.set_write_timeout(Some(TIMEOUT)).context("set a timeout")?;
    Ok(socket)
}

/// The body of the response to an HTTP GET.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let mut socket = connect(port)?;
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").context("send a request")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).context("no answer")?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}
