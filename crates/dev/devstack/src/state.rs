//! The state of a server, in `state.json` beside its data.
//!
//! The file is replaced by a rename, so a reader sees the old state or the new one, never a part. `process`
//! is the last process started. Only the kernel knows whether it still lives.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// The contents of `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// The server's ports; the first is the one clients use.
    pub(crate) ports: Vec<u16>,
    /// The last process started.
    pub(crate) process: Option<ProcessId>,
    /// When it was started, in seconds since 1970.
    pub(crate) started_at: u64,
    /// Arguments beyond the built-in ones.
    pub(crate) extra_args: Vec<String>,
}

impl State {
    /// Reads the state of the server in `dir`; `None` if it was never started.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = file(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| {
            format!("{} is damaged: remove the folder {} and start afresh", path.display(), dir.display())
        })
    }

    /// Writes it atomically.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let (path, new) = (file(dir), dir.join("state.json.new"));
        let text = serde_json::to_string_pretty(self).context("write a state as JSON")?;
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }
}

/// Path of the state file of the server in `dir`.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let state = State {
            ports: vec![15001, 15002],
            process: Some(ProcessId { pid: 7, start_ticks: 99 }),
            started_at: now(),
            extra_args: vec!["--x=1".to_owned()],
        };
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        assert!(!dir.path().join("state.json.new").exists());
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path()), "{\"ports\": [1").unwrap();
        let error = format!("{:#}", State::load(dir.path()).unwrap_err());
        assert!(error.contains("is damaged: remove the folder"), "{error}");
    }
}
