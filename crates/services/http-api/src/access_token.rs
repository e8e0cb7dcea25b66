//! Bearer tokens.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

/// An access token with scopes of type `S`. Only a hash of its secret is kept.
#[derive(Clone)]
pub struct AccessToken<S> {
    name: String,
    hash: [u8; 32],
    scopes: Vec<S>,
}

impl<S> AccessToken<S> {
    /// Creates a token with this name.
    pub fn new(name: impl Into<String>, secret: &str, scopes: Vec<S>) -> Self {
        Self { name: name.into(), hash: Sha256::digest(secret).into(), scopes }
    }

    /// The name of the token, which is not secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the token allows.
    pub fn scopes(&self) -> &[S] {
        &self.scopes
    }
}

impl<S: fmt::Debug> fmt::Debug for AccessToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Finds the token that the `Authorization` header identifies. `section` is the part of the configuration that lists
/// the tokens.
///
/// Returns `None` if no tokens are configured: then every caller may do everything.
///
/// # Errors
///
/// [`Problem::unauthorized`] if the header is missing, has another scheme than `Bearer`, or has an unknown token.
pub fn authenticate<'a, S>(
    tokens: &'a [AccessToken<S>],
    authorization: Option<&[u8]>,
    section: &str,
) -> Result<Option<&'a AccessToken<S>>, Problem> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let secret = authorization.and_then(|value| {
        let (scheme, secret) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    // Comparing hashes leaks nothing about the secret through timing.
    let hash: Option<[u8; 32]> = secret.map(|secret| Sha256::digest(secret).into());
    let known = tokens.iter().find(|token| Some(token.hash) == hash);
    known.map(Some).ok_or_else(|| Problem::unauthorized(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_identifies_the_token() {
        let tokens =
            [AccessToken::new("reader", "r", vec!["read"]), AccessToken::new("nothing", "n", vec![])];
        let with = |header: &str| {
            let found = authenticate(&tokens, Some(header.as_bytes()), "gateway");
            found.map(|token| token.map(|t| (t.name(), t.scopes())))
        };
        assert_eq!(with("Bearer r"), Ok(Some(("reader", &["read"][..]))));
        assert_eq!(with("bEARER n"), Ok(Some(("nothing", &[][..]))));
        for header in ["Bearer x", "Basic r", "r", "Bearer ", "", "Bearer  r"] {
            assert_eq!(with(header), Err(Problem::unauthorized("gateway")), "{header}");
        }
        assert!(authenticate(&tokens, None, "gateway").is_err());
    }

    #[test]
    fn without_configured_tokens_everybody_is_let_in() {
        for header in [None, Some(&b"Bearer x"[..])] {
            assert!(authenticate::<&str>(&[], header, "gateway").unwrap().is_none());
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", AccessToken::new("n", "hush", vec!["read"]));
        assert_eq!(shown, r#"AccessToken { name: "n", scopes: ["read"], .. }"#);
    }
}
