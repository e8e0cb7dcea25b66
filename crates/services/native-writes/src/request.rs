//! Requests, and what becomes of them.

use std::fmt;

use tandem_model::{Epoch, Nonce, Row, Version};
use tokio::time::Instant;

use crate::error::NativeWriteError;

/// A request, whose retries have the same nonce.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The nonce.
    pub nonce: Nonce,
    /// When the caller stops waiting. A write never begins again after it.
    pub deadline: Instant,
}

/// What a request makes of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision<R> {
    /// The row becomes this one. `None` deletes it.
    Become(Option<Row>),
    /// The row stays as it is, and the caller is told this: the row is absent, or is there already, or does not match, or
    /// is what the request wants it to be.
    Refuse(R),
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<R> {
    /// The row is written.
    Written {
        /// What a reader shows to see the write.
        token: Token,
        /// Whether an earlier attempt of the request has made it.
        replayed: bool,
    },
    /// The row stays as it was.
    Refused(R),
}

/// Names a native write: `epoch:version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The epoch.
    pub epoch: Epoch,
    /// The version.
    pub version: Version,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.version)
    }
}

/// What an attempt that ended with an error leaves. If it has sent a CAS, or has met an earlier attempt, nobody knows.
pub(crate) fn settled<T>(
    outcome: Result<T, NativeWriteError>,
    may_stand: bool,
) -> Result<T, NativeWriteError> {
    match outcome {
        Err(error) if may_stand && !matches!(error, NativeWriteError::OutcomeUnknown { .. }) => {
            Err(NativeWriteError::OutcomeUnknown { cause: error.to_string() })
        }
        outcome => outcome,
    }
}
