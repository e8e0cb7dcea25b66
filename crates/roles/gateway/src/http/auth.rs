//! Bearer tokens and what they allow.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

/// The kind of access that a request needs to an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read access.
    Read,
    /// Write access.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// A scope, written `ENTITY:read` or `ENTITY:write`. `*` stands for every entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    entity: String,
    access: Access,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let access = match text.rsplit_once(':') {
            Some((entity, "read")) if !entity.is_empty() => Some((entity, Access::Read)),
            Some((entity, "write")) if !entity.is_empty() => Some((entity, Access::Write)),
            _ => None,
        };
        let (entity, access) = access.ok_or_else(|| {
            format!("`{text}` is not a scope: write ENTITY:read, ENTITY:write, or * as ENTITY")
        })?;
        Ok(Self { entity: entity.to_owned(), access })
    }
}

/// An access token. Only a hash of its secret is kept.
#[derive(Clone)]
pub struct AccessToken {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

impl AccessToken {
    /// Creates a token with this name.
    pub fn new(name: impl Into<String>, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name: name.into(), hash: Sha256::digest(secret).into(), scopes }
    }

    /// The entities that its scopes name.
    pub fn entities(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| scope.entity.as_str()).filter(|entity| *entity != "*")
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// The sender of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a>(Option<&'a AccessToken>);

impl<'a> Caller<'a> {
    /// The name of its token. Empty where no tokens are configured.
    pub(crate) fn name(self) -> &'a str {
        self.0.map_or("", |token| &token.name)
    }

    /// Checks that the caller has this access to the entity.
    pub(crate) fn may(self, access: Access, entity: &str) -> Result<(), Problem> {
        let allowed =
            |scope: &Scope| scope.access == access && (scope.entity == "*" || scope.entity == entity);
        match self.0 {
            Some(token) if !token.scopes.iter().any(allowed) => {
                Err(Problem::forbidden(&format!("{entity}:{access}")))
            }
            _ => Ok(()),
        }
    }
}

/// The caller that the `Authorization` header identifies. Without configured tokens every caller may do everything.
pub(crate) fn caller<'a>(tokens: &'a [AccessToken], header: Option<&[u8]>) -> Result<Caller<'a>, Problem> {
    if tokens.is_empty() {
        return Ok(Caller(None));
    }
    let secret = header.and_then(|value| {
        let (scheme, secret) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    // Comparing hashes leaks nothing about the secret through timing.
    let hash: Option<[u8; 32]> = secret.map(|secret| Sha256::digest(secret).into());
    let known = tokens.iter().find(|token| Some(token.hash) == hash);
    known.map(|token| Caller(Some(token))).ok_or_else(Problem::unauthorized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_per_entity_and_access() {
        let scopes = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Scope>>();
        let tokens = [
            AccessToken::new("reader", "r", scopes(&["*:read"])),
            AccessToken::new("app", "a", scopes(&["order:write"])),
        ];
        let with = |secret: &str| caller(&tokens, Some(format!("Bearer {secret}").as_bytes()));
        let reader = with("r").unwrap();
        assert_eq!(reader.name(), "reader");
        assert!(reader.may(Access::Read, "order").is_ok() && reader.may(Access::Write, "order").is_err());
        let app = with("a").unwrap();
        assert!(app.may(Access::Write, "order").is_ok());
        assert!(app.may(Access::Write, "invoice").is_err() && app.may(Access::Read, "order").is_err());
        for header in [None, Some(&b"Bearer x"[..]), Some(b"Basic r"), Some(b"r"), Some(b"Bearer ")] {
            assert_eq!(caller(&tokens, header).unwrap_err().status.as_u16(), 401);
        }
        assert!(caller(&[], None).unwrap().may(Access::Write, "order").is_ok());
    }

    #[test]
    fn invalid_scopes_are_rejected_and_secrets_are_not_shown() {
        for text in ["", "order", ":read", "order:delete"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
        assert!(!format!("{:?}", AccessToken::new("n", "hush", vec![])).contains("hush"));
    }
}
