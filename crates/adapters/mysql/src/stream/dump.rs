//! The commands with which a replica requests the binlog.

use tandem_model::GtidSet;

/// `COM_REGISTER_SLAVE` with only the replica's server id. All other fields are empty.
pub(crate) fn register(server_id: u32) -> Vec<u8> {
    let mut out = vec![0x15];
    out.extend_from_slice(&server_id.to_le_bytes());
    // Host, user, password, port, rank and the source's id.
    out.extend_from_slice(&[0; 3 + 2 + 4 + 4]);
    out
}

/// `COM_BINLOG_DUMP_GTID` for every transaction that is not in `from`. It names no binlog file, because the
/// server would search for that file.
pub(crate) fn request(server_id: u32, from: &GtidSet) -> Vec<u8> {
    let set = encoded(from);
    let mut out = vec![0x1e];
    // BINLOG_THROUGH_GTID.
    out.extend_from_slice(&4u16.to_le_bytes());
    out.extend_from_slice(&server_id.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&4u64.to_le_bytes());
    out.extend_from_slice(&(set.len() as u32).to_le_bytes());
    out.extend_from_slice(&set);
    out
}

/// Encodes a set as `Gtid_set::encode` does. Intervals are half-open: `1-5` is encoded as 1 and 6. If any
/// origin has a tag, the number of origins is shifted up by one byte, the highest byte is 1, and each UUID is
/// followed by its tag.
fn encoded(set: &GtidSet) -> Vec<u8> {
    let tagged = set.origins().any(|(_, tag, _)| !tag.is_empty());
    let count = set.origins().count() as u64;
    let head = if tagged { count << 8 | 1 << 56 } else { count };
    let mut out = head.to_le_bytes().to_vec();
    for (uuid, tag, runs) in set.origins() {
        out.extend_from_slice(uuid.as_bytes());
        if tagged {
            // The length in the encoding of MySQL's serialization library. A tag has at most 32 characters.
            out.push((tag.len() as u8) << 1);
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(&(runs.len() as u64).to_le_bytes());
        for (first, last) in runs.iter() {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.saturating_add(1).to_le_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn sets_with_and_without_tags() {
        let plain = encoded(&format!("{UUID}:1-5:7").parse().unwrap());
        let uuid =
            [0x3e, 0x11, 0xfa, 0x47, 0x71, 0xca, 0x11, 0xe1, 0x9e, 0x33, 0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62];
        let n = |n: u64| n.to_le_bytes();
        assert_eq!(plain, [&n(1)[..], &uuid, &n(2), &n(1), &n(6), &n(7), &n(8)].concat());
        let tagged = encoded(&format!("{UUID}:1-5,{UUID}:blue:2").parse().unwrap());
        let head = [0, 2, 0, 0, 0, 0, 0, 1];
        let expected =
            [&head[..], &uuid, &[0], &n(1), &n(1), &n(6), &uuid, b"\x08blue", &n(1), &n(2), &n(3)].concat();
        assert_eq!(tagged, expected);
        assert_eq!(encoded(&GtidSet::default()), n(0));
    }
}
