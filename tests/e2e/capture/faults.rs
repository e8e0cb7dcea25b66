//! Faults that stop capture for a while, and faults that must stop it for good. Each test prints the time
//! until the fault was noticed, and until changes were published again.

use std::time::Instant;

use tandem_devstack::{Kafka, Mysql};
use tandem_model::GtidSet;

use super::*;
use crate::support::{Fault, Link, connect, host_of, http, own_server};

/// A migration whose capture must continue.
struct Stage {
    migration: Migration,
    topic: String,
    next: i64,
}

impl Stage {
    async fn new(servers: Servers, test: &str) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[T_WITH_TEXT]).await?;
        let topic = migration.topics().changes(&migration.table("t"));
        Ok(Self { migration, topic, next: 1 })
    }

    /// Connects capture to MySQL over a link.
    async fn link(&mut self) -> anyhow::Result<Link> {
        let (link, url) = Link::to_mysql(&self.migration.servers.mysql_url).await?;
        self.migration.servers.mysql_url = url;
        Ok(link)
    }

    fn capture(&self, name: &str) -> anyhow::Result<Running> {
        self.migration.start_as(name, &["capture"])
    }

    /// A capture that reads the binlog and has published a first row.
    async fn publishing(&mut self, url: &str) -> anyhow::Result<Running> {
        self.migration.configure("", T_MAPPING)?;
        let mut capture = self.capture("capture")?;
        capture.until_logged(READING, 0).await?;
        self.insert(url).await?;
        self.until_published(&mut [&mut capture]).await?;
        Ok(capture)
    }

    /// Inserts a row, over a separate connection.
    async fn insert(&mut self, url: &str) -> anyhow::Result<()> {
        let mut conn = connect(url, &self.migration.database).await?;
        conn.query_drop(format!("INSERT INTO t VALUES ({}, 0, '')", self.next)).await?;
        self.next += 1;
        Ok(conn.disconnect().await?)
    }

    async fn ids(&self) -> anyhow::Result<Vec<i64>> {
        ids(&self.migration, &self.topic).await
    }

    /// Waits until every row is on the log exactly once. Returns how long that took.
    async fn until_published(&self, captures: &mut [&mut Running]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let expected: Vec<i64> = (1..self.next).collect();
        eventually("every row to be on the log", MINUTE, async || {
            // There are no topics before the first capture has started, nor while Kafka is down.
            let found = self.ids().await.unwrap_or_default();
            if found == expected {
                return Ok(Probe::Done(()));
            }
            for capture in &mut *captures {
                capture.check()?;
            }
            let tails: Vec<String> = captures.iter().map(|c| c.tail()).collect();
            Ok(Probe::Pending(format!("{found:?}: {}", tails.join("\n--\n"))))
        })
        .await?;
        Ok(began.elapsed())
    }
}

fn print(what: &str, noticed: Duration, resumed: Duration) {
    let _ = writeln!(
        std::io::stderr(),
        "{what}: noticed after {:.1} s, changes on the log again {:.1} s after it was over",
        noticed.as_secs_f64(),
        resumed.as_secs_f64()
    );
}

