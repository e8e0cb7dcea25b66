//! Instances on disk, whole or partial: listing, stopping, removing, and those of dead owners.
//!
//! Invariant: a folder with an `owner.json` belongs to a process; once that process is dead, its
//! servers are nobody's and [`sweep_orphans`] kills and removes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::process::ProcessId;
use crate::server::{Condition, Server};
use crate::{Apicurio, Cassandra, Debezium, Kafka, Mysql, say, state};

/// Folder names of the servers within an instance, in the order they are shown.
pub(crate) const MEMBERS: [&str; 5] = ["mysql", "kafka", "cassandra", "debezium", "apicurio"];
const OWNER: &str = "owner.json";

/// One row of `cargo xtask status`.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// The instance's name.
    pub instance: String,
    /// "MySQL", "Kafka", "Cassandra", "Debezium" or "Apicurio".
    pub server: &'static str,
    /// Its process, if alive.
    pub pid: Option<u32>,
    /// The port clients use.
    pub port: u16,
    /// Whether it answers.
    pub condition: Condition,
    /// How long its process has been running.
    pub uptime: Option<Duration>,
}

/// All servers of all instances.
pub fn list() -> Result<Vec<ServerStatus>> {
    let cache = Cache::from_env()?;
    let mut rows = Vec::new();
    for name in names(&cache)? {
        for server in servers(&cache.instance(&name)?)? {
            rows.push(ServerStatus {
                instance: name.clone(),
                server: server.name(),
                pid: server.pid(),
                port: server.port(),
                condition: server.condition(),
                uptime: server.uptime(),
            });
        }
    }
    Ok(rows)
}

/// Stops whatever servers instance `name` has; an instance that does not exist is an error.
pub fn down_instance(name: &str) -> Result<()> {
    let cache = Cache::from_env()?;
    let dir = existing(&cache, name)?;
    cache.with_instance_lock(name, || {
        let servers = servers(&dir)?;
        at_once(servers.iter().map(|server| || server.stop()))
    })
}

/// Kills whatever servers instance `name` has and deletes its data; false if there is none.
pub fn remove_instance(name: &str) -> Result<bool> {
    let cache = Cache::from_env()?;
    let dir = cache.instance(name)?;
    if !dir.is_dir() {
        return Ok(false);
    }
    cache.with_instance_lock(name, || destroy(&dir))?;
    Ok(true)
}

/// Kills and removes the ephemeral instances whose owner is dead; returns their names.
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

/// Makes an instance that belongs to this process and holds one server, starts that server in it,
/// and ties the instance's life to it.
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
    let servers = servers(dir)?;
    at_once(servers.iter().map(|server| || server.kill()))?;
    remove_dir(dir)
}

/// Runs tasks in threads of their own; all of them end before the errors are reported.
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

fn servers(dir: &Path) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for member in MEMBERS {
        let dir = dir.join(member);
        // Only what was started once: attaching makes sure of the download.
        if !state::file(&dir).exists() {
            continue;
        }
        let server = match member {
            "mysql" => Mysql::attach(&dir)?.map(Mysql::into_server),
            "kafka" => Kafka::attach(&dir)?.map(Kafka::into_server),
            "cassandra" => Cassandra::attach(&dir)?.map(Cassandra::into_server),
            "debezium" => Debezium::attach(&dir)?.map(Debezium::into_server),
            _ => Apicurio::attach(&dir)?.map(Apicurio::into_server),
        };
        servers.extend(server);
    }
    Ok(servers)
}

fn names(cache: &Cache) -> Result<Vec<String>> {
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

fn existing(cache: &Cache, name: &str) -> Result<PathBuf> {
    let dir = cache.instance(name)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let known = names(cache)?;
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    bail!("there is no instance {name:?} (there are: {known}): start it with `cargo xtask up --name {name}`")
}
