//! This machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns this machine's time in microseconds since the epoch; 0 if the clock is before the epoch.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
