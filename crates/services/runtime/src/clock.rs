//! This machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the epoch by this machine's clock; 0 if it stands before the epoch.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
