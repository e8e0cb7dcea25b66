//! The bearer tokens of the control API.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// What a token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading the state and the history.
    Read,
    /// Giving orders, which change the phase. It includes reading.
    Operate,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
        })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "operate" => Ok(Self::Operate),
            _ => Err(format!("`{text}` is not a scope: write `read` or `operate`")),
        }
    }
}

/// A token. Only a hash of its secret is kept.
#[derive(Clone)]
pub struct Token {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

impl Token {
    /// Creates a token. The audit trail shows its name.
    pub fn new(name: impl Into<String>, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name: name.into(), hash: Sha256::digest(secret).into(), scopes }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It has no token, or an unknown one.
    Unknown,
    /// Its token lacks this scope.
    Lacks(Scope),
}

/// The caller that the `Authorization` header identifies. Without configured tokens every caller may do everything,
/// as `anybody`.
pub(crate) fn caller<'a>(
    tokens: &'a [Token],
    header: Option<&[u8]>,
    scope: Scope,
) -> Result<&'a str, Denied> {
    if tokens.is_empty() {
        return Ok("anybody");
    }
    let secret = header.and_then(|value| {
        let (scheme, secret) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    // Comparing hashes leaks nothing about the secret through timing.
    let hash: Option<[u8; 32]> = secret.map(|secret| Sha256::digest(secret).into());
    let token = tokens.iter().find(|token| Some(token.hash) == hash).ok_or(Denied::Unknown)?;
    // The scope to operate includes reading.
    let allowed = |has: &Scope| *has == scope || *has == Scope::Operate;
    if token.scopes.iter().any(allowed) { Ok(&token.name) } else { Err(Denied::Lacks(scope)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_permit_what_their_scopes_say() {
        let tokens = [
            Token::new("looker", "l", vec![Scope::Read]),
            Token::new("operator", "o", vec![Scope::Operate]),
            Token::new("nothing", "n", vec![]),
        ];
        let with = |secret: &str, scope| caller(&tokens, Some(format!("Bearer {secret}").as_bytes()), scope);
        assert_eq!(with("l", Scope::Read), Ok("looker"));
        assert_eq!(with("l", Scope::Operate), Err(Denied::Lacks(Scope::Operate)));
        assert_eq!(with("o", Scope::Operate), Ok("operator"));
        assert_eq!(with("o", Scope::Read), Ok("operator"));
        assert_eq!(with("n", Scope::Read), Err(Denied::Lacks(Scope::Read)));
        for header in [None, Some(&b"Bearer x"[..]), Some(b"Basic l"), Some(b"l"), Some(b"Bearer ")] {
            assert_eq!(caller(&tokens, header, Scope::Read), Err(Denied::Unknown));
        }
        assert_eq!(caller(&[], None, Scope::Operate), Ok("anybody"));
        assert!(!format!("{tokens:?}").contains("hash"));
    }
}
