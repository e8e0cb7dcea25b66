//! A gateway's metrics page, under the control of a test.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// The values on the page.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gateway {
    pub(super) generation: u64,
    /// Successful writes, and by how many they grow with each request for the page.
    pub(super) writes: u64,
    pub(super) writes_each: u64,
    /// Reads that Cassandra served, and by how many they grow with each request for the page.
    pub(super) reads: u64,
    pub(super) reads_each: u64,
    pub(super) fallbacks: u64,
}

impl Gateway {
    fn text(&self) -> String {
        format!(
            "# TYPE tandem_gateway_generation gauge\ntandem_gateway_generation {}\n\
             tandem_gateway_requests_total{{entity=\"t\",operation=\"put\",status=\"200\"}} {}\n\
             tandem_gateway_reads_total{{entity=\"t\",served_by=\"cassandra\"}} {}\n\
             tandem_gateway_fallbacks_total{{entity=\"t\",reason=\"down\"}} {}\n# EOF\n",
            self.generation, self.writes, self.reads, self.fallbacks
        )
    }
}

/// Serves the page until it is dropped.
pub(super) struct Pages {
    url: String,
    gateway: Arc<Mutex<Gateway>>,
    task: tokio::task::JoinHandle<()>,
}

impl Pages {
    pub(super) async fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/metrics", listener.local_addr()?);
        let gateway = Arc::new(Mutex::new(Gateway::default()));
        let shown = Arc::clone(&gateway);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let text = {
                    let mut gateway = shown.lock().unwrap_or_else(PoisonError::into_inner);
                    gateway.writes += gateway.writes_each;
                    gateway.reads += gateway.reads_each;
                    gateway.text()
                };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
                let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
            }
        });
        Ok(Self { url, gateway, task })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Gateway)) {
        change(&mut self.gateway.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}
