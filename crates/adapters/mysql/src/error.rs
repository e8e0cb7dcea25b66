//! Errors. Messages contain the remedy. They never contain values or secrets.

use std::path::PathBuf;

use mysql_async::{DriverError, Error, IoError, ServerError};
use tandem_binlog::DecodeError;
use tandem_model::{Disposition, FollowUp, Remedy, TableName};

/// A connection or a query failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MysqlError {
    /// The driver cannot parse the connection URL.
    #[error("the MySQL URL is wrong: {cause}; it has the form mysql://user:password@host:port")]
    Url {
        /// What is wrong with it.
        cause: String,
    },
    /// The server refused the account.
    #[error(
        "MySQL at {address} refused the user `{user}`: check the password and that the account exists for \
         this host (CREATE USER … IDENTIFIED BY …); one that has REQUIRE SSL or X509 needs [mysql] tls"
    )]
    AccessDenied {
        /// `host:port`.
        address: String,
        /// The account's name.
        user: String,
    },
    /// The server asks for an authentication method that the driver does not support. MySQL also makes up a
    /// method for an account that does not exist.
    #[error(
        "MySQL at {address} asks the user `{user}` for the authentication method {plugin}, which is not \
         supported: check that the account exists for this host, and ALTER USER … IDENTIFIED WITH \
         caching_sha2_password BY …"
    )]
    AuthPlugin {
        /// `host:port`.
        address: String,
        /// The account's name.
        user: String,
        /// The authentication method.
        plugin: String,
    },
    /// A file of the TLS configuration cannot be used.
    #[error("[mysql] tls: {}: {problem}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The TLS handshake failed, or only one side requires TLS.
    #[error("no secure connection to MySQL at {address}: {problem}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// No connection could be made within the timeout.
    #[error("MySQL at {address} cannot be reached: {cause}; check host, port, firewall and that mysqld runs")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        cause: String,
    },
    /// The connection broke, or a query was not answered in time.
    #[error("the connection to MySQL at {address} was lost while {doing}: {cause}")]
    Lost {
        /// `host:port`.
        address: String,
        /// What was being done.
        doing: String,
        /// Why.
        cause: String,
    },
    /// The account lacks a privilege.
    #[error("MySQL refused {doing}: a privilege is missing; {remedy}")]
    MissingPrivilege {
        /// What was being done.
        doing: String,
        /// What to grant.
        remedy: String,
    },
    /// The server answered with an error.
    #[error("MySQL error {code} while {doing}: {message}")]
    Server {
        /// MySQL's error number.
        code: u16,
        /// MySQL's message. Replaced where MySQL would quote a value.
        message: String,
        /// What was being done.
        doing: String,
    },
    /// The table no longer matches its definition.
    #[error("table {table} has changed since its definition was read: {problem}; read its definition again")]
    TableChanged {
        /// The table.
        table: TableName,
        /// What is different.
        problem: String,
    },
    /// A value cannot be converted.
    #[error("column {column} of {table} holds a value that is not valid for its type: {problem}")]
    BadValue {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// What is wrong, without the value.
        problem: String,
    },
}

