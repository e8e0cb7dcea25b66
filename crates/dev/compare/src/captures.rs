//! Configures two captures, Debezium and Tandem, of one MySQL into one Kafka.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tandem_devstack::{DebeziumOptions, Kafka, Mysql};

use crate::process::Tandem;

/// The first part of the names of Debezium's topics.
pub const DEBEZIUM: &str = "debezium";

/// The first part of the names of Tandem's topics.
pub const TANDEM: &str = "tandem";

/// Partitions of each change topic, for both captures.
pub const PARTITIONS: i32 = 3;

/// How the tables' changes are spread over topics, for both captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// All tables share one topic: Tandem's default, and Debezium's with the transformation `ByLogicalTableRouter`.
    Shared,
    /// Each table has a topic of its own: Debezium's default, and Tandem's with `topic = "own"`.
    Own,
}

/// A table that both capture.
#[derive(Debug, Clone)]
pub struct Mapped {
    /// Its database.
    pub database: String,
    /// Its name there.
    pub table: String,
    /// The primary key's columns.
    pub key: Vec<String>,
}

impl Mapped {
    /// `database.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }

    /// The name of Debezium's topic. Debezium replaces characters that Kafka does not allow by `_`.
    pub fn topic_of_debezium(&self, layout: Layout) -> String {
        if layout == Layout::Shared {
            return format!("{DEBEZIUM}.changes");
        }
        let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
        format!("{DEBEZIUM}.{}", self.name()).chars().map(legal).collect()
    }

    /// The name of Tandem's topic. Tandem replaces each byte that is no letter, digit or `_` by `-` and two
    /// hexadecimal digits.
    pub fn topic_of_tandem(&self, layout: Layout) -> String {
        if layout == Layout::Shared {
            return format!("{TANDEM}.changes");
        }
        let escape = |name: &str| -> String {
            let one = |byte: u8| match byte {
                b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
                other => format!("-{other:02x}"),
            };
            name.bytes().map(one).collect()
        };
        format!("{TANDEM}.{}.{}", escape(&self.database), escape(&self.table))
    }
}

/// The options of a Debezium that captures these tables (`database.table`; if there are none: all tables),
/// with further properties of the connector.
pub fn debezium(
    mysql: &Mysql,
    kafka: &Kafka,
    heap: &str,
    layout: Layout,
    tables: &[String],
    connector: &[(&str, &str)],
) -> DebeziumOptions {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let mut all = owned(&[
        ("database.hostname", "127.0.0.1"),
        ("database.port", &mysql.port().to_string()),
        ("database.user", "root"),
        ("database.password", ""),
        ("database.server.id", "5401"),
        ("topic.prefix", DEBEZIUM),
        ("snapshot.mode", "no_data"),
        ("tombstones.on.delete", "false"),
        ("topic.creation.default.partitions", &PARTITIONS.to_string()),
        ("topic.creation.default.replication.factor", "1"),
    ]);
    if !tables.is_empty() {
        // Debezium takes names as regular expressions, and a properties file has backslashes of its own.
        let included: Vec<String> = tables.iter().map(|t| t.replace('.', "\\\\.")).collect();
        all.push(("table.include.list".to_owned(), included.join(",")));
    }
    if layout == Layout::Shared {
        all.extend(owned(&[
            ("transforms", "route"),
            ("transforms.route.type", "io.debezium.transforms.ByLogicalTableRouter"),
            ("transforms.route.topic.regex", "[^.]+\\\\.[^.]+\\\\.[^.]+"),
            ("transforms.route.topic.replacement", &format!("{DEBEZIUM}.changes")),
        ]));
    }
    all.extend(owned(connector));
    DebeziumOptions {
        brokers: kafka.brokers(),
        heap: heap.to_owned(),
        connector: all,
        worker: owned(&[
            ("offset.flush.interval.ms", "1000"),
            ("producer.acks", "all"),
            ("producer.compression.type", "lz4"),
            ("producer.linger.ms", "10"),
            ("producer.batch.size", "1048576"),
            ("producer.max.request.size", "67108864"),
            ("producer.buffer.memory", "134217728"),
        ]),
    }
}

/// A Tandem that captures these tables, and the address of its HTTP interface. Its configuration and its log
/// are in `folder`. The mapping names a Cassandra that is never contacted.
///
/// # Errors
/// If no port is free, or the configuration cannot be written.
pub fn tandem(
    binary: PathBuf,
    folder: &Path,
    mysql: &Mysql,
    kafka: &Kafka,
    layout: Layout,
    tables: &[Mapped],
) -> Result<(Tandem, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    let port = listener.local_addr().context("find a free port")?.port();
    drop(listener);
    let mut text = format!(
        "[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {TANDEM:?}\npartitions = {PARTITIONS}\n\
         [cassandra]\nnodes = [\"127.0.0.1:1\"]\nkeyspace = \"unused\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n",
        mysql.url(),
        kafka.brokers(),
    );
    let topic = match layout {
        Layout::Shared => "shared",
        Layout::Own => "own",
    };
    for (i, table) in tables.iter().enumerate() {
        let (name, key) = (table.name(), &table.key);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[table]]\nsource = {name:?}\nentity = \"e{i}\"\ntopic = {topic:?}\n\
             [[table.target]]\ntable = \"t{i}\"\npartition_key = {key:?}\n"
        );
    }
    let config = folder.join("tandem.toml");
    std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    Ok((
        Tandem::new(binary, config, folder.join("tandem.log")).only("capture"),
        format!("http://127.0.0.1:{port}"),
    ))
}
