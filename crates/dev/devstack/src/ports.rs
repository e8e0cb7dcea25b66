//! Free TCP ports on the loopback address, and which process listens on one.
//!
//! Ports are taken from below the kernel's range for outgoing connections where possible. Otherwise an
//! outgoing connection of some client could take the port of a server between its kill and its restart. A
//! port that is found is free *now*. The caller retries if another process took it meanwhile.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

const LOWEST: u16 = 12_000;

/// Whether no process listens on `127.0.0.1:port`.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// `n` different free ports.
pub(crate) fn find_free(n: usize) -> Result<Vec<u16>> {
    let below = outgoing_range_start();
    let mut held = Vec::with_capacity(n);
    for _ in 0..n {
        let quiet = below.and_then(|below| {
            (0..50).find_map(|_| {
                let port = LOWEST + random_u16() % (below - LOWEST);
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
            })
        });
        let listener = match quiet {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?,
        };
        held.push(listener); // held until all are found, so that all differ
    }
    held.iter().map(|l| Ok(l.local_addr().context("read the address of a socket")?.port())).collect()
}

/// Whether process `pid` listens on TCP `port`.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return false;
    }
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

/// Socket inodes of the LISTEN entries for `port` in the text of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
            (local == port && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok())?
        })
        .collect()
}

/// Start of the kernel's range for outgoing connections, if there is room for ports below it.
fn outgoing_range_start() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let start: u16 = range.split_whitespace().next()?.parse().ok()?;
    (start > LOWEST + 1_000).then_some(start)
}

fn random_u16() -> u16 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_ports_differ_and_are_free() {
        let mut ports = find_free(20).unwrap();
        // A process that another test is starting holds the sockets of this one until it becomes another program.
        let soon_free = |port: &u16| {
            (0..200).any(|_| {
                is_free(*port) || {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    false
                }
            })
        };
        assert!(ports.iter().all(soon_free));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn a_listening_port_belongs_to_its_process() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        assert!(listens(std::process::id(), port));
        assert!(!listens(1, port));
        drop(listener);
        assert!(!listens(std::process::id(), port));
    }

    #[test]
    fn only_listen_entries_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
            1: 0100007F:0CEA 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
            2: 0100007F:0CEB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening_inodes(table, 0x0CEA), [4711]);
    }
}
