//! Debezium and Tandem beside each other: two captures of one MySQL into one Kafka.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tandem_devstack::{DebeziumOptions, Kafka, Mysql};

use crate::demo::Tandem;

/// The first part of the names of Debezium's topics.
pub(crate) const DEBEZIUM: &str = "debezium";

/// The first part of the names of Tandem's topics.
pub(crate) const TANDEM: &str = "tandem";

/// Partitions of each table's topic, on both sides.
pub(crate) const PARTITIONS: i32 = 3;

/// What Debezium needs to capture these tables (`database.table`), with further properties of the
/// connector.
pub(crate) fn debezium(
    mysql: &Mysql,
    kafka: &Kafka,
    heap: &str,
    tables: &[String],
    connector: &[(&str, &str)],
) -> DebeziumOptions {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    // Its names are regular expressions.
    let included: Vec<String> = tables.iter().map(|t| t.replace('.', "\\\\.")).collect();
    let mut all = owned(&[
        ("database.hostname", "127.0.0.1"),
        ("database.port", &mysql.port().to_string()),
        ("database.user", "root"),
        ("database.password", ""),
        ("database.server.id", "5401"),
        ("topic.prefix", DEBEZIUM),
        ("table.include.list", &included.join(",")),
        ("snapshot.mode", "no_data"),
        ("tombstones.on.delete", "false"),
        ("topic.creation.default.partitions", &PARTITIONS.to_string()),
        ("topic.creation.default.replication.factor", "1"),
    ]);
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

/// A Tandem whose roles capture these tables (`database.table`); its configuration and its log are
/// in `folder`.
pub(crate) fn tandem(
    binary: PathBuf,
    folder: &Path,
    mysql: &Mysql,
    kafka: &Kafka,
    tables: &[(String, Vec<String>)],
) -> Result<Tandem> {
    let mut text = format!(
        "[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {TANDEM:?}\npartitions = {PARTITIONS}\n\
         [cassandra]\nnodes = [\"127.0.0.1:1\"]\nkeyspace = \"unused\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        mysql.url(),
        kafka.brokers(),
    );
    for (i, (table, key)) in tables.iter().enumerate() {
        text += &format!(
            "[[table]]\nsource = {table:?}\nentity = \"e{i}\"\n[[table.target]]\ntable = \"t{i}\"\n\
             partition_key = {key:?}\n"
        );
    }
    let config = folder.join("tandem.toml");
    std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    Ok(Tandem::new(binary, config, folder.join("tandem.log")))
}
