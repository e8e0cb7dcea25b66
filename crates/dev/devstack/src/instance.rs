//! Instances on disk, complete or not: listing, stopping, removing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::ownership::{MEMBERS, at_once, destroy, names};
use crate::server::{Condition, Server};
use crate::{Apicurio, Cassandra, Debezium, Kafka, Mysql, state};

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
///
/// # Errors
/// If the instances cannot be listed, or a state file cannot be read.
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

/// Stops all servers of instance `name`.
///
/// # Errors
/// If the instance does not exist, or a server cannot be stopped.
pub fn down_instance(name: &str) -> Result<()> {
    let cache = Cache::from_env()?;
    let dir = existing(&cache, name)?;
    cache.with_instance_lock(name, || {
        let servers = servers(&dir)?;
        at_once(servers.iter().map(|server| || server.stop()))
    })
}

/// Kills all servers of instance `name` and deletes its data; false if there is none.
///
/// # Errors
/// If a server cannot be killed, or the data cannot be deleted.
pub fn remove_instance(name: &str) -> Result<bool> {
    let cache = Cache::from_env()?;
    let dir = cache.instance(name)?;
    if !dir.is_dir() {
        return Ok(false);
    }
    cache.with_instance_lock(name, || destroy(&dir))?;
    Ok(true)
}

fn servers(dir: &Path) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for member in MEMBERS {
        let dir = dir.join(member);
        // Only servers that were started once: attaching downloads a missing server.
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

fn existing(cache: &Cache, name: &str) -> Result<PathBuf> {
    let dir = cache.instance(name)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let known = names(cache)?;
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    bail!("there is no instance {name:?} (there are: {known}): start it with `cargo xtask up --name {name}`")
}
