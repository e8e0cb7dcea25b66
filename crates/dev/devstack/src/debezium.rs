//! Debezium's MySQL connector in a standalone Kafka Connect, as the peer for comparisons with capture.
//!
//! Its offsets and its schema history are files in its folder, so it resumes where it was stopped.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::kafka;
use crate::probe::get;
use crate::server::{Recipe, Server};
use crate::{maven, ownership, tools};

const VERSION: &str = "3.6.1.Final";
const DEADLINE: Duration = Duration::from_mins(2);
/// The connector's name, and that of its MBeans and threads.
const NAME: &str = "debezium";

/// The configuration of a Debezium.
#[derive(Debug, Clone, Default)]
pub struct DebeziumOptions {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Java's heap, as `-Xmx` takes it.
    pub heap: String,
    /// Properties of the connector, beyond its class and its schema history.
    pub connector: Vec<(String, String)>,
    /// Properties of the Connect worker, beyond its addresses, converters and offsets.
    pub worker: Vec<(String, String)>,
}

/// A Kafka Connect with one connector; see [`Server`] for its life. It commits its offsets on SIGTERM.
#[derive(Debug)]
pub struct Debezium {
    server: Server,
}

impl Deref for Debezium {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Debezium {
    /// The release, as Maven names it.
    pub const VERSION: &str = VERSION;

    /// Starts the Debezium in `dir` with these options, and returns once its task runs. A missing folder is
    /// created.
    ///
    /// # Errors
    /// If Debezium cannot be downloaded or started, or its task does not run within 2 minutes.
    pub fn start(dir: &Path, options: &DebeziumOptions) -> Result<Self> {
        let home = ensure(&Cache::from_env()?)?;
        make_dir(dir)?;
        let dir = std::path::absolute(dir).with_context(|| format!("resolve {}", dir.display()))?;
        write_properties(&dir, options)?;
        Ok(Self { server: Server::start(Box::new(DebeziumRecipe { home }), &dir)? })
    }

    /// Starts a new Debezium that is killed and removed on drop.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral(options: &DebeziumOptions) -> Result<Self> {
        ownership::ephemeral("debezium", |dir| Self::start(dir, options), |this| &mut this.server)
    }

    /// The Debezium whose state is in `dir`, running or not; `None` if there is none.
    ///
    /// # Errors
    /// If the state file cannot be read, or Debezium cannot be downloaded.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let home = ensure(&Cache::from_env()?)?;
        Ok(Server::attach(Box::new(DebeziumRecipe { home }), dir)?.map(|server| Self { server }))
    }

    pub(crate) fn into_server(self) -> Server {
        self.server
    }
}

pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    cache.ensure(&format!("debezium-{VERSION}"), |dir| {
        let artifacts = [
            ("io.debezium", "debezium-connector-mysql", VERSION),
            ("org.apache.kafka", "connect-runtime", kafka::VERSION),
            ("org.apache.kafka", "connect-json", kafka::VERSION),
            ("org.apache.logging.log4j", "log4j-slf4j-impl", kafka::LOG4J_VERSION),
        ];
        maven::fetch_jars(dir, &format!("Debezium {VERSION} (46 MB)"), &artifacts)
    })
}

fn properties(pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key}={value}"); // writing to a String cannot fail
        text
    })
}

fn write_properties(dir: &Path, options: &DebeziumOptions) -> Result<()> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let at = |name: &str| dir.join(name).display().to_string();
    let mut worker = own(&[
        ("bootstrap.servers", &options.brokers),
        ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("key.converter.schemas.enable", "false"),
        ("value.converter.schemas.enable", "false"),
        // Otherwise the converter writes a column's default in place of NULL.
        ("key.converter.replace.null.with.default", "false"),
        ("value.converter.replace.null.with.default", "false"),
        ("offset.storage.file.filename", &at("offsets.dat")),
        ("plugin.discovery", "service_load"),
    ]);
    worker.extend_from_slice(&options.worker);
    let mut connector = own(&[
        ("name", NAME),
        ("connector.class", "io.debezium.connector.mysql.MySqlConnector"),
        ("tasks.max", "1"),
        ("schema.history.internal", "io.debezium.storage.file.history.FileSchemaHistory"),
        ("schema.history.internal.file.filename", &at("schema-history.dat")),
    ]);
    connector.extend_from_slice(&options.connector);
    for (name, text) in [
        ("connector.properties", properties(&connector)),
        ("worker.base", properties(&worker)),
        ("heap", options.heap.clone()),
        ("log4j2.xml", kafka::LOG4J.to_owned()),
    ] {
        fs::write(dir.join(name), text).with_context(|| format!("write {name} into {}", dir.display()))?;
    }
    Ok(())
}

struct DebeziumRecipe {
    home: PathBuf,
}

impl Recipe for DebeziumRecipe {
    fn name(&self) -> &'static str {
        "Debezium"
    }

    fn ports(&self) -> usize {
        1
    }

    fn prepare(&self, dir: &Path, ports: &[u16]) -> Result<()> {
        remove_dir(&dir.join("tmp"))?;
        make_dir(&dir.join("tmp"))?;
        let base = fs::read_to_string(dir.join("worker.base")).context("read worker.base")?;
        let text = format!("{base}listeners=http://127.0.0.1:{}\n", ports[0]);
        fs::write(dir.join("worker.properties"), text).context("write worker.properties")
    }

    fn command(&self, dir: &Path, _ports: &[u16]) -> Result<Command> {
        let heap = fs::read_to_string(dir.join("heap")).context("read the heap's size")?;
        let mut command = tools::java_command(&self.home.join("libs"), &dir.join("tmp"))?;
        command.arg(format!("-Xmx{heap}")).arg("-XX:+ExitOnOutOfMemoryError");
        command.arg(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.xml").display()));
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone");
        command.arg(dir.join("worker.properties")).arg(dir.join("connector.properties"));
        Ok(command)
    }

    fn probe(&self, _dir: &Path, ports: &[u16]) -> Result<()> {
        let body = get(ports[0], &format!("/connectors/{NAME}/status"))?;
        let status: serde_json::Value =
            serde_json::from_str(&body).with_context(|| format!("this is no Kafka Connect: {body}"))?;
        match status["tasks"][0]["state"].as_str() {
            Some("RUNNING") => Ok(()),
            _ => bail!("its task does not run: {body}"),
        }
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}
