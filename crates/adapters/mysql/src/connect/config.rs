//! The connection configuration.

use std::fmt;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder};
use native_tls::TlsConnector;
use tandem_binlog::ExcludedColumns;

use crate::connect::tls::{MysqlTls, connector_of};
use crate::error::MysqlError;

/// How to connect to a MySQL server and how to read its binlog.
#[derive(Clone)]
pub struct MysqlConfig {
    /// `mysql://user:password@host:port`. The driver's URL parameters are allowed.
    pub url: String,
    /// The password. It overrides the one in the URL.
    pub password: Option<String>,
    /// TLS settings. Without them, the URL parameters decide.
    pub tls: Option<MysqlTls>,
    /// The server id under which the binlog stream registers as a replica. It must be unique among the
    /// server's replicas.
    pub server_id: u32,
    /// The interval of an idle server's heartbeats.
    pub heartbeat: Duration,
    /// Limit for connecting and for each small query.
    pub connect_timeout: Duration,
    /// Columns that Tandem does not capture.
    pub excluded: ExcludedColumns,
}

impl MysqlConfig {
    /// A configuration with a heartbeat of 2 s and a timeout of 10 s.
    pub fn new(url: impl Into<String>, server_id: u32) -> Self {
        Self {
            url: url.into(),
            password: None,
            tls: None,
            server_id,
            heartbeat: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(10),
            excluded: ExcludedColumns::default(),
        }
    }

    /// How long a connection may be silent before it counts as dead: two heartbeat intervals.
    pub fn silence(&self) -> Duration {
        self.heartbeat * 2
    }

    /// The TLS connector of the binlog connection; `None` without encryption.
    pub(crate) fn connector(&self, opts: &Opts) -> Result<Option<TlsConnector>, MysqlError> {
        let builder = match (&self.tls, opts.ssl_opts()) {
            (Some(tls), _) => tls.connector()?,
            (None, Some(by_url)) => connector_of(by_url),
            (None, None) => return Ok(None),
        };
        builder.build().map(Some).map_err(|e| MysqlError::Tls {
            address: format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
            problem: e.to_string(),
        })
    }

    /// The driver's options. Each new or reset connection runs `setup`.
    pub(crate) fn options(&self, setup: Vec<String>) -> Result<OptsBuilder, MysqlError> {
        let opts = Opts::from_url(&self.url).map_err(|e| MysqlError::Url { cause: url_problem(&e) })?;
        let password = self.password.clone().or_else(|| opts.pass().map(str::to_owned));
        let tls = match &self.tls {
            Some(tls) => Some(tls.options()?),
            None => opts.ssl_opts().cloned(),
        };
        Ok(OptsBuilder::from_opts(opts)
            .ssl_opts(tls)
            .pass(password)
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            .setup(setup))
    }
}

/// Splits a connection URL into the URL without its password and the decoded password.
///
/// Example: `mysql://u:a%40b@h:1` gives `mysql://u@h:1` and `a@b`.
///
/// # Errors
/// The URL cannot be parsed.
pub fn split_password(url: &str) -> Result<(String, Option<String>), MysqlError> {
    let opts = Opts::from_url(url).map_err(|e| MysqlError::Url { cause: url_problem(&e) })?;
    let Some(password) = opts.pass() else { return Ok((url.to_owned(), None)) };
    // The user and the password precede the last `@` of the authority. The first `:` separates them.
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    let bare = url[begin..end].rfind('@').and_then(|at| {
        let at = begin + at;
        let colon = begin + url[begin..at].find(':')?;
        Some(format!("{}{}", &url[..colon], &url[at..]))
    });
    Ok((bare.unwrap_or_else(|| url.to_owned()), Some(password.to_owned())))
}

/// Describes what is wrong with a URL. Never quotes the URL, which may hold the password.
fn url_problem(error: &mysql_async::UrlError) -> String {
    use mysql_async::UrlError as E;
    match error {
        E::FeatureRequired { param, .. } => format!("its parameter `{param}` is not supported"),
        E::InvalidParamValue { param, .. } => format!("the value of its parameter `{param}` is wrong"),
        E::UnknownParameter { param } => format!("its parameter `{param}` is unknown"),
        E::InvalidPoolConstraints { .. } => "pool_min is greater than pool_max".into(),
        E::Parse(_) | E::Invalid | E::UnsupportedScheme { .. } => "it cannot be parsed".into(),
    }
}

impl fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConfig")
            .field("url", &"(not shown: may hold the password)")
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("server_id", &self.server_id)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("excluded", &self.excluded)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_out_of_a_url() {
        for (url, bare, password) in [
            ("mysql://u:hush@h:3306/d", "mysql://u@h:3306/d", Some("hush")),
            ("mysql://u:a%40b%3A@h:1?x=1", "", None),
            ("mysql://u:a%40b%3Ac@h:1", "mysql://u@h:1", Some("a@b:c")),
            ("mysql://u@h:1", "mysql://u@h:1", None),
            ("mysql://h:1", "mysql://h:1", None),
        ] {
            match split_password(url) {
                Ok(split) => assert_eq!(split, (bare.to_owned(), password.map(str::to_owned)), "{url}"),
                Err(_) => assert!(url.contains("x=1"), "{url}"),
            }
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        for url in ["mysql://u:hush@h:1", "mysql://u:hush@h:port", "mysqx://u:hush@h", "mysql://u:hush@h?x=1"]
        {
            let config = MysqlConfig::new(url, 7);
            assert!(!format!("{config:?}").contains("hush"));
            if let Err(error) = config.options(Vec::new()) {
                assert!(!format!("{error:?} {error}").contains("hush"), "{url}");
            }
        }
    }
}
