//! Clients' transactions: which GTIDs they return, how the binlog shows them, and connections that are
//! abandoned in the middle of a response. The tests use a server of their own, because they assign GTIDs by
//! hand and switch off parts of the server's recording.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_binlog::{BinlogEvent, Origin};
use tandem_model::{Gtid, GtidSet, TableDef, TableName, Value};
use tandem_mysql::{BinlogStream, ClientPool, Commit, Mysql, MysqlConfig};
use tokio::time::Instant;

use crate::support::{Probe, eventually, executed, host_of, own_server};

struct Own {
    _server: tandem_devstack::Mysql,
    config: MysqlConfig,
    mysql: Mysql,
    pool: ClientPool,
    table: TableDef,
    sql: Conn,
}

impl Own {
    /// A server with a table of one row. The pool has one connection.
    async fn new() -> anyhow::Result<Self> {
        let server = own_server(&[])?;
        server.query(
            "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v INT); INSERT INTO d.t VALUES (1, 1)",
        )?;
        let config = MysqlConfig::new(server.url(), 77);
        let mysql = Mysql::connect(&config).await?;
        let table = mysql.table_def(&TableName::new("d", "t")).await?;
        let pool = ClientPool::connect(&config, 1).await?;
        let sql = Conn::from_url(server.url()).await?;
        Ok(Self { _server: server, config, mysql, pool, table, sql })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Sets the row's value. Returns the GTIDs of the COMMIT.
    async fn set(&self, v: i64) -> anyhow::Result<GtidSet> {
        let mut transaction = self.pool.begin(Self::soon()).await?;
        transaction.update(&self.table, &[Value::Int(1)], &[(1, Some(Value::Int(v)))]).await?;
        match transaction.commit().await {
            Commit::Committed(Some(gtids)) => Ok(gtids),
            other => anyhow::bail!("{other:?}"),
        }
    }

    async fn executed(&mut self) -> anyhow::Result<GtidSet> {
        executed(&mut self.sql).await
    }
}

/// A transaction becomes visible before its GTID is executed. Until then the GTID is owned. In this test it
/// stays owned.
#[tokio::test]
async fn the_token_of_a_write_without_changes_covers_visible_transactions() -> anyhow::Result<()> {
    let mut own = Own::new().await?;
    let uuid: String = own.sql.query_first("SELECT @@server_uuid").await?.unwrap_or_default();
    let owned: GtidSet = format!("{uuid}:1000").parse()?;
    own.sql.query_drop(format!("SET GTID_NEXT = '{uuid}:1000'")).await?;
    for sql in ["BEGIN", "INSERT INTO d.t VALUES (2, 2)"] {
        own.sql.query_drop(sql).await?;
    }
    let nothing = own.set(1).await?;
    assert!(owned.is_subset(&nothing), "{nothing}");
    assert!(owned.is_subset(&own.pool.visible(Own::soon()).await?));
    own.sql.query_drop("ROLLBACK").await?;
    own.sql.query_drop("SET GTID_NEXT = 'AUTOMATIC'").await?;
    assert!(!owned.is_subset(&own.set(1).await?));
    assert!(own.executed().await?.is_subset(&own.set(1).await?));
    Ok(())
}

/// The server records each connection's last transactions. When the recording stops, the last one stays in
/// the record.
#[tokio::test]
async fn an_old_gtid_is_never_taken_for_the_new_one() -> anyhow::Result<()> {
    let mut own = Own::new().await?;
    let consumers = "UPDATE performance_schema.setup_consumers SET ENABLED = '{}' WHERE NAME LIKE \
                     'events_transactions%'";
    let alone = |gtids: &GtidSet| gtids.to_string().parse::<Gtid>().is_ok();
    for v in [2, 3] {
        assert!(alone(&own.set(v).await?));
    }
    own.sql.query_drop(consumers.replace("{}", "NO")).await?;
    for v in [4, 5] {
        let gtids = own.set(v).await?;
        // The GTID of this write is among them.
        assert!(own.executed().await?.is_subset(&gtids), "{gtids}");
    }
    own.sql.query_drop(consumers.replace("{}", "YES")).await?;
    for v in [6, 7] {
        assert!(alone(&own.set(v).await?));
    }
    Ok(())
}

/// The binlog shows it even if a trigger makes the first change, and the session has no special privileges.
#[tokio::test]
async fn the_binlog_shows_who_is_a_client_of_the_pool() -> anyhow::Result<()> {
    let mut own = Own::new().await?;
    for sql in [
        "CREATE TABLE d.log (id INT AUTO_INCREMENT PRIMARY KEY)",
        "SET lc_time_names = 'de_DE', sql_mode = ''",
        "CREATE TRIGGER d.first BEFORE UPDATE ON d.t FOR EACH ROW INSERT INTO d.log VALUES ()",
        "CREATE USER plain IDENTIFIED BY 'plain'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON d.* TO plain",
    ] {
        own.sql.query_drop(sql).await?;
    }
    let from = own.executed().await?;
    let mut expected = BTreeMap::new();
    let host = host_of(&own.config.url).to_owned();
    let plain = MysqlConfig::new(format!("mysql://plain:plain@{host}"), 78);
    own.pool = ClientPool::connect(&plain, 1).await?;
    for round in 0..3 {
        let before = own.executed().await?;
        own.set(10 + round).await?;
        let after = own.executed().await?;
        expected.insert(after.minus(&before).to_string(), true);
        own.sql.query_drop("UPDATE d.t SET v = v + 100").await?;
        expected.insert(own.executed().await?.minus(&after).to_string(), false);
    }
    let mut stream = BinlogStream::open(&own.config, &from, |_| true).await?;
    let mut found = BTreeMap::new();
    while found.len() < expected.len() {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await??;
        if let BinlogEvent::Begin { gtid, origin, .. } = event {
            found.insert(gtid.to_string(), origin == Origin::Gateway);
        }
    }
    assert_eq!(found, expected);
    Ok(())
}

/// Opening a connection costs much more than a request over it.
#[tokio::test]
async fn connections_of_the_pool_are_kept() -> anyhow::Result<()> {
    const LIMIT: usize = 4;
    let mut own = Own::new().await?;
    let made = async |sql: &mut Conn| {
        let status: Option<(String, u64)> = sql.query_first("SHOW GLOBAL STATUS LIKE 'Connections'").await?;
        anyhow::Ok(status.map_or(0, |(_, made)| made))
    };
    let before = made(&mut own.sql).await?;
    let pool = ClientPool::connect(&own.config, LIMIT).await?;
    for _ in 0..10 {
        let key = [Value::Int(1)];
        let reads = (0..2 * LIMIT).map(|_| pool.read(&own.table, &key, Own::soon()));
        for row in futures::future::try_join_all(reads).await? {
            assert!(row.is_some());
        }
    }
    let made = made(&mut own.sql).await? - before;
    assert!(made <= LIMIT as u64, "{made} connections were made");
    Ok(())
}

/// The driver would return it to the pool, and the next user would read the response to an earlier request.
#[tokio::test]
async fn a_connection_left_in_the_middle_of_an_answer_is_closed() -> anyhow::Result<()> {
    let mut own = Own::new().await?;
    own.sql.query_drop("LOCK TABLES d.t WRITE").await?;
    let mut reader = own.mysql.reader().await?;
    let key = [vec![Value::Int(1)]];
    let blocked = reader.read_keys(&own.table, &key);
    assert!(tokio::time::timeout(Duration::from_millis(300), blocked).await.is_err());
    let waiting = "SELECT ID FROM performance_schema.processlist WHERE STATE LIKE 'Waiting for table%'";
    let left: u64 = own.sql.query_first(waiting).await?.unwrap_or_default();
    assert!(left > 0, "the read is not blocked");
    drop(reader);
    own.sql.query_drop("UNLOCK TABLES").await?;
    let alive = format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE ID = {left}");
    eventually("the connection to be closed", Duration::from_secs(10), async || {
        let alive: Option<u64> = own.sql.query_first(&alive).await?;
        Ok(Probe::when(alive == Some(0), "it is still in the pool"))
    })
    .await?;
    // The others return the right responses.
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut reader = own.mysql.reader().await?;
        let rows = reader.read_keys(&own.table, &key).await?;
        assert_eq!(rows, [Some(vec![Value::Int(1), Value::Int(1)])]);
        assert_eq!(reader.executed().await?, own.executed().await?);
        readers.push(reader);
    }
    Ok(())
}
