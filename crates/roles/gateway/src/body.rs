//! Request bodies: JSON objects whose numbers keep every digit.
//!
//! What a body costs is linear in its length, and is bounded before a value is parsed: by its depth, by the members of
//! an object, and by the elements of a list.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use tandem_http_api::Problem;

/// The greatest depth of a body. A batch has four levels: itself, its operations, one of them, and its values.
const MAX_DEPTH: usize = 8;
/// The most members of an object: MySQL's limit for the columns of a table.
const MAX_MEMBERS: usize = 4096;

/// The most characters of an error, which may name what it did not expect.
const MAX_ERROR: usize = 200;

/// A JSON object whose values are kept as text.
///
/// A repeated name is rejected, because JSON parsers disagree on which of the values counts.
#[derive(Debug, Default)]
pub(crate) struct Object(pub(crate) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if names.len() == MAX_MEMBERS {
                        return Err(A::Error::custom(format!("an object has more than {MAX_MEMBERS} names")));
                    }
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a name is repeated"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A list of at most `N` elements. The parser stops at the first element beyond them.
#[derive(Debug)]
pub(crate) struct Bounded<T, const N: usize>(pub(crate) Vec<T>);

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T, N>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == N {
                        return Err(A::Error::custom(format!("a list has more than {N} elements")));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// Parses a body. The error does not repeat the body's content.
pub(crate) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    if is_deeper(body, MAX_DEPTH) {
        return Err(Problem::bad_request(format!("the body is nested deeper than {MAX_DEPTH} levels")));
    }
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                let error: String = error.to_string().chars().take(MAX_ERROR).collect();
                format!("does not have the expected form: {error}")
            }
            serde_json::error::Category::Eof => "ends too early".to_owned(),
            _ => format!("is not JSON at line {line}, column {column}"),
        };
        Problem::bad_request(format!("the body {what}"))
    })
}

/// Whether the lists and objects of a JSON text are nested deeper than `limit`. Malformed text may count as either.
fn is_deeper(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept() {
        let object: Object = parse(b"{\"a\": 12345678901234567890.10, \"b\": null}").unwrap();
        let members: Vec<_> = object.0.iter().map(|(name, raw)| (name.as_str(), raw.get())).collect();
        assert_eq!(members, [("a", "12345678901234567890.10"), ("b", "null")]);
    }

    #[test]
    fn malformed_bodies_are_bad_requests() {
        let deep = ["[".repeat(100_000), "{\"a\":".to_owned() + &"[".repeat(100_000)];
        for body in
            ["", "[]", "5", "{", "{\"a\":1,\"a\":2}", "{\"a\":}", "nul", "\u{feff}{}", &deep[0], &deep[1]]
        {
            assert_eq!(parse::<Object>(body.as_bytes()).unwrap_err().status.as_u16(), 400);
        }
        assert!(parse::<Object>(b"{\"\xff\":1}").is_err());
    }

    #[test]
    fn depth_counts_outside_strings_only() {
        let brackets = "[".repeat(MAX_DEPTH * 2);
        let text = format!(r#"{{"a": "{brackets}\"{brackets}", "b\\": 1}}"#);
        assert!(parse::<Object>(text.as_bytes()).is_ok());
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_deeper(nested(MAX_DEPTH).as_bytes(), MAX_DEPTH));
        assert!(is_deeper(nested(MAX_DEPTH + 1).as_bytes(), MAX_DEPTH));
        // Neighbours are not nested.
        assert!(!is_deeper("[[]],".repeat(100).as_bytes(), 2));
    }

    #[test]
    fn objects_and_lists_are_bounded() {
        let members = |count: usize| {
            let members: Vec<String> = (0..count).map(|n| format!("\"c{n}\":{n}")).collect();
            parse::<Object>(format!("{{{}}}", members.join(",")).as_bytes())
        };
        assert_eq!(members(MAX_MEMBERS).unwrap().0.len(), MAX_MEMBERS);
        assert!(members(MAX_MEMBERS + 1).unwrap_err().detail.contains("4096 names"));
        assert_eq!(parse::<Bounded<u8, 3>>(b"[1,2,3]").unwrap().0, [1, 2, 3]);
        assert!(parse::<Bounded<u8, 3>>(b"[1,2,3,4]").is_err());
    }
}