impl MysqlError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => Disposition::Retry,
            Self::Server { code, .. } => disposition(*code),
            Self::BadValue { .. } => Disposition::Refuse,
            Self::Url { .. }
            | Self::AccessDenied { .. }
            | Self::AuthPlugin { .. }
            | Self::TlsFile { .. }
            | Self::Tls { .. }
            | Self::MissingPrivilege { .. }
            | Self::TableChanged { .. } => Disposition::Stop,
        }
    }

    /// Whether a read of a table failed because of the table itself: a value in it, or there is no such table or database any
    /// more. A read of another table may succeed.
    pub fn concerns_table(&self) -> bool {
        match self {
            Self::BadValue { .. } => true,
            Self::Server { code, .. } => matches!(code, 1049 | 1146),
            _ => false,
        }
    }

    /// Classifies a driver error on an established connection, while `doing` something.
    pub(crate) fn while_doing(error: Error, address: &str, doing: &str) -> Self {
        let doing = doing.to_owned();
        match error {
            Error::Server(ServerError { code: 1044 | 1045 | 1142 | 1143 | 1227, .. }) => {
                Self::MissingPrivilege {
                    doing,
                    remedy: "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the account"
                        .into(),
                }
            }
            Error::Server(ServerError { code, message, .. }) => {
                // MySQL quotes values in these messages.
                let quotes = matches!(code, 1062 | 1292 | 1366 | 1411 | 1525 | 1690);
                let message = if quotes { "a value was not accepted".into() } else { message };
                Self::Server { code, message, doing }
            }
            other => Self::Lost { address: address.to_owned(), doing, cause: cause_of(&other) },
        }
    }

    /// Classifies a driver error while connecting.
    pub(crate) fn while_connecting(error: Error, address: &str, user: &str) -> Self {
        match error {
            Error::Server(ServerError { code: 1044 | 1045 | 1698, .. }) => {
                Self::AccessDenied { address: address.to_owned(), user: user.to_owned() }
            }
            Error::Driver(DriverError::UnknownAuthPlugin { name }) => {
                Self::AuthPlugin { address: address.to_owned(), user: user.to_owned(), plugin: name }
            }
            Error::Server(ServerError { code: 3159, .. }) => Self::Tls {
                address: address.to_owned(),
                problem: "the server takes no others (require_secure_transport): set [mysql] tls".into(),
            },
            Error::Driver(DriverError::NoClientSslFlagFromServer) => Self::Tls {
                address: address.to_owned(),
                problem: "the server has no TLS: set its ssl_cert and ssl_key, or tls.mode = \"disabled\""
                    .into(),
            },
            Error::Io(IoError::Tls(error)) => match refusal(&error) {
                Some(problem) => Self::Tls { address: address.to_owned(), problem },
                None => Self::Unreachable { address: address.to_owned(), cause: error.to_string() },
            },
            error @ Error::Server(_) => Self::while_doing(error, address, "connecting"),
            other => Self::Unreachable { address: address.to_owned(), cause: cause_of(&other) },
        }
    }
}

/// What follows from MySQL's error number.
fn disposition(code: u16) -> Disposition {
    match code {
        // Too many connections, shutdown in progress, lock wait timeout, deadlock, interrupted, timed out.
        1040 | 1053 | 1205 | 1213 | 1317 | 3024 => Disposition::Retry,
        // A key or unique value exists already, a foreign key, NULL, no default, out of range, too long,
        // truncated, not a date or a number, arithmetic, a generated column, a check constraint.
        1062 | 1451 | 1452 | 1216 | 1217 | 1048 | 1264 | 1265 | 1292 | 1364 | 1365 | 1366 | 1406 | 1411
        | 1525 | 1690 | 3105 | 3819 => Disposition::Refuse,
        _ => Disposition::Stop,
    }
}

/// The cause without the driver's additions. Conversion errors can contain rows, so they are not shown.
fn cause_of(error: &Error) -> String {
    match error {
        Error::Io(IoError::Io(io)) => io.to_string(),
        Error::Driver(DriverError::FromRow { .. } | DriverError::FromValue { .. }) => {
            "the answer has an unexpected form".into()
        }
        other => other.to_string(),
    }
}

/// Describes a failed TLS handshake and its remedy. Returns `None` where only the connection broke.
fn refusal(error: &mysql_async::TlsError) -> Option<String> {
    let text = error.to_string();
    if let Some((_, reason)) = text.split_once("certificate verify failed") {
        let reason = reason.rsplit_once('(').map_or(reason, |(_, r)| r.trim_end_matches(')'));
        let remedy = if reason.contains("mismatch") {
            "mysql.url must name the host as the certificate does; with `verify_ca` the name does not matter"
        } else {
            "tls.ca must be the CA that signed it"
        };
        return Some(format!("its certificate is not trusted ({reason}): {remedy}"));
    }
    let handshake = text.contains("SSL routines") && !text.contains("unexpected eof");
    handshake.then(|| format!("{text}: check tls.certificate and tls.key, and the server's tls_version"))
}

