//! Native writes on their way to MySQL.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_dead_letters::DeadLetters;
use tandem_kafka::{Admin, Cleanup, TopicSpec, read_all};
use tandem_model::{Row, TableName, Value};
use tandem_mysql::{Deleted, Mysql, MysqlConfig, ReverseSession};
use tandem_native_writes::Decision;
use tandem_reverse::{Metrics, Reverse, ReverseConfig, ReverseError};
use tandem_wire::control::{DeadLetter, decode_control};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stage::{Gateway, Stage, request, row};
use crate::support::{
    MINUTE, Migration, Probe, Running as Process, brokers, eventually, finish, mysql_url, nodes,
    random_server_id, unique_id,
};

/// The table of a [`Stage`] in MySQL, and a reverse that may be started again.
struct Back {
    stage: Stage,
    mysql: MysqlConfig,
    database: String,
    sql: Conn,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ReverseError>>,
}

impl Running {
    /// An error if reverse has ended.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.task.is_finished(), "reverse has ended");
        Ok(())
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}

impl Back {
    async fn new(test: &str) -> anyhow::Result<Self> {
        let stage = Stage::new(test).await?;
        let database = stage.plan.source().name.database.clone();
        let mut sql = Conn::from_url(mysql_url()).await?;
        for statement in [
            format!("CREATE DATABASE {database}"),
            format!("USE {database}"),
            "CREATE TABLE t (id BIGINT PRIMARY KEY, k INT NOT NULL, a VARCHAR(20), n BIGINT NOT NULL)"
                .to_owned(),
        ] {
            sql.query_drop(statement).await?;
        }
        let spec = TopicSpec {
            name: stage.kafka.topics().reverse_dead_letters(),
            partitions: 1,
            cleanup: Cleanup::KeepAll,
        };
        Admin::connect(&stage.kafka).await?.ensure_topics(&[spec]).await?;
        Ok(Self { stage, mysql: MysqlConfig::new(mysql_url(), random_server_id()), database, sql })
    }

    fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let reverse = Reverse {
            kafka: self.stage.kafka.clone(),
            schemas: self.stage.schemas.clone(),
            mysql: self.mysql.clone(),
            tables: vec![self.stage.plan.source().name.clone()],
            config: ReverseConfig { database: self.database.clone(), max_records: 100 },
            metrics: Metrics::default(),
        };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let outcome = reverse.run(stopped).await;
            if let Err(error) = &outcome {
                eprintln!("reverse has ended: {error}");
            }
            outcome
        });
        Running { stop, task }
    }

    /// The rows in MySQL, in the order of their keys.
    async fn rows(&mut self) -> anyhow::Result<Vec<Row>> {
        let mut reader = Mysql::connect(&self.mysql).await?.reader().await?;
        let table = self.stage.plan.source();
        let Some(upto) = reader.max_key(table).await? else { return Ok(Vec::new()) };
        Ok(reader.read_chunk(table, None, &upto, 10_000).await?)
    }

    /// Waits until MySQL has the rows that the guards hold.
    async fn until_equal(&mut self) -> anyhow::Result<()> {
        let guards = self.stage.guards(1).await?;
        let expected: Vec<Row> = guards.into_values().filter_map(|guard| guard.image).collect();
        eventually("MySQL to have what Cassandra has decided", MINUTE, async || {
            let rows = self.rows().await?;
            Ok(Probe::when(rows == expected, format!("{rows:?} instead of {expected:?}")))
        })
        .await
    }

    /// What reverse has not read yet.
    async fn until_read(&mut self) -> anyhow::Result<()> {
        let end: i64 = self.stage.log().await?.len() as i64;
        let sum = format!("SELECT SUM(next_offset) FROM {}.tandem_reverse_offsets", self.database);
        eventually("reverse to have read the log", MINUTE, async || {
            let read: Option<Option<i64>> = self.sql.query_first(&sum).await?;
            Ok(Probe::when(read.flatten() == Some(end), format!("{read:?} of {end}")))
        })
        .await
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.sql.query_drop(format!("DROP DATABASE {}", self.database)).await?;
        self.stage.drop().await
    }
}

/// Writes rows: inserts, overwrites and deletes some.
async fn write_some(gateway: &Gateway, round: i64) -> anyhow::Result<()> {
    for id in 0..12 {
        let image = ((id + round) % 5 != 0).then(|| row(id, id % 3, (id % 2 == 0).then_some("é"), round));
        gateway.put(id, image).await?;
    }
    Ok(())
}

