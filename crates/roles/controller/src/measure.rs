//! Measurements: from the log, and from the gateways' announcements on it.

pub(crate) mod counters;
pub(crate) mod log_state;
pub(crate) mod log_watch;
pub(crate) mod presence;
pub(crate) mod window;
