//! The bearer tokens of the control API.

use std::fmt;
use std::str::FromStr;

use tandem_http_api::{AccessToken, Problem, authenticate};

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

impl Scope {
    /// The scope to operate includes reading.
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::Operate
    }
}

/// The name of the caller that the `Authorization` header identifies, if it has the scope. The audit trail shows the
/// name. Without configured tokens every caller may do everything, as `anybody`.
pub(crate) fn caller<'a>(
    tokens: &'a [AccessToken<Scope>],
    header: Option<&[u8]>,
    scope: Scope,
) -> Result<&'a str, Problem> {
    match authenticate(tokens, header, "controller")? {
        None => Ok("anybody"),
        Some(token) if token.scopes().iter().any(|has| has.includes(scope)) => Ok(token.name()),
        Some(_) => Err(Problem::forbidden(scope)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_permit_what_their_scopes_say() {
        let tokens = [
            AccessToken::new("looker", "l", vec![Scope::Read]),
            AccessToken::new("operator", "o", vec![Scope::Operate]),
            AccessToken::new("nothing", "n", vec![]),
        ];
        let with = |secret: &str, scope| caller(&tokens, Some(format!("Bearer {secret}").as_bytes()), scope);
        assert_eq!(with("l", Scope::Read), Ok("looker"));
        assert_eq!(with("l", Scope::Operate), Err(Problem::forbidden(Scope::Operate)));
        assert_eq!(with("o", Scope::Operate), Ok("operator"));
        assert_eq!(with("o", Scope::Read), Ok("operator"));
        assert_eq!(with("n", Scope::Read), Err(Problem::forbidden(Scope::Read)));
        for header in [None, Some(&b"Bearer x"[..]), Some(b"Basic l"), Some(b"l"), Some(b"Bearer ")] {
            assert_eq!(caller(&tokens, header, Scope::Read), Err(Problem::unauthorized("controller")));
        }
        assert_eq!(caller(&[], None, Scope::Operate), Ok("anybody"));
    }
}
