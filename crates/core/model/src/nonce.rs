//! Nonces: the identities of requests.

use std::fmt;

/// The identity of one request. A retry of the request has the same nonce, and no other request has it.
///
/// Its text has the form of a UUID, in which every tool can look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u128);

impl Nonce {
    /// Reads the text that `Display` writes. `None` if it is another text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.split('-').collect();
        let nonce = Self(u128::from_str_radix(&digits, 16).ok()?);
        (nonce.to_string() == text).then_some(nonce)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
        f.write_str(&parts.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_written_as_a_uuid() {
        let nonce = Nonce(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(nonce.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        for nonce in [nonce, Nonce(0), Nonce(u128::MAX)] {
            assert_eq!(Nonce::parse(&nonce.to_string()), Some(nonce));
        }
        for bad in ["", "1", "0123456789abcdef0123456789abcdef", "01234567-89AB-cdef-0123-456789abcdef"] {
            assert_eq!(Nonce::parse(bad), None, "{bad}");
        }
    }
}
