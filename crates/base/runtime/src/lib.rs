//! Helpers for long-running loops: the clocks, and pauses between attempts.

mod backoff;
mod clock;

pub use backoff::Backoff;
pub use clock::{boot_us, now_us};
