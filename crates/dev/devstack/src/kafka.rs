//! Kafka: one KRaft node, broker and controller in one process.
//!
//! The storage is formatted once, before the first start. Ready means that the broker is registered, not only
//! that its socket is open. So topics can be created at once.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_dir, remove_dir};
use crate::probe::connect;
use crate::process::run;
use crate::server::{Recipe, Server};
use crate::{maven, ownership, say, tools};

pub(crate) const VERSION: &str = "4.3.1";
pub(crate) const LOG4J_VERSION: &str = "2.25.4";
const DEADLINE: Duration = Duration::from_mins(2);
pub(crate) const LOG4J: &str = include_str!("../resources/kafka-log4j2.xml");

/// How a Kafka is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Listeners besides the plaintext one. Each is named by its security protocol, such as `SASL_SSL`; see
    /// [`Kafka::listener`].
    pub listeners: Vec<String>,
    /// Lines of `server.properties`. They follow the built-in ones and override them.
    pub properties: Vec<String>,
    /// Accounts created with the storage, such as `SCRAM-SHA-512=[name=a,password=b]`.
    pub scram: Vec<String>,
}

/// A Kafka broker; see [`Server`] for its life.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    home: PathBuf,
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Kafka {
    /// Starts the Kafka in `dir`, or finds it running there. A missing folder is created.
    ///
    /// # Errors
    /// If Kafka cannot be downloaded, formatted or started, or does not answer within 2 minutes.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &KafkaOptions::default())
    }

    fn start_with(dir: &Path, options: &KafkaOptions) -> Result<Self> {
        let home = ensure(&Cache::from_env()?)?;
        let server = Server::start(Box::new(KafkaRecipe::new(&home, options)), dir)?;
        Ok(Self { server, home })
    }

    /// Starts a new Kafka that is killed and removed on drop.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral() -> Result<Self> {
        Self::ephemeral_with(&KafkaOptions::default())
    }

    /// [`Self::ephemeral`], with options.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn ephemeral_with(options: &KafkaOptions) -> Result<Self> {
        ownership::ephemeral("kafka", |dir| Self::start_with(dir, options), |this| &mut this.server)
    }

    /// The Kafka whose state is in `dir`, running or not; `None` if there is none.
    ///
    /// # Errors
    /// If the state file cannot be read, or Kafka cannot be downloaded.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let home = ensure(&Cache::from_env()?)?;
        let attached = Server::attach(Box::new(KafkaRecipe::new(&home, &KafkaOptions::default())), dir)?;
        Ok(attached.map(|server| Self { server, home }))
    }

    /// `127.0.0.1:PORT`, for `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The address of the `number`th of [`KafkaOptions::listeners`].
    pub fn listener(&self, number: usize) -> Option<String> {
        self.ports().get(2 + number).map(|port| format!("127.0.0.1:{port}"))
    }

    /// A command that runs a class of Kafka's own tools, such as
    /// `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`. It passes `--bootstrap-server` with this
    /// broker before `args`.
    ///
    /// # Errors
    /// If Kafka or Java 17 is missing and cannot be installed.
    pub fn tool(&self, class: &str, args: &[&str]) -> Result<Command> {
        let mut command = java(&self.home, self.dir())?;
        command.args(["-Xmx256m", class, "--bootstrap-server", &self.brokers()]).args(args);
        Ok(command)
    }

    pub(crate) fn into_server(self) -> Server {
        self.server
    }
}

pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    cache.ensure(&format!("kafka-{VERSION}"), |dir| {
        let artifacts = [
            ("org.apache.kafka", "kafka_2.13", VERSION),
            ("org.apache.kafka", "kafka-tools", VERSION),
            // Without it Kafka logs nothing. The version is that of the log4j that Kafka depends on.
            ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
        ];
        maven::fetch_jars(dir, &format!("Kafka {VERSION} (54 MB)"), &artifacts)
    })
}

fn java(home: &Path, dir: &Path) -> Result<Command> {
    tools::java_command(&home.join("libs"), &dir.join("tmp"))
}

struct KafkaRecipe {
    home: PathBuf,
    options: KafkaOptions,
    /// The options as arguments, for the state file.
    args: Vec<String>,
}

impl KafkaRecipe {
    fn new(home: &Path, options: &KafkaOptions) -> Self {
        let args =
            options.listeners.iter().chain(&options.properties).chain(&options.scram).cloned().collect();
        Self { home: home.to_owned(), options: options.clone(), args }
    }

    fn format(&self, dir: &Path, properties: &Path) -> Result<()> {
        say("formatting Kafka's storage ...");
        let mut tool = java(&self.home, dir)?;
        tool.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]);
        for account in &self.options.scram {
            tool.arg("--add-scram").arg(account);
        }
        run(tool.arg("-t").arg(cluster_id()).arg("-c").arg(properties).arg("--ignore-formatted"))
            .map(drop)
            .context("Kafka cannot format its storage")
    }
}

