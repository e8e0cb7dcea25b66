//! The resources that a process has used, as Linux counts them.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of all threads of a process so far, in microseconds (`utime` and `stime` of
/// `/proc/PID/stat`, which counts in hundredths of a second).
pub(crate) fn cpu_us(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The command's name is in parentheses and may itself contain parentheses.
    let fields: Vec<&str> =
        stat.rsplit_once(')').context("no process name in stat")?.1.split_whitespace().collect();
    let ticks = |i: usize| -> Result<u64> { Ok(fields.get(i).context("stat is too short")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) * 10_000)
}

/// The peak of a process's resident memory so far, in MiB.
pub(crate) fn peak_rss_mb(pid: u32) -> Result<f64> {
    memory_mb(pid, "VmHWM:")
}

/// A process's resident memory now, in MiB.
pub(crate) fn rss_mb(pid: u32) -> Result<f64> {
    memory_mb(pid, "VmRSS:")
}

fn memory_mb(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no memory in status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("the memory is no number")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let me = std::process::id();
        let before = cpu_us(me).unwrap();
        let mut sum = 0_u64;
        while cpu_us(me).unwrap() < before + 20_000 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(peak_rss_mb(me).unwrap() > 0.5);
        assert!(cpu_us(u32::MAX).is_err());
    }
}
