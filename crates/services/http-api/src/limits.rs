//! The limits of an API's connections.

use std::time::Duration;

/// The limits of an API's connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at most, those with a TLS handshake under way included.
    pub max_connections: usize,
    /// The time for a TLS handshake and the head of the first request together, and for each further head.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// The time in which the client must read a response.
    pub send_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 2048,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_mins(1),
        }
    }
}
