//! Helpers for long-running loops: the clocks, pauses between attempts, and what a process waits for.

mod backoff;
mod clock;
mod waits;

pub use backoff::Backoff;
pub use clock::{boot_us, now_us};
pub use waits::{Hold, Trying, Wait, Waits};
