//! Timeouts for connecting and for answers.

use std::time::Duration;

use mysql_async::Opts;
use tokio::time::Instant;

use crate::connect::MysqlConfig;
use crate::error::MysqlError;

/// The server's address, account and timeout.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    user: String,
    /// Limit for connecting and for small queries.
    pub(crate) timeout: Duration,
}

impl Server {
    pub(crate) fn new(config: &MysqlConfig, opts: &Opts) -> Self {
        Self {
            address: format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
            user: opts.user().unwrap_or_default().to_owned(),
            timeout: config.connect_timeout,
        }
    }

    /// Waits for a connection.
    pub(crate) async fn connecting<T>(
        &self,
        connection: impl Future<Output = mysql_async::Result<T>>,
    ) -> Result<T, MysqlError> {
        match tokio::time::timeout(self.timeout, connection).await {
            Ok(result) => result.map_err(|e| MysqlError::while_connecting(e, &self.address, &self.user)),
            Err(_) => Err(MysqlError::Unreachable {
                address: self.address.clone(),
                cause: format!("no answer within {:?}", self.timeout),
            }),
        }
    }

    /// Waits up to `limit` for the answer to a query.
    pub(crate) async fn answer<T>(
        &self,
        limit: Duration,
        doing: &str,
        question: impl Future<Output = mysql_async::Result<T>>,
    ) -> Result<T, MysqlError> {
        match tokio::time::timeout(limit, question).await {
            Ok(result) => result.map_err(|e| MysqlError::while_doing(e, &self.address, doing)),
            Err(_) => Err(MysqlError::Lost {
                address: self.address.clone(),
                doing: doing.to_owned(),
                cause: format!("no answer within {limit:?}"),
            }),
        }
    }
}

/// The time left until `deadline`.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
