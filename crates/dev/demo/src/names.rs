//! The names of one run of the demo in the stores, and its folder.
//!
//! The demo drops only databases that it created. Every run has names of its own and writes them into the
//! table `tandem_demo.runs` before it creates anything. A later run drops exactly what this table lists.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::Endpoints;

use tandem_compare::stores::schema::{self, quote, tick};

/// The names of a run.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// The database in MySQL.
    pub(crate) database: String,
    /// The keyspace in Cassandra.
    pub(crate) keyspace: String,
    /// The prefix of the topics in Kafka.
    pub(crate) prefix: String,
    /// The folder with configuration and log.
    pub(crate) folder: PathBuf,
    /// The port of `/metrics`.
    pub(crate) port: u16,
}

impl Names {
    /// Names for a new run. `database` is given with a dump.
    pub(crate) fn new(database: Option<&str>) -> Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let id = format!("{seconds:x}{:x}", std::process::id());
        let base = keyspace_base(database.unwrap_or("billing"));
        let folder = target_folder().join("demo").join(&id);
        let folder = std::path::absolute(folder).context("find the target folder")?;
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self {
            database: database.map_or_else(|| format!("billing_{id}"), str::to_owned),
            keyspace: format!("{base}_{id}"),
            prefix: format!("demo-{id}"),
            folder,
            port: free_port()?,
        })
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("tandem.toml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("tandem.log")
    }

    /// The sections of `tandem.toml` with the servers' addresses.
    pub(crate) fn head(&self, servers: &Endpoints) -> Result<String> {
        let table = |pairs: Vec<(&str, toml::Value)>| -> toml::Value {
            toml::Value::Table(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
        };
        let nodes = nodes(servers).into_iter().map(toml::Value::String).collect();
        let sections = table(vec![
            ("mysql", table(vec![("url", servers.mysql_url.clone().into())])),
            (
                "kafka",
                table(vec![
                    ("brokers", servers.kafka_brokers.clone().into()),
                    ("prefix", self.prefix.clone().into()),
                ]),
            ),
            (
                "cassandra",
                table(vec![("nodes", toml::Value::Array(nodes)), ("keyspace", self.keyspace.clone().into())]),
            ),
            ("http", table(vec![("listen", format!("127.0.0.1:{}", self.port).into())])),
        ]);
        toml::to_string(&sections).context("write tandem.toml")
    }

    /// Sets the address of `/metrics` in a `tandem.toml` that `tandem init` wrote.
    pub(crate) fn set_listen(&self, text: &str) -> Result<String> {
        let mut config: toml::Table = toml::from_str(text).context("understand what `tandem init` wrote")?;
        let http = config.entry("http").or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let http = http.as_table_mut().context("[http] is no table in what `tandem init` wrote")?;
        http.insert("listen".to_owned(), format!("127.0.0.1:{}", self.port).into());
        toml::to_string(&config).context("write tandem.toml")
    }

    /// Drops what earlier runs created, and registers this one. The returned connection holds a lock. While
    /// it is held, other runs do not drop anything.
    pub(crate) async fn claim(&self, servers: &Endpoints, note: impl Fn(&str)) -> Result<Conn> {
        let mut conn = schema::mysql(&servers.mysql_url).await?;
        let locked: Option<i64> = conn.query_first("SELECT GET_LOCK('tandem_demo', 0)").await?;
        conn.query_drop("CREATE DATABASE IF NOT EXISTS tandem_demo").await?;
        conn.query_drop(
            "CREATE TABLE IF NOT EXISTS tandem_demo.runs \
             (id BIGINT AUTO_INCREMENT PRIMARY KEY, db VARCHAR(64) NOT NULL, ks VARCHAR(64) NOT NULL)",
        )
        .await
        .context("create the table tandem_demo.runs")?;
        if locked == Some(1) {
            self.drop_earlier(&mut conn, servers, &note).await?;
        } else {
            note("another demo is running on these servers: what earlier ones left stays");
        }
        let there: Option<String> = conn
            .exec_first(
                "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?",
                (&self.database,),
            )
            .await?;
        if there.is_some() {
            bail!(
                "database {} exists already, and no demo created it: it is not overwritten. Drop it, or use other \
                 servers",
                self.database
            );
        }
        conn.exec_drop(
            "INSERT INTO tandem_demo.runs (db, ks) VALUES (?, ?)",
            (&self.database, &self.keyspace),
        )
        .await
        .context("register this run")?;
        Ok(conn)
    }

    async fn drop_earlier(&self, conn: &mut Conn, servers: &Endpoints, note: &impl Fn(&str)) -> Result<()> {
        let earlier: Vec<(i64, String, String)> =
            conn.query("SELECT id, db, ks FROM tandem_demo.runs").await?;
        if earlier.is_empty() {
            return Ok(());
        }
        let session = schema::cassandra(&nodes(servers)).await?;
        for (id, database, keyspace) in earlier {
            note(&format!("dropping what an earlier demo left: database {database}, keyspace {keyspace}"));
            conn.query_drop(format!("DROP DATABASE IF EXISTS {}", tick(&database))).await?;
            let drop = format!("DROP KEYSPACE IF EXISTS {}", quote(&keyspace));
            session.query_unpaged(drop, ()).await.with_context(|| format!("drop keyspace {keyspace}"))?;
            conn.exec_drop("DELETE FROM tandem_demo.runs WHERE id = ?", (id,)).await?;
        }
        Ok(())
    }
}

/// Where the build goes: `CARGO_TARGET_DIR`, or `target` in the workspace's folder.
fn target_folder() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// Cassandra's contact points, one by one.
pub(crate) fn nodes(servers: &Endpoints) -> Vec<String> {
    servers.cassandra_nodes.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect()
}

/// Letters, digits and underscores. With an id behind it, the name fits into a keyspace's 48 characters.
fn keyspace_base(database: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let base: String = database.chars().map(plain).take(24).collect();
    if base.starts_with(|c: char| c.is_ascii_alphabetic()) { base } else { format!("db{base}") }
}

pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            database: "d".into(),
            keyspace: "k".into(),
            prefix: "p".into(),
            folder: PathBuf::new(),
            port: 4711,
        }
    }

    #[test]
    fn keyspaces_have_plain_names() {
        assert_eq!(keyspace_base("Chinook"), "chinook");
        assert_eq!(keyspace_base("2nd shop-ü"), "db2nd_shop__");
        assert!(keyspace_base(&"x".repeat(64)).len() <= 24);
    }

    #[test]
    fn the_head_is_what_tandem_reads() {
        let servers = Endpoints {
            mysql_url: "mysql://root:a\"b@h:1".into(),
            kafka_brokers: "b:2".into(),
            cassandra_nodes: "c:3, d:4".into(),
            stack: None,
        };
        let head: toml::Table = toml::from_str(&names().head(&servers).unwrap()).unwrap();
        assert_eq!(head["mysql"]["url"].as_str(), Some("mysql://root:a\"b@h:1"));
        assert_eq!(head["cassandra"]["nodes"][1].as_str(), Some("d:4"));
        assert_eq!(head["http"]["listen"].as_str(), Some("127.0.0.1:4711"));
    }

    #[test]
    fn the_address_is_set_whether_or_not_one_is_there() {
        for text in ["[http]\nlisten = \"127.0.0.1:0\"\n", "[kafka]\nprefix = \"x\"\n"] {
            let config: toml::Table = toml::from_str(&names().set_listen(text).unwrap()).unwrap();
            assert_eq!(config["http"]["listen"].as_str(), Some("127.0.0.1:4711"));
        }
    }
}
