//! Connections to the servers, and the checks before a role starts.

pub(crate) mod ownership;
pub(crate) mod privileges;
pub(crate) mod problem;
pub(crate) mod row_checker;
pub(crate) mod servers;
