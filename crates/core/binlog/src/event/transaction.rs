//! Reads GTID and QUERY events.

use std::borrow::Cow;

use tandem_model::Gtid;

use crate::cursor::{Cursor, Malformed};
use crate::types::charset::Collations;

/// The begin of a transaction, from a GTID event (`Gtid_event`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) gtid: Gtid,
    /// When it committed on the server that first executed it, in microseconds since the epoch. Servers older
    /// than 8.0.1 do not write that; then it is the event's own time in whole seconds.
    pub(crate) commit_us: i64,
    pub(crate) server_id: u32,
}

impl Opened {
    pub(crate) fn read(body: &[u8], timestamp: u32, server_id: u32) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        cursor.u8()?;
        let gtid = Gtid::from_sid(cursor.sid()?, "", cursor.uint(8)?);
        let mut commit_us = 0;
        // The type of the logical timestamps, the two logical timestamps, then the commit times.
        if !cursor.is_empty() && cursor.u8()? == 2 {
            cursor.take(16)?;
            if !cursor.is_empty() {
                // If the highest bit is set, the original commit time differs and follows.
                let immediate = cursor.uint(7)?;
                commit_us = if immediate >> 55 == 1 { cursor.uint(7)? } else { immediate };
                if commit_us == 0 {
                    commit_us = immediate & ((1 << 55) - 1);
                }
            }
        }
        if commit_us == 0 {
            commit_us = u64::from(timestamp) * 1_000_000;
        }
        Ok(Self { gtid, commit_us: commit_us as i64, server_id })
    }

    /// Reads GTID_TAGGED, an event in the format of MySQL's serialization library (`libs/mysql/serialization`
    /// in MySQL's source).
    ///
    /// The event is a version, the size, the last field that a reader must understand, and then the fields in
    /// the order of their ids, each after its id. Integers have variable length.
    pub(crate) fn read_tagged(body: &[u8], timestamp: u32, server_id: u32) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        if cursor.varlen()? != 1 {
            return Err("it has a later format version".into());
        }
        cursor.varlen()?;
        cursor.varlen()?;
        let (mut sid, mut tag, mut number) = (None, "", 0);
        let (mut immediate, mut original) = (0, 0);
        while !cursor.is_empty() {
            match cursor.varlen()? {
                // Flags, and the two logical timestamps.
                0 | 4 | 5 => drop(cursor.varlen()?),
                1 => {
                    let mut bytes = [0; 16];
                    for byte in &mut bytes {
                        *byte = u8::try_from(cursor.varlen()?).map_err(|_| "its UUID is invalid")?;
                    }
                    sid = Some(bytes);
                }
                // A signed number: the lowest bit is the sign.
                2 => number = cursor.varlen()? >> 1,
                3 => {
                    let length = usize::try_from(cursor.varlen()?).map_err(|_| "its tag is invalid")?;
                    tag = std::str::from_utf8(cursor.take(length)?).map_err(|_| "its tag is invalid")?;
                }
                6 => immediate = cursor.varlen()?,
                7 => original = cursor.varlen()?,
                // The transaction length, versions and later fields.
                _ => break,
            }
        }
        let gtid = match sid {
            Some(sid) if number > 0 => Gtid::from_sid(sid, tag, number),
            _ => return Err("it holds no GTID".into()),
        };
        let commit_us = [original, immediate].into_iter().find(|us| *us > 0);
        let commit_us = commit_us.unwrap_or_else(|| u64::from(timestamp) * 1_000_000) as i64;
        Ok(Self { gtid, commit_us, server_id })
    }
}

/// A statement, from a QUERY event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueryText<'a> {
    pub(crate) database: Cow<'a, str>,
    pub(crate) sql: Cow<'a, str>,
    /// The session's locale for the names of days and months (`sql_locale.cc`). 0 is `en_US`.
    pub(crate) locale: u64,
}

impl<'a> QueryText<'a> {
    pub(crate) fn read(body: &'a [u8], collations: &Collations) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        cursor.take(8)?;
        let database_length = usize::from(cursor.u8()?);
        cursor.take(2)?;
        let variables_length = cursor.uint(2)? as usize;
        let variables = cursor.take(variables_length)?;
        let database = String::from_utf8_lossy(cursor.take(database_length)?);
        cursor.take(1)?;
        let status = Status::read(variables);
        let text = cursor.rest();
        let charset = || status.client_collation.and_then(|id| collations.charset(id).ok());
        let decoded = match text {
            // Nearly all statements are this one. It has the same bytes in every character set.
            b"BEGIN" => None,
            _ => charset().and_then(|charset| charset.decode(text).ok()),
        };
        let sql = decoded.map_or_else(|| String::from_utf8_lossy(text), Cow::Owned);
        Ok(Self { database, sql, locale: status.locale })
    }
}

/// The status variables of a QUERY event that the parser needs (`Query_event_status_vars`).
#[derive(Default)]
struct Status {
    /// The client's collation.
    client_collation: Option<u64>,
    locale: u64,
}

impl Status {
    /// Reads the variables up to the locale, in the order in which the server writes them. An unknown
    /// variable ends the reading.
    fn read(variables: &[u8]) -> Self {
        let mut status = Self::default();
        // Truncated variables end the reading, too.
        let _ = status.walk(&mut Cursor::new(variables));
        status
    }

