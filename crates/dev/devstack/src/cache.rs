//! The cache folder: downloaded servers under `servers/`, the data of instances under `instances/`.
//!
//! A folder under `servers/` is complete. It is filled under another name and renamed at the end. A file lock
//! keeps two processes from filling it at the same time.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::say;

/// Where downloads and instances are kept: `$TANDEM_CACHE`, or `$HOME/.cache/tandem`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache folder that the environment names.
    ///
    /// # Errors
    /// If neither `TANDEM_CACHE` nor `HOME` is set, or a relative path cannot be resolved.
    pub fn from_env() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = match (set("TANDEM_CACHE"), set("HOME")) {
            (Some(dir), _) => dir,
            (None, Some(home)) => home.join(".cache").join("tandem"),
            (None, None) => bail!("neither TANDEM_CACHE nor HOME is set: set TANDEM_CACHE to a folder"),
        };
        Ok(Self::at(std::path::absolute(&root).with_context(|| format!("resolve {}", root.display()))?))
    }

    /// A cache at a given absolute folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that holds one folder per instance.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The folder of instance `name`.
    ///
    /// # Errors
    /// If the name is not a plain file name.
    pub fn instance(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            bail!("{name:?} is no instance name: use letters, digits, '-', '_' and '.'");
        }
        Ok(self.instances().join(name))
    }

    /// `servers/<name>`. `fill` fills it if it is missing. It is never touched again, so nothing is
    /// downloaded twice.
    pub(crate) fn ensure(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let servers = self.root.join("servers");
        let complete = servers.join(name);
        if complete.is_dir() {
            return Ok(complete);
        }
        make_dir(&servers)?;
        let fetched = with_lock(&servers.join(format!(".{name}.lock")), &format!("fetching {name}"), || {
            if complete.is_dir() {
                return Ok(());
            }
            let partial = servers.join(format!(".{name}.partial"));
            remove_dir(&partial)?; // a killed process left it, as this one holds the lock
            make_dir(&partial)?;
            fill(&partial)?;
            fs::rename(&partial, &complete)
                .with_context(|| format!("rename {} to {}", partial.display(), complete.display()))
        });
        fetched.with_context(|| format!("cannot provide {name} in {}", servers.display()))?;
        Ok(complete)
    }

    /// Runs `work` under the lock of instance `name`.
    pub(crate) fn with_instance_lock<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let locks = self.instances().join(".locks");
        make_dir(&locks)?;
        with_lock(&locks.join(name), &format!("working on instance {name}"), work)
    }
}

/// Runs `work` under an exclusive lock on `path`. A missing file is created.
pub(crate) fn with_lock<T>(path: &Path, doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let file: File = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("open lock file {}", path.display()))?;
    if file.try_lock().is_err() {
        say(&format!("another process is {doing}: waiting"));
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    let result = work();
    drop(file); // releases the lock
    result
}

/// `create_dir_all` with the path in the error.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create folder {}", path.display()))
}

/// `remove_dir_all`, for which a missing folder is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove folder {}", path.display()))
        }
        _ => Ok(()),
    }
}