/// Rows, versions and offsets are one transaction. So reverse may be stopped anywhere, read everything again, or meet a MySQL
/// that has lost its last transactions.
#[tokio::test(flavor = "multi_thread")]
async fn native_writes_come_to_mysql_once() -> anyhow::Result<()> {
    let mut back = Back::new("reverse").await?;
    let gateway = back.stage.gateway(1).await?;
    write_some(&gateway, 0).await?;
    let running = back.start();
    back.until_equal().await?;
    write_some(&gateway, 1).await?;
    back.until_equal().await?;
    back.until_read().await?;
    running.end().await?;

    // A dump of now, and what a fail-over would lose.
    for table in ["t", "tandem_reverse_versions", "tandem_reverse_offsets"] {
        back.sql.query_drop(format!("CREATE TABLE dump_{table} AS SELECT * FROM {table}")).await?;
    }
    let running = back.start();
    write_some(&gateway, 2).await?;
    back.until_equal().await?;
    back.until_read().await?;
    running.end().await?;
    for table in ["t", "tandem_reverse_versions", "tandem_reverse_offsets"] {
        back.sql.query_drop(format!("DELETE FROM {table}")).await?;
        back.sql.query_drop(format!("INSERT INTO {table} SELECT * FROM dump_{table}")).await?;
    }
    let running = back.start();
    back.until_equal().await?;
    running.end().await?;

    // From the beginning again: nothing goes back, not even for a moment.
    back.sql.query_drop("UPDATE tandem_reverse_offsets SET next_offset = 0").await?;
    back.sql.query_drop("CREATE TABLE changed (id INT AUTO_INCREMENT PRIMARY KEY)").await?;
    for event in ["INSERT", "UPDATE", "DELETE"] {
        back.sql
            .query_drop(format!(
                "CREATE TRIGGER on_{event} AFTER {event} ON t FOR EACH ROW INSERT INTO changed VALUES ()"
            ))
            .await?;
    }
    let running = back.start();
    back.until_read().await?;
    running.end().await?;
    assert_eq!(back.sql.query_first::<u64, _>("SELECT COUNT(*) FROM changed").await?, Some(0));
    back.end().await
}

/// MySQL refuses a row: a dead letter, and the others go on. A later write of the row is not held up.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_mysql_refuses_is_a_dead_letter() -> anyhow::Result<()> {
    let mut back = Back::new("reverseletter").await?;
    back.sql.query_drop("ALTER TABLE t ADD CONSTRAINT small CHECK (n < 100)").await?;
    let gateway = back.stage.gateway(1).await?;
    for id in 0..6 {
        let n = if id == 3 { 100 } else { id };
        gateway.put(id, Some(row(id, 0, None, n))).await?;
    }
    let running = back.start();
    back.until_read().await?;
    let ids: Vec<i64> = back.sql.query("SELECT id FROM t ORDER BY id").await?;
    assert_eq!(ids, [0, 1, 2, 4, 5]);
    let topic = back.stage.kafka.topics().reverse_dead_letters();
    let letters = read_all(&back.stage.kafka, &topic).await?;
    let letters: Vec<DeadLetter> = letters
        .iter()
        .filter_map(|record| record.value.as_deref())
        .map(decode_control)
        .collect::<Result<_, _>>()?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].cause.contains("3819") && letters[0].version > 0, "{letters:?}");
    let small = |_: Option<&Row>| Decision::<()>::Become(Some(row(3, 0, None, 99)));
    gateway.write(3, request(), small).await?;
    back.until_equal().await?;

    // A table that is gone, and a value that its column cannot hold.
    back.sql.query_drop("RENAME TABLE t TO gone").await?;
    gateway.put(7, Some(row(7, 0, None, 7))).await?;
    gateway.put(0, None).await?;
    back.until_read().await?;
    back.sql.query_drop("ALTER TABLE gone MODIFY a VARCHAR(20) CHARACTER SET latin1").await?;
    back.sql.query_drop("RENAME TABLE gone TO t").await?;
    gateway.put(8, Some(row(8, 0, Some("☃"), 8))).await?;
    gateway.put(9, Some(row(9, 0, Some("é"), 9))).await?;
    back.until_read().await?;
    let letters = DeadLetters::follow_reverse(&back.stage.kafka).await?;
    eventually("only the value to be refused", MINUTE, async || {
        let open = letters.all();
        Ok(Probe::when(open.len() == 1, format!("{open:?}")))
    })
    .await?;
    let ids: Vec<i64> = back.sql.query("SELECT id FROM t ORDER BY id").await?;
    assert_eq!(ids, [1, 2, 3, 4, 5, 7, 9]);
    back.sql.query_drop("ALTER TABLE t MODIFY a VARCHAR(20) CHARACTER SET utf8mb4").await?;
    running.check()?;
    let equal = back.until_equal().await;
    running.check()?;
    equal?;
    running.end().await?;
    back.end().await
}

