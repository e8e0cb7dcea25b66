//! Cassandra: one node, 16 tokens.
//!
//! Ready means that the native protocol answers. The node opens it last. The commit log is synced
//! periodically, as Cassandra ships. A killed process loses no acknowledged write, because the operating
//! system has it. A power failure may lose some.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::probe::connect;
use crate::server::{Recipe, Server};
use crate::{maven, ownership, tools};

const VERSION: &str = "5.0.9";
const DEADLINE: Duration = Duration::from_mins(4);
const JVM_OPTIONS: &str = include_str!("../resources/cassandra-java17.options");
const LOGBACK: &str = include_str!("../resources/cassandra-logback.xml");

/// Options of a Cassandra node.
#[derive(Debug, Clone)]
pub struct CassandraOptions {
    /// Java's heap, as `-Xmx` takes it.
    pub heap: String,
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self { heap: "1g".to_owned() }
    }
}

/// A Cassandra node; see [`Server`] for its life.
#[derive(Debug)]
pub struct Cassandra {
    server: Server,
    home: PathBuf,
}

impl Deref for Cassandra {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Cassandra {
    /// Starts the Cassandra in `dir`, or finds it running there. A missing folder is created.
    ///
    /// # Errors
    /// If Cassandra cannot be downloaded, configured or started, or does not answer within 4 minutes.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &CassandraOptions::default())
    }

    fn start_with(dir: &Path, options: &CassandraOptions) -> Result<Self> {
        let home = ensure(&Cache::from_env()?)?;
        let recipe = CassandraRecipe { home: home.clone(), heap: options.heap.clone() };
        Ok(Self { server: Server::start(Box::new(recipe), dir)?, home })
    }

    /// Starts a new Cassandra that is killed and removed on drop.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral() -> Result<Self> {
        Self::ephemeral_with(&CassandraOptions::default())
    }

    /// The same, with these options.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral_with(options: &CassandraOptions) -> Result<Self> {
        ownership::ephemeral("cassandra", |dir| Self::start_with(dir, options), |this| &mut this.server)
    }

    /// The Cassandra whose state is in `dir`, running or not; `None` if there is none.
    ///
    /// # Errors
    /// If the state file cannot be read, or Cassandra cannot be downloaded.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let home = ensure(&Cache::from_env()?)?;
        let recipe = CassandraRecipe { home: home.clone(), heap: CassandraOptions::default().heap };
        let attached = Server::attach(Box::new(recipe), dir)?;
        Ok(attached.map(|server| Self { server, home }))
    }

    /// `127.0.0.1:PORT` of the native protocol.
    pub fn node(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// A command that runs `nodetool` against this node, such as `flush` or `compact`.
    ///
    /// # Errors
    /// If Cassandra or Java 17 is missing and cannot be installed.
    pub fn nodetool(&self, args: &[&str]) -> Result<Command> {
        let jmx = self.ports().get(2).copied().unwrap_or_default().to_string();
        let mut command = java(&self.home, self.dir())?;
        command.args(JVM_OPTIONS.lines().filter(|l| l.starts_with("--")));
        command.arg(yaml_property(self.dir())).arg(logback_property(self.dir()));
        command.args(["-Xmx128m", "org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p", &jmx]);
        command.args(args);
        Ok(command)
    }

    pub(crate) fn into_server(self) -> Server {
        self.server
    }
}

pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    cache.ensure(&format!("cassandra-{VERSION}"), |dir| {
        let artifacts = [("org.apache.cassandra", "cassandra-all", VERSION)];
        maven::fetch_jars(dir, &format!("Cassandra {VERSION} (66 MB)"), &artifacts)
    })
}

fn java(home: &Path, dir: &Path) -> Result<Command> {
    tools::java_command(&home.join("libs"), &dir.join("tmp"))
}

