//! Bearer tokens and what they allow.

use std::fmt;
use std::str::FromStr;

use tandem_http_api::{AccessToken, Problem, authenticate};

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

impl Scope {
    /// The entity that the scope names. `None` for every entity.
    pub(crate) fn entity(&self) -> Option<&str> {
        (self.entity != "*").then_some(&self.entity)
    }

    fn allows(&self, access: Access, entity: &str) -> bool {
        self.access == access && self.entity().is_none_or(|named| named == entity)
    }
}

/// The sender of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a>(Option<&'a AccessToken<Scope>>);

impl<'a> Caller<'a> {
    /// The name of its token. Empty where no tokens are configured.
    pub(crate) fn name(self) -> &'a str {
        self.0.map_or("", AccessToken::name)
    }

    /// Checks that the caller may write some entity.
    pub(crate) fn may_write_something(self) -> Result<(), Problem> {
        match self.0 {
            Some(token) if !token.scopes().iter().any(|scope| scope.access == Access::Write) => {
                Err(Problem::forbidden("*:write"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the caller has this access to the entity.
    pub(crate) fn may(self, access: Access, entity: &str) -> Result<(), Problem> {
        match self.0 {
            Some(token) if !token.scopes().iter().any(|scope| scope.allows(access, entity)) => {
                Err(Problem::forbidden(format!("{entity}:{access}")))
            }
            _ => Ok(()),
        }
    }
}

/// The caller that the `Authorization` header identifies. Without configured tokens every caller may do everything.
pub(crate) fn caller<'a>(
    tokens: &'a [AccessToken<Scope>],
    header: Option<&[u8]>,
) -> Result<Caller<'a>, Problem> {
    Ok(Caller(authenticate(tokens, header, "gateway")?))
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
        assert!(reader.may_write_something().is_err());
        let app = with("a").unwrap();
        assert!(app.may_write_something().is_ok());
        assert!(app.may(Access::Write, "order").is_ok());
        assert!(app.may(Access::Write, "invoice").is_err() && app.may(Access::Read, "order").is_err());
        for header in [None, Some(&b"Bearer x"[..]), Some(b"Basic r"), Some(b"r"), Some(b"Bearer ")] {
            assert_eq!(caller(&tokens, header).unwrap_err().status.as_u16(), 401);
        }
        assert!(caller(&[], None).unwrap().may(Access::Write, "order").is_ok());
    }

    #[test]
    fn invalid_scopes_are_rejected() {
        for text in ["", "order", ":read", "order:delete"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
