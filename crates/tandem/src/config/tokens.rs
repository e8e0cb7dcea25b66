//! `[[gateway.token]]` and `[[controller.token]]`: the access tokens of an HTTP API.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tandem_http_api::AccessToken;

use crate::config::secret::Secret;

/// The shortest secret, in bytes.
const MIN_SECRET: usize = 16;

/// An access token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSection {
    name: String,
    secret: Secret,
    scopes: Vec<String>,
}

/// The tokens of the API of `section`, with its type of scopes.
pub(crate) fn access_tokens<S: FromStr<Err = String>>(
    section: &str,
    tokens: &[TokenSection],
) -> Result<Vec<AccessToken<S>>> {
    let token = |token: &TokenSection| {
        let of = || format!("[[{section}.token]] name = {:?}", token.name);
        let scopes: Result<Vec<S>, String> = token.scopes.iter().map(|scope| scope.parse()).collect();
        let scopes = scopes.map_err(anyhow::Error::msg).with_context(of)?;
        let secret = token.secret.reveal().with_context(of)?;
        if secret.len() < MIN_SECRET {
            bail!("{}: its secret has fewer than {MIN_SECRET} bytes", of());
        }
        Ok(AccessToken::new(&token.name, &secret, scopes))
    };
    tokens.iter().map(token).collect()
}