/// The property that names the configuration. Cassandra expects a URL.
fn yaml_property(dir: &Path) -> String {
    let mut property = "-Dcassandra.config=file://".to_owned();
    for &byte in dir.join("cassandra.yaml").as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            property.push(char::from(byte));
        } else {
            let _ = write!(property, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    property
}

fn logback_property(dir: &Path) -> String {
    format!("-Dlogback.configurationFile={}", dir.join("logback.xml").display())
}

struct CassandraRecipe {
    home: PathBuf,
    heap: String,
}

impl Recipe for CassandraRecipe {
    fn name(&self) -> &'static str {
        "Cassandra"
    }

    fn ports(&self) -> usize {
        3
    }

    fn prepare(&self, dir: &Path, ports: &[u16]) -> Result<()> {
        remove_dir(&dir.join("tmp"))?;
        make_dir(&dir.join("tmp"))?;
        let yaml = yaml(&dir.join("data"), ports[0], ports[1])?;
        fs::write(dir.join("cassandra.yaml"), yaml).context("write cassandra.yaml")?;
        fs::write(dir.join("logback.xml"), LOGBACK).context("write logback.xml")
    }

    fn command(&self, dir: &Path, ports: &[u16]) -> Result<Command> {
        let mut command = java(&self.home, dir)?;
        command.args(JVM_OPTIONS.lines().filter(|l| l.starts_with("--")));
        command.arg(format!("-Xmx{}", self.heap)).args([
            "-Xms512m",
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
        ]);
        command.args(["-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.ring_delay_ms=100"]);
        command.arg(yaml_property(dir));
        command.arg(format!("-Dcassandra.storagedir={}", dir.join("data").display()));
        command.arg(logback_property(dir));
        command.arg(format!("-Dcassandra.jmx.local.port={}", ports[2]));
        command.arg("org.apache.cassandra.service.CassandraDaemon");
        Ok(command)
    }

    fn probe(&self, _dir: &Path, ports: &[u16]) -> Result<()> {
        const OPTIONS: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0]; // version 4, stream 0, no body
        const RESPONSE: u8 = 0x84;
        const SUPPORTED: u8 = 6;
        let mut socket = connect(ports[0])?;
        socket.write_all(&OPTIONS).context("send OPTIONS")?;
        let mut head = [0; 9];
        socket.read_exact(&mut head).context("no answer to OPTIONS")?;
        if (head[0], head[4]) != (RESPONSE, SUPPORTED) {
            bail!("Cassandra answered OPTIONS with {head:?}");
        }
        Ok(())
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}

fn yaml(data: &Path, native: u16, storage: u16) -> Result<String> {
    let path = |name: &str| -> Result<String> {
        let path = data.join(name);
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        serde_json::to_string(text).context("quote a path") // a JSON string is a YAML string
    };
    Ok(format!(
        "cluster_name: tandem\n\
         num_tokens: 16\n\
         partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
         endpoint_snitch: SimpleSnitch\n\
         data_file_directories: [{}]\n\
         commitlog_directory: {}\n\
         cdc_raw_directory: {}\n\
         saved_caches_directory: {}\n\
         hints_directory: {}\n\
         commitlog_sync: periodic\n\
         commitlog_sync_period: 10000ms\n\
         auto_snapshot: false\n\
         listen_address: 127.0.0.1\n\
         rpc_address: 127.0.0.1\n\
         native_transport_port: {native}\n\
         storage_port: {storage}\n\
         seed_provider:\n\
         \x20 - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n\
         \x20   parameters: [{{seeds: \"127.0.0.1:{storage}\"}}]\n",
        path("data")?,
        path("commitlog")?,
        path("cdc_raw")?,
        path("saved_caches")?,
        path("hints")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_yaml_is_a_url() {
        let property = yaml_property(Path::new("/a b/100%"));
        assert_eq!(property, "-Dcassandra.config=file:///a%20b/100%25/cassandra.yaml");
    }

    #[test]
    fn paths_are_quoted_in_the_yaml() {
        let yaml = yaml(Path::new("/a b/x: y"), 1, 2).unwrap();
        assert!(yaml.contains("commitlog_directory: \"/a b/x: y/commitlog\"\n"), "{yaml}");
        assert!(yaml.ends_with("  - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n    parameters: [{seeds: \"127.0.0.1:2\"}]\n"), "{yaml}");
    }
}
