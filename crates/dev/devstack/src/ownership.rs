//! Instances that belong to a process, and the removal of an instance with all its servers.
//!
//! A folder with an `owner.json` belongs to a process. Once that process is dead, [`sweep_orphans`] kills the
//! servers and removes the folder. Killing needs only the state files, so nothing is downloaded for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::cache::{Cache, make_dir, remove_dir};
use crate::process::ProcessId;
use crate::server::{KILL_DEADLINE, Server};
use crate::state::State;
use crate::{say, socket};

/// Folder names of the servers of an instance, in the order of their listing.
pub(crate) const MEMBERS: [&str; 5] = ["mysql", "kafka", "cassandra", "debezium", "apicurio"];
const OWNER: &str = "owner.json";

/// Kills and removes the ephemeral instances whose owner is dead. Returns their names.
///
/// # Errors
/// If the instances cannot be listed, or a server of one cannot be killed or removed.
pub fn sweep_orphans() -> Result<Vec<String>> {
    let cache = Cache::from_env()?;
    let mut swept = Vec::new();
    for name in names(&cache)? {
        let dir = cache.instance(&name)?;
        let Ok(text) = fs::read_to_string(dir.join(OWNER)) else { continue };
        let Ok(owner) = serde_json::from_str::<ProcessId>(&text) else { continue };
        if !owner.is_alive() {
            say(&format!("removing {name}: the process that made it is gone"));
            cache.with_instance_lock(&name, || destroy(&dir))?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// Makes an instance that belongs to this process, and starts one server in it. The instance ends with the
/// server.
pub(crate) fn ephemeral<T>(
    member: &str,
    start: impl FnOnce(&Path) -> Result<T>,
    server: impl FnOnce(&mut T) -> &mut Server,
) -> Result<T> {
    let dir = own_instance(&Cache::from_env()?, member)?;
    match start(&dir.join(member)) {
        Ok(mut started) => {
            server(&mut started).make_ephemeral(dir);
            Ok(started)
        }
        Err(e) => {
            destroy(&dir)?;
            Err(e)
        }
    }
}

/// A new instance folder, named after `name`, that belongs to this process.
pub(crate) fn own_instance(cache: &Cache, name: &str) -> Result<PathBuf> {
    sweep_orphans()?;
    let unique = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let dir = cache.instance(&format!("{name}-{unique}"))?;
    make_dir(&dir)?;
    let owner = ProcessId::current().context("read /proc/self")?;
    let text = serde_json::to_string(&owner).context("write an owner as JSON")?;
    fs::write(dir.join(OWNER), text).with_context(|| format!("write into {}", dir.display()))?;
    Ok(dir)
}

/// Kills the servers in an instance's folder and deletes it.
pub(crate) fn destroy(dir: &Path) -> Result<()> {
    at_once(MEMBERS.map(|member| dir.join(member)).iter().map(|dir| || kill(dir)))?;
    remove_dir(dir)
}

/// Kills the server whose state is in `dir`, if there is one.
fn kill(dir: &Path) -> Result<()> {
    let Some(process) = State::load(dir)?.and_then(|state| state.process) else { return Ok(()) };
    process.signal(Signal::SIGKILL)?;
    if !process.wait_gone(KILL_DEADLINE) {
        bail!("process {} of {} does not die even by SIGKILL", process.pid, dir.display());
    }
    socket::remove(dir);
    Ok(())
}

/// Runs tasks in threads of their own. Waits for all of them before it reports errors.
pub(crate) fn at_once<F>(tasks: impl Iterator<Item = F>) -> Result<()>
where
    F: FnOnce() -> Result<()> + Send,
{
    let errors: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = tasks.map(|task| scope.spawn(task)).collect();
        threads
            .into_iter()
            .filter_map(|thread| match thread.join() {
                Ok(result) => result.err().map(|e| format!("{e:#}")),
                Err(_) => Some("a thread of devstack panicked".to_owned()),
            })
            .collect()
    });
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
}

/// The names of all instances, sorted.
pub(crate) fn names(cache: &Cache) -> Result<Vec<String>> {
    let dir = cache.instances();
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().is_dir())
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| cache.instance(name).is_ok())
        .collect();
    names.sort();
    Ok(names)
}
