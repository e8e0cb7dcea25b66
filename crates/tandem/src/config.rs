//! `tandem.toml`: one file for every role. Unknown keys are rejected, so that a misspelt key is never a setting that
//! silently does nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tandem_apply::ApplyConfig;
use tandem_backfill::BackfillConfig;
use tandem_capture::CaptureConfig;
use tandem_cassandra::CassandraConfig;
use tandem_kafka::{KafkaConfig, Refusals};
use tandem_mapping::{OnTruncate, TableConfig, TopicChoice};
use tandem_model::TableName;
use tandem_mysql::MysqlConfig;
use tandem_protocol::mapping_in_use::configured;
use tandem_reverse::ReverseConfig;
use tandem_runtime::Waits;

use crate::config::controller::ControllerSection;
use crate::config::gateway::GatewaySection;
use crate::config::reverse::ReverseSection;
use crate::config::secret::Secret;
use crate::config::security::{KafkaTlsSection, MysqlTlsSection, Protocol, RegistrySection, SaslSection};
use crate::role::Role;

pub(crate) mod controller;
pub(crate) mod gateway;
pub(crate) mod limits;
mod renamed;
mod reverse;
pub(crate) mod secret;
mod security;
mod tokens;

/// How long a role waits for a watermark, by default.
const WATERMARK_TIMEOUT: Duration = Duration::from_mins(1);

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) mysql: MysqlSection,
    pub(crate) kafka: KafkaSection,
    pub(crate) cassandra: CassandraSection,
    schema_registry: Option<RegistrySection>,
    #[serde(default)]
    pub(crate) http: HttpSection,
    #[serde(default)]
    capture: CaptureSection,
    #[serde(default)]
    apply: ApplySection,
    #[serde(default)]
    backfill: BackfillSection,
    pub(crate) reverse: Option<ReverseSection>,
    pub(crate) gateway: Option<GatewaySection>,
    pub(crate) controller: Option<ControllerSection>,
    #[serde(default)]
    pub(crate) table: Vec<TableConfig>,
    /// Shared by all of Kafka's clients in this process.
    #[serde(skip)]
    pub(crate) refusals: Refusals,
    /// What this process waits for.
    #[serde(skip)]
    pub(crate) waits: Waits,
}

/// `[mysql]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MysqlSection {
    url: String,
    password: Option<Secret>,
    tls: Option<MysqlTlsSection>,
    /// The replica id for reading the binlog. It is derived from the prefix if absent.
    server_id: Option<u32>,
}

/// `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaSection {
    brokers: String,
    #[serde(default = "default_prefix")]
    prefix: String,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
    /// How long a role waits for a watermark before it reports that capture does not run.
    watermark_timeout_seconds: Option<u64>,
    retention_hours: Option<u64>,
    #[serde(default)]
    security: Protocol,
    tls: Option<KafkaTlsSection>,
    sasl: Option<SaslSection>,
    /// Properties of librdkafka, for every client.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Properties of librdkafka whose values are secrets.
    #[serde(default)]
    secrets: BTreeMap<String, Secret>,
}

/// `[cassandra]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CassandraSection {
    nodes: Vec<String>,
    keyspace: String,
    user: Option<String>,
    password: Option<Secret>,
    consistency: Option<String>,
    replication_factor: Option<u32>,
    request_timeout_seconds: Option<u64>,
    max_in_flight: Option<usize>,
}