/// The message of a capture that starts to read the binlog.
const READING: &str = "reading the binlog";
/// The message of a capture that has lost MySQL or Kafka.
const BACK: &str = "goes back to its last watermark";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "deadlink").await?;
    let direct = stage.migration.servers.mysql_url.clone();
    let link = stage.link().await?;
    let mut capture = stage.publishing(&direct).await?;
    link.set(Fault::Hold);
    stage.insert(&direct).await?;
    let noticed = capture.until_logged(BACK, 0).await?;
    // Two heartbeats, plus the delay of a busy machine.
    assert!(noticed < Duration::from_secs(8), "{noticed:?}");
    link.set(Fault::None);
    let resumed = stage.until_published(&mut [&mut capture]).await?;
    print("dead link", noticed, resumed);
    capture.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_paused_and_restarted() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    let mut stage = Stage::new(servers, "mysqldown").await?;
    let mut capture = stage.publishing(&mysql.url()).await?;

    mysql.pause()?;
    let noticed = capture.until_logged(BACK, 0).await?;
    mysql.resume()?;
    stage.insert(&mysql.url()).await?;
    print("MySQL paused", noticed, stage.until_published(&mut [&mut capture]).await?);

    for (what, crash) in [("MySQL restarted", false), ("MySQL killed", true)] {
        let before = capture.logged(BACK);
        if crash {
            mysql.kill()?;
        } else {
            mysql.stop()?;
        }
        let noticed = capture.until_logged(BACK, before).await?;
        mysql.restart()?;
        stage.insert(&mysql.url()).await?;
        print(what, noticed, stage.until_published(&mut [&mut capture]).await?);
    }
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_killed_and_restarted() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let mut stage = Stage::new(servers, "kafkadown").await?;
    let url = stage.migration.servers.mysql_url.clone();
    let mut capture = stage.publishing(&url).await?;
    kafka.kill()?;
    stage.insert(&url).await?;
    let noticed = capture.until_logged("brokers are down", 0).await?;
    kafka.restart()?;
    stage.insert(&url).await?;
    print("Kafka killed", noticed, stage.until_published(&mut [&mut capture]).await?);
    capture.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_and_a_zombie_is_fenced() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "standby").await?;
    let url = stage.migration.servers.mysql_url.clone();
    let mut first = stage.publishing(&url).await?;
    let mut second = stage.capture("second")?;
    second.until_logged("this one stands by", 0).await?;
    stage.insert(&url).await?;
    stage.until_published(&mut [&mut first, &mut second]).await?;
    assert!(!second.log().contains(READING), "{}", second.tail());

    // Paused, not dead: it resumes later and does not know that it was paused.
    first.signal("STOP")?;
    let noticed = second.until_logged("taking over", 0).await?;
    stage.insert(&url).await?;
    let resumed = stage.until_published(&mut [&mut second]).await?;
    print("capture stopped, standby", noticed, resumed);
    first.signal("CONT")?;
    stage.insert(&url).await?;
    // Either it is fenced, or it first notices its dead connection. In both cases it sees the other
    // publisher.
    first.until_logged("another capture publishes: this one stands by", 0).await?;
    stage.insert(&url).await?;
    stage.until_published(&mut [&mut first, &mut second]).await?;

    second.kill()?;
    let noticed = first.until_logged("taking over", 0).await?;
    stage.insert(&url).await?;
    print("capture killed, standby", noticed, stage.until_published(&mut [&mut first]).await?);
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    first.terminate().await?;
    stage.migration.drop().await
}

/// A primary and a replica of it.
fn replicated() -> anyhow::Result<(Mysql, Mysql)> {
    let primary = own_server(&[])?;
    let replica = own_server(&["--server-id=2"])?;
    primary.query("CREATE USER r IDENTIFIED BY ''; GRANT REPLICATION SLAVE ON *.* TO r")?;
    replica.query(&format!(
        "RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, \
         SOURCE_USER='r', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1; START REPLICA",
        primary.port()
    ))?;
    Ok((primary, replica))
}

