//! What every long-lived loop needs: the clock, and pauses between attempts.

mod backoff;
mod clock;

pub use backoff::Backoff;
pub use clock::now_us;
