//! Somebody's SQL dump: loading it, and traffic on tables that nobody has described.

mod load;
mod plausible;
mod traffic;

pub(crate) use load::load;
pub(crate) use traffic::{DumpTraffic, Reserved};
