//! Prints MySQL's binary JSON (`sql-common/json_binary.h`) as text.
//!
//! The text is exactly the text that a SELECT returns. So the binlog and a read agree, and nobody has to
//! parse JSON.

use std::fmt::Write as _;

use tandem_wire::cell;

use crate::cursor::{Cursor, Malformed};
use crate::types::decimal::DecimalForm;
use crate::types::json_number::put_double;
use crate::types::temporal::DateTimeFields;

/// The maximum depth of a document. MySQL refuses deeper ones.
const DEPTH: u32 = 100;

/// Writes a document as a text cell.
pub(crate) fn put(document: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    cell::bytes(out, text(document)?.as_bytes());
    Ok(())
}

/// The text of a document. MySQL reads an empty document (INSERT IGNORE of NULL) as `null`.
fn text(document: &[u8]) -> Result<String, Malformed> {
    let Some((&kind, body)) = document.split_first() else {
        return Ok("null".into());
    };
    // Each value takes at least one byte. So this limit also ends a damaged document whose values refer to
    // each other.
    let mut printer = Printer { out: String::with_capacity(document.len() * 2), left: document.len() };
    printer.value(kind, body, 0)?;
    Ok(printer.out)
}

struct Printer {
    out: String,
    /// The number of values that may still come.
    left: usize,
}

impl Printer {
    /// Prints a value of this type. It starts at the first byte of `body`.
    fn value(&mut self, kind: u8, body: &[u8], depth: u32) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(1).ok_or("the JSON has more values than bytes")?;
        let mut cursor = Cursor::new(body);
        match kind {
            0..=3 if depth > DEPTH => return Err("the JSON is nested too deep".into()),
            0 | 1 => self.container(body, Widths::of(kind == 1), true, depth)?,
            2 | 3 => self.container(body, Widths::of(kind == 3), false, depth)?,
            4 => self.out.push_str(match cursor.u8()? {
                0 => "null",
                1 => "true",
                2 => "false",
                _ => return Err("the JSON holds an unknown literal".into()),
            }),
            5 => self.display(cursor.int(2)?),
            6 => self.display(cursor.uint(2)?),
            7 => self.display(cursor.int(4)?),
            8 => self.display(cursor.uint(4)?),
            9 => self.display(cursor.int(8)?),
            10 => self.display(cursor.uint(8)?),
            11 => put_double(&mut self.out, cursor.f64()?),
            12 => {
                let length = variable_length(&mut cursor)?;
                self.string(cursor.take(length)?)?;
            }
            15 => {
                let field_type = cursor.u8()?;
                let length = variable_length(&mut cursor)?;
                self.opaque(field_type, cursor.take(length)?)?;
            }
            other => return Err(format!("the JSON holds a value of the unknown type {other}")),
        }
        Ok(())
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
    }

    /// Prints an object or array.
    ///
    /// It holds the number of elements and its size in bytes, for an object the offsets and lengths of its
    /// keys, and then for each element its type with its offset, or with its value if that is small enough.
    fn container(&mut self, body: &[u8], widths: Widths, keyed: bool, depth: u32) -> Result<(), Malformed> {
        let mut head = Cursor::new(body);
        let count = head.uint(widths.offset)?;
        let size = head.uint(widths.offset)? as usize;
        let body = body.get(..size).ok_or("the JSON holds an object or array that ends after it")?;
        let mut head = Cursor::new(body);
        head.take(2 * widths.offset)?;
        let mut keys = if keyed {
            let entries = (widths.offset + 2).checked_mul(count as usize);
            Cursor::new(head.take(entries.ok_or("the JSON holds an object of an impossible size")?)?)
        } else {
            Cursor::new(&[])
        };
        self.out.push(if keyed { '{' } else { '[' });
        for i in 0..count {
            if i > 0 {
                self.out.push_str(", ");
            }
            if keyed {
                let (at, length) = (keys.uint(widths.offset)? as usize, keys.uint(2)? as usize);
                let key = body.get(at..).and_then(|rest| rest.get(..length));
                self.string(key.ok_or("the JSON holds a key outside its object")?)?;
                self.out.push_str(": ");
            }
            let kind = head.u8()?;
            let entry = head.take(widths.offset)?;
            if widths.inlines(kind) {
                self.value(kind, entry, depth + 1)?;
            } else {
                let at = Cursor::new(entry).uint(widths.offset)? as usize;
                let value = body.get(at..).ok_or("the JSON holds a value outside its object or array")?;
                self.value(kind, value, depth + 1)?;
            }
        }
        self.out.push(if keyed { '}' } else { ']' });
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the JSON holds text that is no valid UTF-8")?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c if c < ' ' => {
                    let _ = write!(self.out, "\\u{:04x}", u32::from(c));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }

    /// Prints a value of an SQL type (`enum_field_types`), encoded as in a column.
    fn opaque(&mut self, field_type: u8, bytes: &[u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(bytes);
        match field_type {
            246 => {
                let (precision, scale) = (cursor.u8()?, cursor.u8()?);
                let decimal = DecimalForm::new(precision, scale)?.read(&mut cursor)?;
                self.display(decimal);
            }
            // DATE, DATETIME and TIMESTAMP, all packed in the same way, and TIME.
            10 => self.moment(&DateTimeFields::from_packed(cursor.int(8)?)?.text(None).as_str()),
            7 | 12 => self.moment(&DateTimeFields::from_packed(cursor.int(8)?)?.text(Some(6)).as_str()),
            11 => {
                let packed = cursor.int(8)?;
                let (sign, magnitude) = (if packed < 0 { "-" } else { "" }, packed.unsigned_abs());
                let (whole, micros) = (magnitude >> 24, magnitude & 0xff_ffff);
                let (hour, minute, second) = (whole >> 12 & 0x3ff, whole >> 6 & 63, whole & 63);
                self.moment(&format_args!("{sign}{hour:02}:{minute:02}:{second:02}.{micros:06}"));
            }
            other => {
                let _ = write!(self.out, "\"base64:type{other}:");
                put_base64(&mut self.out, bytes);
                self.out.push('"');
            }
        }
        Ok(())
    }

    fn moment(&mut self, text: &dyn std::fmt::Display) {
        let _ = write!(self.out, "\"{text}\"");
    }
}

