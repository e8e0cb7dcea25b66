//! Request bodies: JSON objects whose numbers keep every digit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use tandem_http_api::Problem;

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
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a name is repeated"));
                    }
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Parses a body. The error does not repeat the body's content.
pub(crate) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => format!("does not have the expected form: {error}"),
            serde_json::error::Category::Eof => "ends too early".to_owned(),
            _ => format!("is not JSON at line {line}, column {column}"),
        };
        Problem::bad_request(format!("the body {what}"))
    })
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
}
