//! Secrets, which are kept outside of the configuration file.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The place of a secret: `env:NAME` or `file:PATH`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret at `place`: `env:NAME` or `file:PATH`.
    pub(crate) fn at(place: &str) -> Self {
        Self(place.to_owned())
    }

    /// Reads the secret. The last line break of a file is not part of it.
    pub(crate) fn reveal(&self) -> Result<String> {
        if let Some(name) = self.0.strip_prefix("env:") {
            return std::env::var(name).with_context(|| format!("the environment variable {name}"));
        }
        if let Some(path) = self.0.strip_prefix("file:") {
            let text = std::fs::read_to_string(path).with_context(|| format!("the file {path}"))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
        }
        bail!("a secret must not be in the configuration file: write \"env:NAME\" or \"file:PATH\"")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_break_of_a_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "hush\r\n").unwrap();
        assert_eq!(Secret(format!("file:{}", path.display())).reveal().unwrap(), "hush");
    }

    #[test]
    fn a_plain_value_is_rejected_and_not_repeated() {
        let error = Secret("hush".into()).reveal().unwrap_err().to_string();
        assert!(error.contains("env:NAME") && !error.contains("hush"));
        assert!(!format!("{:?}", Secret("hush".into())).contains("hush"));
    }

    #[test]
    fn a_missing_secret_is_named() {
        let env = format!("{:#}", Secret("env:TANDEM_NO_SUCH".into()).reveal().unwrap_err());
        assert!(env.contains("TANDEM_NO_SUCH"));
        let file = format!("{:#}", Secret("file:/no/such".into()).reveal().unwrap_err());
        assert!(file.contains("/no/such"));
    }
}