/// The command, as an operator sees it.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_how_far_reverse_is() -> anyhow::Result<()> {
    let mut back = Back::new("reversecommand").await?;
    back.sql.query_drop("ALTER TABLE t ADD CONSTRAINT small CHECK (n < 100)").await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("tandem.toml");
    let text = format!(
        "[reverse]\nmax_records = 10\n[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {:?}\n[cassandra]\nnodes = \
         {:?}\nkeyspace = \"unused\"\n[http]\nlisten = \"127.0.0.1:0\"\n[[table]]\nsource = \"{}.t\"\n\
         [[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n",
        mysql_url(),
        brokers(),
        back.stage.kafka.prefix,
        nodes(),
        back.database,
    );
    std::fs::write(&config, text)?;
    let json = async |arguments: &[&str]| -> anyhow::Result<serde_json::Value> {
        let done = finish(Migration::command_with(&config, arguments)).await?;
        anyhow::ensure!(done.success, "{arguments:?}: {}", done.stderr);
        Ok(serde_json::from_str(&done.stdout)?)
    };
    let gateway = back.stage.gateway(1).await?;
    for id in 0..6 {
        gateway.put(id, Some(row(id, 0, None, if id == 3 { 100 } else { id }))).await?;
    }
    let status = json(&["status", "--json"]).await?;
    assert_eq!(status["reverse"], serde_json::json!({ "lag_records": 6, "dead_letters": 0 }));

    let log = folder.path().join("reverse.log");
    let mut running = Process::of(Migration::command_with(&config, &["reverse"]), log)?;
    eventually("reverse to have read the log", MINUTE, async || {
        running.check()?;
        let status = json(&["status", "--json"]).await?;
        let expected = serde_json::json!({ "lag_records": 0, "dead_letters": 1 });
        Ok(Probe::when(status["reverse"] == expected, format!("{status}; {}", running.tail())))
    })
    .await?;
    let ids: Vec<i64> = back.sql.query("SELECT id FROM t ORDER BY id").await?;
    assert_eq!(ids, [0, 1, 2, 4, 5]);
    let letters = json(&["dead-letters", "list", "--of", "reverse", "--json"]).await?;
    let letter = &letters["dead_letters"][0];
    assert_eq!(letter["reason"], "refused-by-mysql", "{letters}");
    let place = letter["place"].as_str().unwrap_or_default();
    json(&["dead-letters", "discard", "--of", "reverse", "--reason", "too large", "--json", place]).await?;
    let status = json(&["status", "--json"]).await?;
    assert_eq!(status["reverse"]["dead_letters"], 0, "{status}");
    running.terminate().await?;
    back.end().await
}