/// The GTIDs that a server has executed.
fn executed(server: &Mysql) -> anyhow::Result<GtidSet> {
    Ok(server.query("SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?)
}

/// Waits until the replica has all transactions.
async fn until_replicated(primary: &Mysql, replica: &Mysql) -> anyhow::Result<()> {
    let wanted = executed(primary)?;
    eventually("the replica to have everything", Duration::from_secs(30), async || {
        let lacking = wanted.minus(&executed(replica)?);
        Ok(Probe::when(wanted.is_subset(&executed(replica)?), format!("it lacks {lacking}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_promoted() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let (primary, replica) = replicated()?;
    servers.mysql_url = primary.url();
    let mut stage = Stage::new(servers, "failover").await?;
    let link = stage.link().await?;
    let mut capture = stage.publishing(&primary.url()).await?;
    stage.insert(&primary.url()).await?;
    stage.until_published(&mut [&mut capture]).await?;
    until_replicated(&primary, &replica).await?;

    primary.kill()?;
    let noticed = capture.until_logged(BACK, 0).await?;
    replica.query("STOP REPLICA; RESET REPLICA ALL")?;
    link.lead_to(host_of(&replica.url()));
    stage.insert(&replica.url()).await?;
    let resumed = stage.until_published(&mut [&mut capture]).await?;
    print("primary killed, replica promoted", noticed, resumed);
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_captured_transactions_is_refused() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let (primary, replica) = replicated()?;
    servers.mysql_url = primary.url();
    let mut stage = Stage::new(servers, "lostgtids").await?;
    let link = stage.link().await?;
    let mut capture = stage.publishing(&primary.url()).await?;
    until_replicated(&primary, &replica).await?;
    replica.query("STOP REPLICA")?;
    stage.insert(&primary.url()).await?;
    stage.until_published(&mut [&mut capture]).await?;
    let lost = watermarks(&stage.migration).await?.pop().expect("there are watermarks").gtid_set;
    let lost = lost.minus(&executed(&replica)?).to_string();
    primary.kill()?;
    link.lead_to(host_of(&replica.url()));
    let log = capture.until_ended().await?;
    assert!(
        log.contains("lacks transactions that were already published") && log.contains(&lost),
        "{lost}: {log}"
    );
    // No server has these transactions. The log continues without them.
    stage.migration.succeed(&["resnapshot", "--yes"]).await?;
    let mut capture = stage.capture("again")?;
    stage.insert(&replica.url()).await?;
    stage.until_published(&mut [&mut capture]).await?;
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_binlogs_stop_capture() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    let mut stage = Stage::new(servers, "purged").await?;
    let mut capture = stage.publishing(&mysql.url()).await?;
    capture.kill()?;
    stage.insert(&mysql.url()).await?;
    let file = mysql.query("FLUSH BINARY LOGS; SHOW BINARY LOG STATUS")?;
    let file = file.split_whitespace().next().expect("there is a binlog").to_owned();
    mysql.query(&format!("PURGE BINARY LOGS TO '{file}'"))?;
    let mut capture = stage.capture("again")?;
    let log = capture.until_ended().await?;
    assert!(log.contains("purged") && log.contains("`tandem resnapshot`"), "{log}");
    Ok(())
}

/// Capture's own metrics and readiness, and the log as `tandem tail` prints it.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_readiness_and_tail() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "observed").await?;
    let direct = stage.migration.servers.mysql_url.clone();
    let link = stage.link().await?;
    let mut capture = stage.publishing(&direct).await?;
    stage.insert(&direct).await?;
    stage.until_published(&mut [&mut capture]).await?;
    let port = capture.metrics_ports()[0];
    let get = async |path: &str| http(port, "GET", path, &[], "").await;
    let table = format!("{}.t", stage.migration.database);
    let counted = format!("tandem_capture_rows_total{{table=\"{table}\",op=\"c\"}} 2");
    // Rows are counted once Kafka has acknowledged them.
    eventually("both rows to be counted", Duration::from_secs(20), async || {
        let metrics = get("/metrics").await?.body;
        Ok(Probe::when(metrics.contains(&counted), metrics))
    })
    .await?;
    assert!(get("/metrics").await?.body.contains("tandem_capture_source_lag_seconds"));
    assert_eq!(get("/readyz").await?.status, 200);

    let printed =
        stage.migration.succeed(&["tail", "--from", "beginning", "--table", &table, "-n", "2"]).await?;
    let lines: Vec<serde_json::Value> =
        printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.iter().map(|l| &l["after"]["id"]).collect::<Vec<_>>(), [1, 2], "{printed}");
    assert_eq!((&lines[0]["op"], &lines[0]["table"]), (&"c".into(), &table.clone().into()));
    let second = lines[1]["version"].to_string();
    let from_second = stage.migration.succeed(&["tail", "--from", &second, "-n", "1"]).await?;
    assert_eq!(from_second, printed.lines().nth(1).map(|l| format!("{l}\n")).unwrap_or_default());
    let unknown = stage.migration.tandem(&["tail", "--table", "a.b"]).await?;
    assert!(!unknown.success && unknown.stderr.contains(&table), "{unknown:?}");

    link.set(Fault::Hold);
    capture.until_logged(BACK, 0).await?;
    let unready = get("/readyz").await?;
    assert_eq!((unready.status, unready.body.as_str()), (503, "the binlog is not being read\n"));
    link.set(Fault::None);
    capture.terminate().await?;
    stage.migration.drop().await
}

/// A swap of tables as online schema changes make it. The rows of the new table were written under another
/// name, so the table is to be verified before its next change is on the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_tables_has_its_table_verified_and_goes_on() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "swap").await?;
    let url = stage.migration.servers.mysql_url.clone();
    let mut capture = stage.publishing(&url).await?;
    for sql in [
        "CREATE TABLE _t_gho LIKE t",
        "ALTER TABLE _t_gho MODIFY COLUMN v BIGINT NOT NULL",
        "INSERT INTO _t_gho SELECT * FROM t",
        "RENAME TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (666, 0, 'of the new table')",
    ] {
        stage.migration.mysql.query_drop(sql).await?;
    }
    stage.migration.until_captured(&mut capture).await?;
    let status = stage.migration.status().await?;
    let why = &status["tables"][0]["not_live"];
    assert_eq!(
        (&why["reason"], &status["tables"][0]["state"]),
        (&"rename-table".into(), &"verifying".into())
    );
    assert_eq!(stage.ids().await?, [1, 666]);
    capture.terminate().await?;
    stage.migration.drop().await
}