/// The sizes of the numbers in an object or array.
#[derive(Clone, Copy)]
struct Widths {
    offset: usize,
}

impl Widths {
    fn of(large: bool) -> Self {
        Self { offset: if large { 4 } else { 2 } }
    }

    /// Whether a value of this type is stored in the entry itself.
    fn inlines(self, kind: u8) -> bool {
        matches!(kind, 4..=6) || self.offset == 4 && matches!(kind, 7 | 8)
    }
}

/// Reads a variable-length number: seven bits per byte, the lowest first. A set highest bit means that more
/// follow.
fn variable_length(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
    let mut length = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = cursor.u8()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err("the JSON holds a length that is none".into())
}

/// Prints base64 in MySQL's lines of 76 characters. JSON escapes the line ends.
fn put_base64(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (i, chunk) in bytes.chunks(3).enumerate() {
        if i > 0 && i % 19 == 0 {
            out.push_str("\\n");
        }
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_handwritten_document_is_printed() {
        // {"a": [1, "x"], "bb": true}
        let array = [2, 0, 12, 0, 5, 1, 0, 12, 10, 0, 1, b'x'];
        let document =
            [&[0, 2, 0, 33, 0, 18, 0, 1, 0, 19, 0, 2, 0, 2, 21, 0, 4, 1, 0, b'a', b'b', b'b'][..], &array]
                .concat();
        assert_eq!(text(&document).unwrap(), r#"{"a": [1, "x"], "bb": true}"#);
        assert_eq!(text(&[]).unwrap(), "null");
        for end in 1..document.len() {
            assert!(text(&document[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn values_that_refer_to_each_other_come_to_an_end() {
        // An array of four elements, each of which is the array itself.
        let entry = [2, 0, 0];
        let document = [&[2, 4, 0, 16, 0][..], &entry, &entry, &entry, &entry].concat();
        assert!(text(&document).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text(&bytes);
        }
    }
}