/// Rows exchange their unique values, in one transaction or by way of dead letters. A value that something else holds is
/// written as soon as it is free.
#[tokio::test(flavor = "multi_thread")]
async fn unique_values_move_between_rows() -> anyhow::Result<()> {
    let mut back = Back::new("reverseunique").await?;
    back.sql.query_drop("ALTER TABLE t ADD UNIQUE (n), ADD g BIGINT AS (n + 1) STORED").await?;
    let gateway = back.stage.gateway(1).await?;
    let put = async |id: i64, n: i64| gateway.put(id, Some(row(id, 0, None, n))).await;
    for id in 0..5 {
        put(id, id).await?;
    }
    let running = back.start();
    back.until_equal().await?;
    // While it reads, so that some of these records may come alone.
    for round in 1..6 {
        for id in 0..5 {
            put(id, 100 + (id + round) % 5).await?;
            put((id + 2) % 5, (id + round) % 5).await?;
        }
    }
    for id in 0..5 {
        put(id, 1000 + id).await?;
    }
    back.until_equal().await?;
    running.end().await?;
    for id in 0..5 {
        put(id, 1000 + (id + 1) % 5).await?;
    }
    back.sql.query_drop("INSERT INTO t (id, k, n) VALUES (99, 0, 77)").await?;
    put(6, 77).await?;
    let running = back.start();
    back.until_read().await?;
    let letters = DeadLetters::follow_reverse(&back.stage.kafka).await?;
    eventually("only the taken value to be a dead letter", MINUTE, async || {
        let open = letters.all();
        Ok(Probe::when(open.len() == 1, format!("{open:?}")))
    })
    .await?;
    back.sql.query_drop("DELETE FROM t WHERE id = 99").await?;
    for table in ["t", "tandem_reverse_versions"] {
        back.sql.query_drop(format!("CREATE TABLE dump_{table} AS SELECT * FROM {table}")).await?;
    }
    back.until_equal().await?;
    eventually("the dead letter to be settled", MINUTE, async || {
        let open = letters.all();
        Ok(Probe::when(open.is_empty(), format!("{open:?}")))
    })
    .await?;
    running.end().await?;

    // MySQL fails over and has lost only the transaction of the dead letter.
    back.sql.query_drop("DELETE FROM t").await?;
    back.sql.query_drop("INSERT INTO t (id, k, a, n) SELECT id, k, a, n FROM dump_t").await?;
    back.sql.query_drop("DELETE FROM tandem_reverse_versions").await?;
    back.sql
        .query_drop("INSERT INTO tandem_reverse_versions SELECT * FROM dump_tandem_reverse_versions")
        .await?;
    let running = back.start();
    back.until_equal().await?;
    assert_eq!(letters.all(), []);
    running.end().await?;
    back.end().await
}

/// Keys that MySQL's collation takes for the same are different rows in Cassandra. None replaces or deletes the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_collation_takes_for_another_is_refused() -> anyhow::Result<()> {
    let mysql = MysqlConfig::new(mysql_url(), random_server_id());
    let mut sql = Conn::from_url(mysql_url()).await?;
    let database = format!("reversecollation_{}", unique_id());
    sql.query_drop(format!("CREATE DATABASE {database}")).await?;
    sql.query_drop(format!("CREATE TABLE {database}.t (k VARCHAR(20) PRIMARY KEY, n INT)")).await?;
    sql.query_drop(format!("INSERT INTO {database}.t VALUES ('A', 1), ('b', 2)")).await?;
    let table = Mysql::connect(&mysql).await?.table_def(&TableName::new(&database, "t")).await?;
    let mut session = ReverseSession::open(&mysql, &database).await?;
    let key = |k: &str| vec![Value::Text(k.into())];
    session.begin().await?;
    let row = vec![Value::Text("a".into()), Value::Int(3)];
    let error = session.put(&table, &[&row]).await.unwrap_err().to_string();
    assert!(error.contains("1062"), "{error}");
    session.roll_back().await?;
    session.begin().await?;
    let deleted = session.delete(&table, &[key("a"), key("b"), key("c")]).await?;
    assert_eq!(deleted, Deleted { rows: 1, others: 1 });
    session.commit().await?;
    let left: Vec<(String, i32)> = sql.query(format!("SELECT k, n FROM {database}.t")).await?;
    assert_eq!(left, [("A".to_owned(), 1)]);
    sql.query_drop(format!("DROP DATABASE {database}")).await?;
    Ok(())
}

/// Two of them share the partitions, and one ends.
#[tokio::test(flavor = "multi_thread")]
async fn two_reverses_share_the_log() -> anyhow::Result<()> {
    let mut back = Back::new("reversetwo").await?;
    let gateway = Arc::new(back.stage.gateway(1).await?);
    let (first, second) = (back.start(), back.start());
    let writer = {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            for round in 0..6 {
                write_some(&gateway, round).await?;
            }
            anyhow::Ok(())
        })
    };
    tokio::time::timeout(Duration::from_secs(50), async {
        back.until_read_some().await?;
        first.end().await
    })
    .await??;
    writer.await??;
    back.until_equal().await?;
    second.end().await?;
    back.end().await
}

impl Back {
    /// Waits until reverse has begun.
    async fn until_read_some(&mut self) -> anyhow::Result<()> {
        let sum = format!("SELECT SUM(next_offset) FROM {}.tandem_reverse_offsets", self.database);
        eventually("reverse to begin", MINUTE, async || {
            // The table may not be there yet.
            let read = self.sql.query_first::<Option<i64>, _>(&sum).await.ok().flatten().flatten();
            Ok(Probe::when(read > Some(0), format!("{read:?}")))
        })
        .await
    }
}