/// `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpSection {
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaptureSection {
    max_records: usize,
    max_bytes: usize,
    watermark_interval_ms: u64,
    linger_ms: u64,
    max_clock_ahead_seconds: u64,
    tombstones_on_delete: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApplySection {
    max_records: usize,
    max_dead_letters_per_minute: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BackfillSection {
    chunk_rows: usize,
    chunk_bytes: usize,
    max_rows_per_second: Option<u32>,
}

fn default_prefix() -> String {
    "tandem".to_owned()
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

impl Default for CaptureSection {
    fn default() -> Self {
        Self {
            max_records: 20_000,
            max_bytes: 12 << 20,
            watermark_interval_ms: 500,
            linger_ms: 40,
            max_clock_ahead_seconds: 60,
            tombstones_on_delete: false,
        }
    }
}

impl Default for ApplySection {
    fn default() -> Self {
        Self { max_records: 2000, max_dead_letters_per_minute: 100 }
    }
}

impl Default for BackfillSection {
    fn default() -> Self {
        Self { chunk_rows: 2000, chunk_bytes: 8 << 20, max_rows_per_second: None }
    }
}

impl Config {
    /// Reads and validates the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {} (`tandem init` writes a first one)", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        renamed::refuse(text)?;
        let config: Self = toml::from_str(text)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if self.table.is_empty() {
            bail!("it maps no tables: add a [[table]] section");
        }
        let zero = [
            ("capture.max_records", self.capture.max_records == 0),
            ("capture.max_bytes", self.capture.max_bytes == 0),
            ("capture.watermark_interval_ms", self.capture.watermark_interval_ms == 0),
            ("apply.max_records", self.apply.max_records == 0),
            ("backfill.chunk_rows", self.backfill.chunk_rows == 0),
            ("backfill.chunk_bytes", self.backfill.chunk_bytes == 0),
            ("backfill.max_rows_per_second", self.backfill.max_rows_per_second == Some(0)),
            ("kafka.watermark_timeout_seconds", self.kafka.watermark_timeout_seconds == Some(0)),
            ("kafka.partitions", self.kafka.partitions.is_some_and(|n| n < 1)),
            ("kafka.replication_factor", self.kafka.replication_factor.is_some_and(|n| n < 1)),
            ("kafka.retention_hours", self.kafka.retention_hours == Some(0)),
            ("mysql.server_id", self.mysql.server_id == Some(0)),
        ];
        if let Some((key, _)) = zero.iter().find(|(_, zero)| *zero) {
            bail!("{key} must be above 0");
        }
        if let Some(reverse) = &self.reverse {
            reverse.validate()?;
        }
        if let Some(gateway) = &self.gateway {
            gateway.validate()?;
        }
        if let Some(controller) = &self.controller {
            controller.validate()?;
        }
        // Other roles rely on at least one watermark a second while capture is idle.
        if self.capture.watermark_interval_ms > 1000 {
            bail!("capture.watermark_interval_ms must be at most 1000");
        }
        if self.capture.linger_ms > 1000 {
            bail!("capture.linger_ms must be at most 1000");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
        let prefix = &self.kafka.prefix;
        if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(legal) {
            bail!(
                "kafka.prefix must have 1 to 64 characters that Kafka allows: letters, digits, `.`, `_`, `-`"
            );
        }
        Ok(())
    }

    /// The roles of `tandem run`. Reverse, the gateway and the controller run only if they have a section.
    pub(crate) fn roles(&self) -> Vec<Role> {
        let reverse = self.reverse.is_some().then_some(Role::Reverse);
        let gateway = self.gateway.is_some().then_some(Role::Gateway);
        let controller = self.controller.is_some().then_some(Role::Controller);
        Role::OF_EVERY_RUN.into_iter().chain(reverse).chain(gateway).chain(controller).collect()
    }

    /// The mapped tables, in the order of the file.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>> {
        let parse = |t: &TableConfig| {
            t.source.parse().map_err(|e| {
                anyhow::anyhow!("[[table]] source = {:?}: {e} (as in \"shop.orders\")", t.source)
            })
        };
        self.table.iter().map(parse).collect()
    }

    pub(crate) fn mysql(&self) -> Result<MysqlConfig> {
        let server_id = self.mysql.server_id.unwrap_or_else(|| default_server_id(&self.kafka.prefix));
        let mut config = MysqlConfig::new(&self.mysql.url, server_id);
        config.password = reveal(self.mysql.password.as_ref(), "mysql.password")?;
        config.tls = self.mysql.tls.as_ref().map(MysqlTlsSection::tls).transpose()?.flatten();
        let tables = self.tables()?.into_iter().zip(&self.table);
        config.excluded = tables
            .flat_map(|(name, table)| {
                table.exclude_from_capture.iter().map(move |column| (name.clone(), column.clone()))
            })
            .collect();
        Ok(config)
    }

    pub(crate) fn kafka(&self) -> Result<KafkaConfig> {
        let section = &self.kafka;
        let mut config = KafkaConfig::new(&section.brokers, &section.prefix);
        let own = self.tables()?.into_iter().zip(&self.table);
        let own = own.filter(|(_, table)| table.topic == TopicChoice::Own).map(|(name, _)| name);
        config.own_topics = Arc::new(own.collect());
        config.partitions = section.partitions.unwrap_or(config.partitions);
        config.replication_factor = section.replication_factor.unwrap_or(config.replication_factor);
        config.retention = section.retention_hours.map_or(config.retention, Duration::from_hours);
        config.security = security::kafka(section.security, section.tls.as_ref(), section.sasl.as_ref())?;
        config.registry = self.schema_registry.as_ref().map(RegistrySection::registry).transpose()?;
        config.refusals = self.refusals.clone();
        config.properties = section.properties.clone();
        for (key, secret) in &section.secrets {
            let value = secret.reveal().with_context(|| format!("kafka.secrets.\"{key}\""))?;
            config.properties.insert(key.clone(), value);
        }
        Ok(config)
    }

    pub(crate) fn cassandra(&self) -> Result<CassandraConfig> {
        let section = &self.cassandra;
        let mut config = CassandraConfig::new(section.nodes.clone(), &section.keyspace);
        config.user.clone_from(&section.user);
        config.password = reveal(section.password.as_ref(), "cassandra.password")?;
        if let Some(level) = &section.consistency {
            config.consistency =
                level.parse().map_err(anyhow::Error::msg).context("cassandra.consistency")?;
        }
        config.replication_factor = section.replication_factor;
        config.request_timeout =
            section.request_timeout_seconds.map_or(config.request_timeout, Duration::from_secs);
        config.max_in_flight = section.max_in_flight.unwrap_or(config.max_in_flight);
        config.waits = self.waits.clone();
        Ok(config)
    }

    /// The settings of capture. The source's name is the key of its watermarks; a log has one source.
    pub(crate) fn capture(&self) -> Result<CaptureConfig> {
        Ok(CaptureConfig {
            source: "mysql".to_owned(),
            tables: self.tables()?,
            truncatable: self.truncatable()?,
            max_records: self.capture.max_records,
            max_bytes: self.capture.max_bytes,
            idle: Duration::from_millis(self.capture.watermark_interval_ms),
            linger: Duration::from_millis(self.capture.linger_ms),
            max_clock_ahead: Duration::from_secs(self.capture.max_clock_ahead_seconds),
            tombstones: self.capture.tombstones_on_delete,
        })
    }

    /// The tables with `on_truncate = "apply"`.
    fn truncatable(&self) -> Result<HashSet<TableName>> {
        let tables = self.tables()?.into_iter().zip(&self.table);
        Ok(tables.filter(|(_, table)| table.on_truncate == OnTruncate::Apply).map(|(name, _)| name).collect())
    }

    /// The hash of the configured mapping.
    pub(crate) fn mapping(&self) -> String {
        configured(self.table.iter().map(|table| (table.source.as_str(), table.spelling())))
    }

    pub(crate) fn apply(&self) -> ApplyConfig {
        ApplyConfig {
            max_records: self.apply.max_records,
            max_dead_letters_per_minute: self.apply.max_dead_letters_per_minute,
        }
    }

    pub(crate) fn backfill(&self) -> BackfillConfig {
        BackfillConfig {
            chunk_rows: self.backfill.chunk_rows,
            chunk_bytes: self.backfill.chunk_bytes,
            max_rows_per_second: self.backfill.max_rows_per_second,
        }
    }

    /// Reverse's account in MySQL, and its settings.
    pub(crate) fn reverse(&self) -> Result<(MysqlConfig, ReverseConfig)> {
        let default = ReverseSection::default();
        let section = self.reverse.as_ref().unwrap_or(&default);
        let mut mysql = self.mysql()?;
        if let Some(url) = &section.url {
            mysql.url.clone_from(url);
            mysql.password = None;
        }
        if section.password.is_some() {
            mysql.password = reveal(section.password.as_ref(), "reverse.password")?;
        }
        let first = self.tables()?.into_iter().next().map(|table| table.database);
        let database = section.database.clone().or(first).context("it maps no tables")?;
        Ok((mysql, ReverseConfig { database, max_records: section.max_records }))
    }

    /// The controller's section, or its defaults.
    pub(crate) fn controller_section(&self) -> Cow<'_, ControllerSection> {
        self.controller.as_ref().map_or_else(|| Cow::Owned(ControllerSection::default()), Cow::Borrowed)
    }

    /// How long a role waits for a watermark.
    pub(crate) fn watermark_timeout(&self) -> Duration {
        self.kafka.watermark_timeout_seconds.map_or(WATERMARK_TIMEOUT, Duration::from_secs)
    }
}

fn reveal(secret: Option<&Secret>, key: &'static str) -> Result<Option<String>> {
    secret.map(Secret::reveal).transpose().context(key)
}

/// The default replica id, a different one for each prefix.
///
/// MySQL disconnects a reader when another one connects with the same id. That is wanted for two captures of one prefix,
/// but not for two migrations. The id is an FNV-1a hash, above the small numbers that people give their replicas.
fn default_server_id(prefix: &str) -> u32 {
    let hash = prefix.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    0x4000_0000 | (hash & 0x3fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[mysql]\nurl = 'mysql://h'\n[kafka]\nbrokers = 'b'\n[cassandra]\nnodes = ['n']\n\
                            keyspace = 'k'\n[[table]]\nsource = 'd.t'\n";

    fn error(text: &str) -> String {
        format!("{:#}", Config::parse(text).unwrap_err())
    }

    #[test]
    fn a_minimal_file_is_valid() {
        let config = Config::parse(SMALLEST).unwrap();
        assert_eq!(config.kafka().unwrap().prefix, "tandem");
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:9464");
        assert!(config.capture().unwrap().idle <= Duration::from_secs(1));
    }

    #[test]
    fn an_unknown_key_is_rejected_by_name_in_every_section() {
        for section in ["mysql", "kafka", "cassandra"] {
            let header = format!("[{section}]\n");
            let text = SMALLEST.replace(&header, &format!("{header}misspelt = 1\n"));
            assert!(error(&text).contains("misspelt"), "{section}");
        }
        for section in
            ["http", "capture", "apply", "backfill", "reverse", "gateway", "controller", "nonsense"]
        {
            let text = format!("[{section}]\nmisspelt = 1\n{SMALLEST}");
            let error = error(&text);
            assert!(error.contains("misspelt") || error.contains("nonsense"), "{section}: {error}");
        }
        assert!(error(&format!("{SMALLEST}misspelt = 1\n")).contains("misspelt"));
    }

    #[test]
    fn invalid_values_are_rejected_by_key() {
        for (section, key, value) in [
            ("capture", "max_records", "0"),
            ("capture", "watermark_interval_ms", "1001"),
            ("capture", "linger_ms", "1001"),
            ("backfill", "max_rows_per_second", "0"),
            ("apply", "max_records", "0"),
        ] {
            let message = error(&format!("[{section}]\n{key} = {value}\n{SMALLEST}"));
            assert!(message.contains(&format!("{section}.{key}")), "{message}");
        }
        let prefix = SMALLEST.replace("[kafka]\n", "[kafka]\nprefix = 'a b'\n");
        assert!(error(&prefix).contains("kafka.prefix"));
        assert!(error(SMALLEST.split("[[table]]").next().unwrap()).contains("[[table]]"));
        let source = Config::parse(&SMALLEST.replace("'d.t'", "'t'")).unwrap();
        assert!(source.tables().unwrap_err().to_string().contains("\"t\""));
    }

    #[test]
    fn each_prefix_has_its_own_replica_id() {
        assert_ne!(default_server_id("a"), default_server_id("b"));
        assert!(default_server_id("") > 1 << 30);
    }
}
