//! A given SQL dump: loading it, and traffic on its tables.

mod load;
mod plausible;
mod traffic;

pub(crate) use load::load;
pub(crate) use traffic::{DumpTraffic, Reserved};
