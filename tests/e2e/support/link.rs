//! A link to a server with faults on demand. It stops forwarding, as a dead network does, closes connections,
//! changes a byte, loses a request or an answer, or leads to another server, as an address that moves does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::host_of;

/// How often a connection checks the fault of the link.
const TICK: Duration = Duration::from_millis(20);

/// The fault of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// It forwards nothing on any connection, and closes none.
    Hold,
    /// It closes every connection, new ones included.
    Close,
    /// It closes a connection that sends a COMMIT, before it forwards the COMMIT.
    CloseBeforeCommit,
    /// It forwards a COMMIT, and closes the connection before the response.
    CloseAfterCommit,
}

pub(crate) struct Link {
    /// The address of the link.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    server: String,
    fault: Fault,
    flip: Option<Vec<u8>>,
    cut: Option<(Vec<u8>, usize)>,
    lose: Option<(Vec<u8>, usize)>,
}

impl Link {
    /// A link to the server of a URL. Also returns the URL that leads over the link.
    pub(crate) async fn to_mysql(url: &str) -> anyhow::Result<(Self, String)> {
        let server = host_of(url);
        let link = Self::to(server).await?;
        let over = url.replace(server, &link.address);
        Ok((link, over))
    }

    /// A link to `host:port`.
    pub(crate) async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state =
            State { server: server.to_owned(), fault: Fault::None, flip: None, cut: None, lose: None };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, state })
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Flips the first byte of the next occurrence of this text in the data from the server.
    pub(crate) fn flip(&self, text: &[u8]) {
        self.state.lock().unwrap().flip = Some(text.to_vec());
    }

    /// Closes the connection on which the next data from the server has this text, instead of forwarding the data.
    pub(crate) fn cut(&self, text: &[u8]) {
        self.cut_nth(text, 1);
    }

    /// The same with the data that is the nth with this text, from 1.
    pub(crate) fn cut_nth(&self, text: &[u8], nth: usize) {
        self.state.lock().unwrap().cut = Some((text.to_vec(), nth));
    }

    /// Whether that data has not come yet.
    pub(crate) fn is_to_cut(&self) -> bool {
        self.state.lock().unwrap().cut.is_some()
    }

    /// Closes the connection on which the nth data from the client has this text, from 1, instead of forwarding the data.
    pub(crate) fn lose_nth(&self, text: &[u8], nth: usize) {
        self.state.lock().unwrap().lose = Some((text.to_vec(), nth));
    }

    /// Whether that data has not come yet.
    pub(crate) fn is_to_lose(&self) -> bool {
        self.state.lock().unwrap().lose.is_some()
    }

    /// Leads new connections to this server.
    pub(crate) fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.state.lock().unwrap().server);
    }
}

/// Forwards one connection. It ends when either side or the link closes it.
async fn pass(mut client: TcpStream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let fault = || state.lock().unwrap().fault;
    let server = state.lock().unwrap().server.clone();
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                while fault() == Fault::Hold {
                    tick.tick().await;
                }
                if is_cut(sent, &mut state.lock().unwrap().lose) {
                    return Ok(());
                }
                // COM_QUERY is byte 3, after the packet's header of four bytes.
                let commits = sent.get(4..).is_some_and(|rest| rest.starts_with(b"\x03COMMIT"));
                match fault() {
                    Fault::Close => return Ok(()),
                    Fault::CloseBeforeCommit if commits => return Ok(()),
                    Fault::CloseAfterCommit if commits => {
                        server.write_all(sent).await?;
                        // The response confirms the commit. The client does not receive it.
                        let _ = server.read(&mut down).await?;
                        return Ok(());
                    }
                    _ if sent.is_empty() => return Ok(()),
                    _ => server.write_all(sent).await?,
                }
            }
            read = server.read(&mut down) => {
                let received = read?;
                while fault() == Fault::Hold {
                    tick.tick().await;
                }
                if received == 0 {
                    return Ok(());
                }
                let received = &mut down[..received];
                if is_cut(received, &mut state.lock().unwrap().cut) {
                    return Ok(());
                }
                flip(received, &mut state.lock().unwrap().flip);
                client.write_all(received).await?;
            }
            _ = tick.tick() => {
                if fault() == Fault::Close {
                    return Ok(());
                }
            }
        }
    }
}

fn is_cut(bytes: &[u8], cut: &mut Option<(Vec<u8>, usize)>) -> bool {
    let Some((text, nth)) = cut else { return false };
    if !bytes.windows(text.len()).any(|w| w == text.as_slice()) {
        return false;
    }
    *nth -= 1;
    let is_cut = *nth == 0;
    if is_cut {
        *cut = None;
    }
    is_cut
}

fn flip(bytes: &mut [u8], text: &mut Option<Vec<u8>>) {
    let Some(wanted) = text else { return };
    if let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted.as_slice()) {
        bytes[at] ^= 1;
        *text = None;
    }
}
