//! This machine's clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Returns this machine's time in microseconds since the epoch; 0 if the clock is before the epoch.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Returns the time since this machine's start in microseconds, suspensions included (`CLOCK_BOOTTIME`). It never goes
/// back. Its values mean nothing to another machine.
pub fn boot_us() -> i64 {
    // Linux has had this clock since 2.6.39, and reading it cannot fail otherwise.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000
}
