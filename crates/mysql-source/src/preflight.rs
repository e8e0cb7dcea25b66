//! Checks of the server's settings before anything starts.

use crate::{Mysql, MysqlError};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing can be done before this is mended.
    Error,
    /// It works, but a crash or a mishap could lose changes.
    Warning,
}

/// A setting that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The system variable or privilege.
    pub setting: String,
    /// What is wrong with it.
    pub problem: String,
    /// The statement, or the option, that mends it.
    pub remedy: String,
    /// How bad it is.
    pub severity: Severity,
}

impl Mysql {
    /// Everything about the server and the account that stands in the way.
    pub async fn preflight(&self) -> Result<Vec<Finding>, MysqlError> {
        unimplemented!()
    }
}
