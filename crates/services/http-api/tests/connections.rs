//! Slow, silent and greedy clients, over real sockets.

#![allow(clippy::unwrap_used)] // the helpers of a test fail it by panicking

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tandem_http_api::{ConnectionLimits, HttpListener, Problem, read_body, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// More than what the sockets of a connection hold.
const LARGE: usize = 32 << 20;
/// Longer than every limit of the tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    port: u16,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(limits: ConnectionLimits) -> Self {
        Self::with(limits, Duration::from_mins(10)).await
    }

    async fn with(limits: ConnectionLimits, body_timeout: Duration) -> Self {
        let echo = async move |request: Request| -> Result<Response, Problem> {
            let (parts, body) = request.into_parts();
            let deadline = tokio::time::Instant::now() + body_timeout;
            let body = read_body(&parts.headers, body, 100, deadline).await?;
            Ok(body.into_response())
        };
        let router = Router::new()
            .route("/", get(async || "small"))
            .route("/large", get(async || Body::from(vec![b'x'; LARGE])))
            .route("/echo", post(echo))
            .route("/refuse", post(async || StatusCode::FORBIDDEN));
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(HttpListener::new(tcp, None, limits), router, stop.clone()));
        Self { port, stop, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// A client that has sent this.
    async fn client(&self, text: &str) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

/// Limits that no test reaches by itself.
fn limits(max_connections: usize) -> ConnectionLimits {
    let long = Duration::from_mins(10);
    ConnectionLimits { max_connections, header_timeout: long, idle_timeout: long, send_timeout: long }
}

fn request(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

/// The status line of the next response, and all that came with it. Empty if the connection was closed.
async fn response(client: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, client.read(&mut bytes)).await.expect("an answer in time");
    String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn silent_and_slow_heads_are_closed() {
    let short = Duration::from_millis(200);
    let server = Server::start(ConnectionLimits { header_timeout: short, ..limits(10) }).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost: loc"] {
        let begun = Instant::now();
        let mut client = server.client(sent).await;
        assert_eq!(response(&mut client).await, "", "{sent}");
        assert!(begun.elapsed() >= short);
    }
    server.end().await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let short = Duration::from_millis(200);
    let server = Server::start(ConnectionLimits { idle_timeout: short, ..limits(10) }).await;
    let mut client = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(response(&mut client).await, "");
    server.end().await;
}

#[tokio::test]
async fn a_slow_body_is_answered_with_408() {
    let short = Duration::from_millis(200);
    let server = Server::with(limits(10), short).await;
    let mut client = server.client(&(request("POST", "/echo", 4) + "ab")).await;
    let answer = response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-timeout"), "{answer}");
    let mut client = server.client(&(request("POST", "/echo", 4) + "abcd")).await;
    assert!(response(&mut client).await.ends_with("abcd"));
    let mut client = server.client(&request("POST", "/echo", 101)).await;
    assert!(response(&mut client).await.starts_with("HTTP/1.1 413"));
    server.end().await;
}

#[tokio::test]
async fn a_full_server_closes_the_idle_connection_before_the_silent_one() {
    let server = Server::start(limits(2)).await;
    let mut silent = server.connect().await;
    let mut idle = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut next = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut next).await.starts_with("HTTP/1.1 200"));
    assert_eq!(response(&mut idle).await, "");
    // The silent one was not closed.
    silent.write_all(request("GET", "/", 0).as_bytes()).await.unwrap();
    assert!(response(&mut silent).await.starts_with("HTTP/1.1 200"));
    server.end().await;
}

#[tokio::test]
async fn a_full_server_closes_silent_connections_and_slow_requests_for_new_clients() {
    let server = Server::start(limits(1)).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost: loc", &(request("POST", "/echo", 4) + "ab")] {
        let mut slow = server.client(sent).await;
        let mut next = server.client(&request("GET", "/", 0)).await;
        assert!(response(&mut next).await.starts_with("HTTP/1.1 200"), "{sent}");
        assert_eq!(response(&mut slow).await, "", "{sent}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_response_is_not_cut_for_a_new_client() {
    let server = Server::start(limits(1)).await;
    let mut reader = server.client(&request("GET", "/large", 0)).await;
    let mut head = [0; 15];
    reader.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut next = server.client(&request("GET", "/", 0)).await;
    // Longer than every grace.
    let early = tokio::time::timeout(Duration::from_millis(1500), next.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    let mut left = Vec::new();
    while left.len() < LARGE {
        assert!(reader.read_buf(&mut left).await.unwrap() > 0, "cut after {} bytes", left.len());
    }
    assert!(response(&mut next).await.starts_with("HTTP/1.1 200"));
    server.end().await;
}

#[tokio::test]
async fn a_client_that_reads_no_response_loses_its_place() {
    let short = Duration::from_millis(300);
    let server = Server::start(ConnectionLimits { send_timeout: short, ..limits(1) }).await;
    let _deaf = server.client(&request("GET", "/large", 0)).await;
    let mut next = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut next).await.starts_with("HTTP/1.1 200"));
    server.end().await;
}

/// Closing a socket with unread bytes resets the connection, and then clients report that instead of the response.
#[tokio::test]
async fn a_client_that_is_refused_before_its_body_was_read_gets_the_response() {
    let server = Server::start(limits(1)).await;
    let body = "x".repeat(4 << 20);
    let mut client = server.connect().await;
    client.write_all((request("POST", "/refuse", body.len()) + &body).as_bytes()).await.unwrap();
    assert!(response(&mut client).await.starts_with("HTTP/1.1 403"));
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_stop_waits_for_requests_but_not_for_silent_clients() {
    let server = Server::start(limits(10)).await;
    let _silent = server.connect().await;
    let mut idle = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut sending = server.client(&(request("POST", "/echo", 4) + "ab")).await;
    // The server answers another request that came later, so it has seen the first part of this one.
    let mut later = server.client(&request("GET", "/", 0)).await;
    assert!(response(&mut later).await.starts_with("HTTP/1.1 200"));
    server.stop.cancel();
    sending.write_all(b"cd").await.unwrap();
    assert!(response(&mut sending).await.ends_with("abcd"));
    server.end().await;
}
