//! A link to a server that can be made worse: it stops passing anything on, as a dead one does, turns a
//! byte over, or leads elsewhere, as an address does that moves to another server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Link {
    /// Where it is to be reached.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    to: String,
    held: bool,
    flip: Option<Vec<u8>>,
}

impl Link {
    /// To `host:port`.
    pub(crate) async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State { to: server.to_owned(), held: false, flip: None }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = shared.lock().unwrap().to.clone();
                let Ok(server) = TcpStream::connect(&to).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, Arc::clone(&shared)));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, state })
    }

    /// Passes nothing on, on no connection, and closes none; or goes on.
    pub(crate) fn hold(&self, held: bool) {
        self.state.lock().unwrap().held = held;
    }

    /// Turns over the first byte of the next occurrence of this text.
    pub(crate) fn flip(&self, text: &[u8]) {
        self.state.lock().unwrap().flip = Some(text.to_vec());
    }

    /// New connections lead there.
    pub(crate) fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.state.lock().unwrap().to);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<Mutex<State>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        while state.lock().unwrap().held {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        flip(&mut buffer[..n], &mut state.lock().unwrap().flip);
        to.write_all(&buffer[..n]).await?;
    }
}

/// Only what the server sends begins so: a statement's text is sent by others, not over the link.
fn flip(bytes: &mut [u8], text: &mut Option<Vec<u8>>) {
    let Some(wanted) = text else { return };
    if let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted.as_slice()) {
        bytes[at] ^= 1;
        *text = None;
    }
}