/// The binlog stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinlogError {
    /// Connecting failed, the connection broke, or the server answered with an error.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// The server has purged transactions that are not in the requested set.
    #[error(
        "the server has purged binlogs that are still needed: {message}; what they held cannot be captured any \
         more"
    )]
    Purged {
        /// The server's message.
        message: String,
    },
    /// Another replica reads this server's binlog under the same server id.
    #[error(
        "another replica has connected with the server id {server_id}: give this one a server id of its own, \
         and do not run two captures of one source"
    )]
    ServerIdClash {
        /// The id.
        server_id: u32,
    },
    /// Neither an event nor a heartbeat arrived.
    #[error("the binlog stream has been silent for {seconds} s, without a heartbeat: the connection is dead")]
    Silent {
        /// The length of the silence.
        seconds: u64,
    },
    /// The server ended the stream.
    #[error("the server ended the binlog stream after {at}")]
    Ended {
        /// `file:position` of the last event.
        at: String,
    },
    /// An event cannot be decoded or captured.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl BinlogError {
    /// What the caller does next. A retry opens the stream again.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Mysql(error) => error.retry(),
            Self::Decode(error) => error.retry(),
            Self::Silent { .. } | Self::Ended { .. } => Disposition::Retry,
            Self::Purged { .. } | Self::ServerIdClash { .. } => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Decode(error) => error.remedy(),
            Self::Purged { .. } => Some(
                Remedy::from(FollowUp::Resnapshot)
                    .afterwards("keep binlogs longer (SET PERSIST binlog_expire_logs_seconds = 604800)"),
            ),
            Self::Mysql(_) | Self::ServerIdClash { .. } | Self::Silent { .. } | Self::Ended { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> MysqlError {
        MysqlError::Server { code, message: String::new(), doing: "reading".into() }
    }

    fn decode() -> DecodeError {
        DecodeError::Malformed {
            event: "ROTATE".into(),
            at: "binlog.1:4".into(),
            problem: "too short".into(),
        }
    }

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Refuse, Retry, Stop};
        let address = || "h:3306".to_owned();
        let unreachable = MysqlError::Unreachable { address: address(), cause: "refused".into() };
        let lost = MysqlError::Lost { address: address(), doing: "reading".into(), cause: "broken".into() };
        let denied = MysqlError::AccessDenied { address: address(), user: "u".into() };
        let tls = MysqlError::Tls { address: address(), problem: "no TLS".into() };
        let privilege = MysqlError::MissingPrivilege { doing: "reading".into(), remedy: "GRANT".into() };
        let table = TableName::new("shop", "orders");
        let changed = MysqlError::TableChanged { table: table.clone(), problem: "a column".into() };
        let value = MysqlError::BadValue { table, column: "c".into(), problem: "not a date".into() };
        for (error, expected) in [
            (unreachable, Retry),
            (lost.clone(), Retry),
            (denied, Stop),
            (tls, Stop),
            (privilege, Stop),
            (changed, Stop),
            (value, Refuse),
            (server(1205), Retry),
            (server(1213), Retry),
            (server(1040), Retry),
            (server(1062), Refuse),
            (server(1366), Refuse),
            (server(3819), Refuse),
            (server(1146), Stop),
            (server(1064), Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
        for (error, expected) in [
            (BinlogError::Mysql(lost), Retry),
            (BinlogError::Mysql(server(1064)), Stop),
            (BinlogError::Silent { seconds: 9 }, Retry),
            (BinlogError::Ended { at: "binlog.1:4".into() }, Retry),
            (BinlogError::Purged { message: String::new() }, Stop),
            (BinlogError::ServerIdClash { server_id: 1 }, Stop),
            (BinlogError::Decode(decode()), Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