    fn walk(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        while !cursor.is_empty() {
            match cursor.u8()? {
                0 | 3 => drop(cursor.take(4)?),
                1 => drop(cursor.take(8)?),
                4 => {
                    self.client_collation = Some(cursor.uint(2)?);
                    cursor.take(4)?;
                }
                5 | 6 => {
                    let length = cursor.u8()?;
                    cursor.take(length.into())?;
                }
                7 => {
                    self.locale = cursor.uint(2)?;
                    break;
                }
                _ => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gtid_event(immediate: &[u8]) -> Vec<u8> {
        let mut body = vec![1];
        body.extend_from_slice(&[0x11; 16]);
        body.extend_from_slice(&7u64.to_le_bytes());
        if !immediate.is_empty() {
            body.push(2);
            body.extend_from_slice(&[0; 16]);
            body.extend_from_slice(immediate);
        }
        body
    }

    #[test]
    fn commit_times_of_every_format() {
        let at = |immediate: &[u8]| Opened::read(&gtid_event(immediate), 5, 1).unwrap().commit_us;
        assert_eq!(at(&[1, 2, 0, 0, 0, 0, 0]), 0x201);
        assert_eq!(at(&[1, 2, 0, 0, 0, 0, 0x80, 9, 0, 0, 0, 0, 0, 0]), 9);
        assert_eq!(at(&[1, 2, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), 0x201);
        assert_eq!(at(&[]), 5_000_000);
        let opened = Opened::read(&gtid_event(&[1; 7]), 5, 3).unwrap();
        assert_eq!(opened.gtid.to_string(), "11111111-1111-1111-1111-111111111111:7");
        assert_eq!(opened.server_id, 3);
    }

    /// The event is one that MySQL 9.7 wrote.
    #[test]
    fn a_tagged_gtid_event_is_read() {
        let body = [
            0x02, 0x72, 0x00, 0x00, 0x00, 0x02, 0xb0, 0x72, 0xb1, 0x03, 0xdd, 0x02, 0xa1, 0x03, 0x7e, 0x22,
            0xc5, 0x03, 0xd5, 0x02, 0xad, 0x03, 0x04, 0xf1, 0x03, 0x00, 0x00, 0x00, 0x02, 0x04, 0x04, 0x06,
            0x08, b'b', b'l', b'u', b'e', 0x08, 0x1c, 0x0a, 0x28, 0x0c, 0x7f, 0x50, 0x8e, 0xb1, 0xf3, 0x0a,
            0x61, 0x06, 0x10, 0x7d, 0x04, 0x12, 0x83, 0x12, 0x0b,
        ];
        let opened = Opened::read_tagged(&body, 5, 3).unwrap();
        assert_eq!(opened.gtid.to_string(), "5839ecb7-e83f-11f1-b5eb-02fc00000001:blue:1");
        assert_eq!((opened.commit_us, opened.server_id), (0x0006_610a_f3b1_8e50, 3));
        // The event up to its immediate commit time, followed by an original one.
        let end = body.len() - 7;
        let mut original = body[..end].to_vec();
        original.extend_from_slice(&[0x0e, 0x54]);
        assert_eq!(Opened::read_tagged(&original, 5, 3).unwrap().commit_us, 42);
        for end in 0..42 {
            let truncated = Opened::read_tagged(&body[..end], 5, 3);
            assert!(truncated.is_err() || truncated.unwrap().commit_us == 5_000_000, "{end}");
        }
    }

    #[test]
    fn statements_are_decoded_by_the_clients_charset() {
        let mut body = vec![0; 8];
        body.extend_from_slice(&[1, 0, 0]);
        let variables =
            [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4, 8, 0, 8, 0, 8, 0];
        body.extend_from_slice(&(variables.len() as u16).to_le_bytes());
        body.extend_from_slice(&variables);
        body.extend_from_slice(b"d\0DROP TABLE \xe9");
        let collations = Collations::new([(8, "latin1".to_owned())]);
        let query = QueryText::read(&body, &collations).unwrap();
        assert_eq!(query, QueryText { database: "d".into(), sql: "DROP TABLE é".into(), locale: 0 });
        for end in 0..45 {
            let _ = QueryText::read(&body[..end.min(body.len())], &collations);
        }
    }

    /// The variables are those that MySQL 9.7 writes for a gateway's session.
    #[test]
    fn the_locale_of_a_session_is_read() {
        let variables =
            b"\x00\x00\x00\x00\x00\x01\x20\x00\xa0\x45\x00\x00\x00\x00\x06\x03std\x04\xff\x00\xff\x00\xff\
                          \x00\x05\x06+00:00\x07\x50\x00\x12\xff\x00";
        assert_eq!(Status::read(variables).locale, 80);
        assert_eq!(Status::read(variables).client_collation, Some(255));
        for end in 0..variables.len() {
            let status = Status::read(&variables[..end]);
            assert!(matches!(status.locale, 0 | 80));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Opened::read(&bytes, 0, 0);
            let _ = Opened::read_tagged(&bytes, 0, 0);
            let _ = QueryText::read(&bytes, &Collations::default());
        }
    }
}
