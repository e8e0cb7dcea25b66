//! Connections to the servers, and what stands in the way.

pub(crate) mod privileges;
pub(crate) mod row_checker;
pub(crate) mod servers;