impl Recipe for KafkaRecipe {
    fn name(&self) -> &'static str {
        "Kafka"
    }

    fn ports(&self) -> usize {
        2 + self.options.listeners.len()
    }

    fn extra_args(&self) -> &[String] {
        &self.args
    }

    fn prepare(&self, dir: &Path, ports: &[u16]) -> Result<()> {
        remove_dir(&dir.join("tmp"))?;
        make_dir(&dir.join("tmp"))?;
        let (client, controller) = (ports[0], ports[1]);
        let further = self
            .options
            .listeners
            .iter()
            .zip(&ports[2..])
            .fold(String::new(), |listed, (name, port)| listed + &format!(",{name}://127.0.0.1:{port}"));
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}{further}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
             SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
             log.dirs={}\n",
            dir.join("data").display()
        );
        for (key, value) in [
            ("auto.create.topics.enable", "false"),
            // A killed broker may register again only when its old registration has expired (9 s by default).
            ("broker.heartbeat.interval.ms", "500"),
            ("broker.session.timeout.ms", "3000"),
            ("default.replication.factor", "1"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.topic.replication.factor", "1"),
            ("share.coordinator.state.topic.min.isr", "1"),
            ("share.coordinator.state.topic.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.replication.factor", "1"),
        ] {
            let _ = writeln!(text, "{key}={value}"); // writing to a String cannot fail
        }
        for line in &self.options.properties {
            let _ = writeln!(text, "{line}");
        }
        let properties = dir.join("server.properties");
        fs::write(&properties, text).with_context(|| format!("write {}", properties.display()))?;
        fs::write(dir.join("log4j2.xml"), LOG4J).context("write log4j2.xml")?;
        if dir.join("data/bootstrap.checkpoint").exists() && dir.join("data/meta.properties").exists() {
            return Ok(());
        }
        self.format(dir, &properties)
    }

    fn command(&self, dir: &Path, _ports: &[u16]) -> Result<Command> {
        let mut command = java(&self.home, dir)?;
        command.args(["-Xmx512m", "-XX:+ExitOnOutOfMemoryError"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.xml").display()));
        command.arg("kafka.Kafka").arg(dir.join("server.properties"));
        Ok(command)
    }

    fn probe(&self, _dir: &Path, ports: &[u16]) -> Result<()> {
        let mut socket = connect(ports[0])?;
        let versions = ask(&mut socket, 18, 0, &[])?; // ApiVersions v0
        if versions.get(..2) != Some(&[0, 0]) {
            bail!("Kafka refuses ApiVersions: error {:?}", versions.get(..2));
        }
        let metadata = ask(&mut socket, 3, 1, &0_i32.to_be_bytes())?; // Metadata v1 of no topics
        let brokers = metadata.first_chunk().map_or(0, |n| i32::from_be_bytes(*n));
        if brokers < 1 {
            bail!("Kafka's broker is not registered with its controller yet");
        }
        Ok(())
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}

/// One request of Kafka's protocol (header v1) and the body of its answer.
fn ask(socket: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    const CLIENT: &[u8] = b"tandem-devstack";
    const CORRELATION: i32 = 7;
    const LARGEST: i32 = 1 << 20;
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    request.extend((CLIENT.len() as i16).to_be_bytes());
    request.extend(CLIENT);
    request.extend(body);
    let size = (request.len() as i32).to_be_bytes();
    socket.write_all(&[&size[..], &request].concat()).context("send a request")?;
    let mut head = [0; 4];
    socket.read_exact(&mut head).context("no answer")?;
    let size = i32::from_be_bytes(head);
    if !(4..=LARGEST).contains(&size) {
        bail!("this is no Kafka: an answer of {size} bytes");
    }
    let mut answer = vec![0; size as usize];
    socket.read_exact(&mut answer).context("half an answer")?;
    let rest = answer.split_off(4);
    if answer != CORRELATION.to_be_bytes() {
        bail!("this is no Kafka: it answered another request");
    }
    Ok(rest)
}

/// A random cluster id in Kafka's form: 16 bytes in base64 for URLs, without padding. It does not start with
/// '-', which the tool would take for an option.
fn cluster_id() -> String {
    loop {
        let id = base64_url(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_for_urls() {
        assert_eq!(base64_url(b"Man"), "TWFu");
        assert_eq!(base64_url(b"Ma"), "TWE");
        assert_eq!(base64_url(b"M"), "TQ");
        assert_eq!(base64_url(&[0xff; 16]), format!("{}w", "_".repeat(21)));
        assert_eq!(cluster_id().len(), 22);
    }
}
