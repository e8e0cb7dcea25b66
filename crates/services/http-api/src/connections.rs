//! Serves an API over HTTP/1, with limits that slow and silent clients cannot get around.
//!
//! - Every wait for a client has an end: for its TLS handshake and the head of its request, between two requests, and
//!   until it has read a response. Whoever reads the body has its own timeout ([`read_body`](crate::read_body)).
//! - A full server closes idle connections for new ones, and then connections whose request has not arrived. A
//!   connection whose request is being worked on, or whose response is being sent, is never closed for another one.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::connection::{Connection, Phase};
use crate::limits::ConnectionLimits;
use crate::slots::{Slot, Slots};
use crate::watched::{RequestBody, ResponseBody, WatchedSocket};

/// The longest head of a request, in bytes. A longer one is answered with 431.
const MAX_HEAD: usize = 64 << 10;
/// The pause after the listener has failed, for example because the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener of an API.
pub struct HttpListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: ConnectionLimits,
}

impl HttpListener {
    /// Creates the listener. With `tls`, connections without TLS are refused.
    pub fn new(tcp: TcpListener, tls: Option<TlsAcceptor>, limits: ConnectionLimits) -> Self {
        Self { tcp, tls, limits }
    }
}

/// Serves until `stop`, and then until every request that has arrived is answered.
pub async fn serve(listener: HttpListener, router: Router, stop: CancellationToken) {
    let HttpListener { tcp, tls, limits } = listener;
    let slots = Slots::new(limits.max_connections);
    let tasks = TaskTracker::new();
    while let Some(socket) = stop.run_until_cancelled(accept(&tcp, &slots)).await {
        let Some(slot) = stop.run_until_cancelled(slots.take()).await else { break };
        let server = Server { router: router.clone(), limits, stop: stop.clone() };
        tasks.spawn(server.run(socket, tls.clone(), slot));
    }
    drop(tcp);
    tasks.close();
    tasks.wait().await;
}

/// Accepts the next connection.
async fn accept(tcp: &TcpListener, slots: &Slots) -> TcpStream {
    loop {
        match tcp.accept().await {
            Ok((socket, _)) => {
                // Only a delay: a response is written as a whole.
                let _ = socket.set_nodelay(true);
                return socket;
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                // Too many open files, perhaps.
                let _ = slots.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the client has gone before its connection was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What all connections share.
struct Server {
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
}

impl Server {
    async fn run(self, socket: TcpStream, tls: Option<TlsAcceptor>, slot: Slot) {
        let connection = Arc::clone(&slot.connection);
        let Some(tls) = tls else { return self.drive(socket, &connection).await };
        let deadline = connection.deadline(&self.limits).unwrap_or_else(Instant::now);
        tokio::select! {
            shaken = tokio::time::timeout_at(deadline, tls.accept(socket)) => match shaken {
                Ok(Ok(socket)) => self.drive(socket, &connection).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            },
            () = connection.closed() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Serves the requests of one connection.
    async fn drive<I>(self, socket: I, connection: &Arc<Connection>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { router, limits, stop } = self;
        let socket = WatchedSocket { socket, connection: Arc::clone(connection) };
        let service = service_fn({
            let connection = Arc::clone(connection);
            move |request| Box::pin(answer(router.clone(), Arc::clone(&connection), request))
        });
        let mut http = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        let mut timer = Box::pin(tokio::time::sleep_until(Instant::now() + limits.header_timeout));
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = connection.closed() => return,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    if connection.close_if_without_request() {
                        return;
                    }
                    Pin::new(&mut http).graceful_shutdown();
                }
                ended = std::future::poll_fn(|cx| poll(&mut http, &mut timer, connection, &limits, cx)) => {
                    match ended {
                        Ended::Finished => break,
                        Ended::Failed(error) => return tracing::debug!(%error, "a connection failed"),
                        Ended::TimedOut => return tracing::debug!("a client was too slow"),
                    }
                }
            }
        }
        if connection.enter(Phase::Lingering) {
            let mut socket = http.into_parts().io.into_inner().socket;
            tokio::select! {
                () = connection.closed() => {}
                _ = tokio::time::timeout_at(
                    connection.deadline(&limits).unwrap_or_else(Instant::now),
                    discard(&mut socket),
                ) => {}
            }
        }
    }
}

/// How the requests of a connection ended.
enum Ended {
    Finished,
    Failed(hyper::Error),
    TimedOut,
}

/// Goes on with a connection. Its timer is that of the phase that it is in afterwards.
fn poll<I, S>(
    http: &mut http1::Connection<TokioIo<WatchedSocket<I>>, S>,
    timer: &mut Pin<Box<Sleep>>,
    connection: &Connection,
    limits: &ConnectionLimits,
    cx: &mut Context<'_>,
) -> Poll<Ended>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Poll::Ready(ended) = Pin::new(http).poll(cx) {
        return Poll::Ready(ended.map_or_else(Ended::Failed, |()| Ended::Finished));
    }
    let Some(deadline) = connection.deadline(limits) else { return Poll::Pending };
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(cx).map(|()| Ended::TimedOut)
}

async fn answer(
    mut router: Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    if !connection.enter(Phase::Working) {
        // The connection gives way to another one at this moment.
        std::future::pending::<()>().await;
    }
    let body = |body| Body::new(RequestBody { body, connection: Arc::clone(&connection) });
    let response = router.call(request.map(body)).await?;
    connection.enter(Phase::Responding);
    Ok(response.map(|body| ResponseBody { body, connection }))
}

/// Reads until the client has closed the connection. A socket that is closed with unread bytes resets the connection,
/// and the client may lose the response.
async fn discard<I: AsyncRead + Unpin>(socket: &mut I) {
    let mut bytes = [0; 4096];
    while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}
