//! Helpers for long-running loops: the clock, and pauses between attempts.

mod backoff;
mod clock;

pub use backoff::Backoff;
pub use clock::now_us;
