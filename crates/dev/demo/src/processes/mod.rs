//! The processes of Tandem that the demo runs, with their status and metrics.

mod fleet;
mod metrics;
mod status;
mod watch;

pub(crate) use fleet::Fleet;
pub(crate) use metrics::Metrics;
pub(crate) use status::Mismatches;
pub(crate) use watch::Watch;
