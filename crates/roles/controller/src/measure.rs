//! Measurements: from the log, and from the gateways' metrics pages.

pub(crate) mod counters;
mod exposition;
pub(crate) mod log_state;
pub(crate) mod log_watch;
pub(crate) mod scrape;
pub(crate) mod window;
