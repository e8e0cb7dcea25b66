//! What stops capture for a while, and what it must not survive. Each test prints how long it took until
//! the fault was noticed, and until changes came again.

use tandem_devstack::{Kafka, Mysql, MysqlOptions};
use tandem_model::Value;

use super::*;
use crate::link::Link;

/// A capture that must go on, with the servers it depends on.
struct Stage {
    migration: Migration,
    topic: String,
    next: i64,
}

impl Stage {
    async fn new(servers: Servers, test: &str) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[TABLE]).await?;
        let topic = Topics::new(&migration.prefix).changes(&TableName::new(&migration.database, "t"));
        Ok(Self { migration, topic, next: 1 })
    }

    fn host(&self) -> String {
        self.migration.servers.mysql_url.split('@').next_back().unwrap_or_default().to_owned()
    }

    fn capture(&self, name: &str) -> anyhow::Result<Running> {
        let log = self.migration.folder.path().join(format!("{name}.log"));
        Running::of(self.migration.command(&["capture"]), log)
    }

    /// A row, by a connection of its own.
    async fn insert(&mut self, url: &str) -> anyhow::Result<()> {
        let mut conn = mysql_async::Conn::from_url(url).await?;
        conn.query_drop(format!("INSERT INTO {}.t VALUES ({}, 0, '')", self.migration.database, self.next))
            .await?;
        self.next += 1;
        Ok(conn.disconnect().await?)
    }

    async fn ids(&self) -> anyhow::Result<Vec<i64>> {
        let id = |change: &Change| match change.after.as_ref().map(|row| &row[0]) {
            Some(Value::Int(id)) => *id,
            other => panic!("{other:?}"),
        };
        Ok(changes(&self.migration, &self.topic).await?.iter().map(|(_, change)| id(change)).collect())
    }

    /// Waits until every row is on the log, once. How long that took.
    async fn all_there(&self, captures: &mut [&mut Running]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let expected: Vec<i64> = (1..self.next).collect();
        loop {
            // The topics are there before the first capture has ended its start, or Kafka is away.
            let found = self.ids().await.unwrap_or_default();
            if found == expected {
                return Ok(began.elapsed());
            }
            for capture in &mut *captures {
                capture.check()?;
            }
            let tails: Vec<String> = captures.iter().map(|c| c.tail()).collect();
            anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "{found:?}: {}", tails.join("\n--\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until a log says so once more than it did. How long that took.
async fn says(capture: &mut Running, text: &str, before: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while capture.log().matches(text).count() <= before {
        anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "never said {text:?}: {}", capture.tail());
        capture.check()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}

/// Waits for its end, and gives its log.
async fn ended(capture: &mut Running) -> anyhow::Result<String> {
    let began = Instant::now();
    while capture.check().is_ok() {
        anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "it goes on: {}", capture.tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(capture.log())
}

fn print(what: &str, noticed: Duration, resumed: Duration) {
    let _ = writeln!(
        std::io::stderr(),
        "{what}: noticed after {:.1} s, changes on the log again {:.1} s after it was over",
        noticed.as_secs_f64(),
        resumed.as_secs_f64()
    );
}

const BACK: &str = "goes back to its last watermark";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "deadlink").await?;
    let direct = stage.migration.servers.mysql_url.clone();
    let host = stage.host();
    let link = Link::to(&host).await?;
    stage.migration.servers.mysql_url = direct.replace(&host, &link.address);
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&direct).await?;
    stage.all_there(&mut [&mut capture]).await?;
    link.hold(true);
    stage.insert(&direct).await?;
    let noticed = says(&mut capture, BACK, 0).await?;
    // Two heartbeats, and what a busy machine adds.
    assert!(noticed < Duration::from_secs(8), "{noticed:?}");
    link.hold(false);
    let resumed = stage.all_there(&mut [&mut capture]).await?;
    print("dead link", noticed, resumed);
    capture.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_paused_and_restarted() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let mysql = Mysql::ephemeral(&MysqlOptions::default())?;
    servers.mysql_url = mysql.url();
    let mut stage = Stage::new(servers, "mysqldown").await?;
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&mysql.url()).await?;
    stage.all_there(&mut [&mut capture]).await?;

    mysql.pause()?;
    let noticed = says(&mut capture, BACK, 0).await?;
    mysql.resume()?;
    stage.insert(&mysql.url()).await?;
    print("MySQL paused", noticed, stage.all_there(&mut [&mut capture]).await?);

    for (what, crash) in [("MySQL restarted", false), ("MySQL killed", true)] {
        let before = capture.log().matches(BACK).count();
        if crash {
            mysql.kill()?;
        } else {
            mysql.stop()?;
        }
        let noticed = says(&mut capture, BACK, before).await?;
        mysql.restart()?;
        stage.insert(&mysql.url()).await?;
        print(what, noticed, stage.all_there(&mut [&mut capture]).await?);
    }
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_killed_and_restarted() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let mut stage = Stage::new(servers, "kafkadown").await?;
    let url = stage.migration.servers.mysql_url.clone();
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&url).await?;
    stage.all_there(&mut [&mut capture]).await?;
    kafka.kill()?;
    stage.insert(&url).await?;
    let noticed = says(&mut capture, "brokers are down", 0).await?;
    kafka.restart()?;
    stage.insert(&url).await?;
    print("Kafka killed", noticed, stage.all_there(&mut [&mut capture]).await?);
    capture.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_and_a_zombie_is_fenced() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "standby").await?;
    let url = stage.migration.servers.mysql_url.clone();
    stage.migration.configure("", MAPPING)?;
    let mut first = stage.capture("first")?;
    says(&mut first, "reading the binlog", 0).await?;
    stage.insert(&url).await?;
    stage.all_there(&mut [&mut first]).await?;
    let mut second = stage.capture("second")?;
    says(&mut second, "this one stands by", 0).await?;
    stage.insert(&url).await?;
    stage.all_there(&mut [&mut first, &mut second]).await?;
    assert!(!second.log().contains("reading the binlog"), "{}", second.tail());

    // Stopped, not dead: it goes on later, and does not know.
    first.signal("STOP")?;
    let noticed = says(&mut second, "taking over", 0).await?;
    stage.insert(&url).await?;
    let resumed = stage.all_there(&mut [&mut second]).await?;
    print("capture stopped, standby", noticed, resumed);
    first.signal("CONT")?;
    stage.insert(&url).await?;
    // It is fenced, or notices first that its connection is dead, and sees that another one publishes.
    says(&mut first, "another capture publishes: this one stands by", 0).await?;
    stage.insert(&url).await?;
    stage.all_there(&mut [&mut first, &mut second]).await?;

    second.kill()?;
    let noticed = says(&mut first, "taking over", 0).await?;
    stage.insert(&url).await?;
    print("capture killed, standby", noticed, stage.all_there(&mut [&mut first]).await?);
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    first.terminate().await?;
    stage.migration.drop().await
}

/// A primary and a replica of it.
fn replicated() -> anyhow::Result<(Mysql, Mysql)> {
    let primary = Mysql::ephemeral(&MysqlOptions::default())?;
    let replica = Mysql::ephemeral(&MysqlOptions { extra_args: vec!["--server-id=2".into()] })?;
    primary.query("CREATE USER r IDENTIFIED BY ''; GRANT REPLICATION SLAVE ON *.* TO r")?;
    replica.query(&format!(
        "RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, \
         SOURCE_USER='r', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1; START REPLICA",
        primary.port()
    ))?;
    Ok((primary, replica))
}

/// Waits until the replica has everything.
async fn caught_up(primary: &Mysql, replica: &Mysql) -> anyhow::Result<()> {
    let began = Instant::now();
    let executed: GtidSet =
        primary.query("SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?;
    loop {
        let there: GtidSet =
            replica.query("SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?;
        if executed.is_subset(&there) {
            return Ok(());
        }
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(30),
            "{there} lacks {}",
            executed.minus(&there)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_promoted() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let (primary, replica) = replicated()?;
    servers.mysql_url = primary.url();
    let mut stage = Stage::new(servers, "failover").await?;
    let host = stage.host();
    let link = Link::to(&host).await?;
    stage.migration.servers.mysql_url = primary.url().replace(&host, &link.address);
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&primary.url()).await?;
    stage.insert(&primary.url()).await?;
    stage.all_there(&mut [&mut capture]).await?;
    caught_up(&primary, &replica).await?;

    primary.kill()?;
    let noticed = says(&mut capture, BACK, 0).await?;
    replica.query("STOP REPLICA; RESET REPLICA ALL")?;
    link.lead_to(&replica.url().replace("mysql://root@", ""));
    stage.insert(&replica.url()).await?;
    let resumed = stage.all_there(&mut [&mut capture]).await?;
    print("primary killed, replica promoted", noticed, resumed);
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_captured_transactions_is_refused() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let (primary, replica) = replicated()?;
    servers.mysql_url = primary.url();
    let mut stage = Stage::new(servers, "lostgtids").await?;
    let host = stage.host();
    let link = Link::to(&host).await?;
    stage.migration.servers.mysql_url = primary.url().replace(&host, &link.address);
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&primary.url()).await?;
    caught_up(&primary, &replica).await?;
    replica.query("STOP REPLICA")?;
    stage.insert(&primary.url()).await?;
    stage.all_there(&mut [&mut capture]).await?;
    let lost = watermarks(&stage.migration).await?.pop().expect("there are watermarks").gtid_set;
    let there: GtidSet = replica.query("SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?;
    let lost = lost.minus(&there).to_string();
    primary.kill()?;
    link.lead_to(&replica.url().replace("mysql://root@", ""));
    let log = ended(&mut capture).await?;
    assert!(
        log.contains("lacks transactions that were already published") && log.contains(&lost),
        "{lost}: {log}"
    );
    // There is no server that has them: the log goes on without them.
    stage.migration.succeed(&["resnapshot", "--yes"]).await?;
    let mut capture = stage.capture("again")?;
    stage.insert(&replica.url()).await?;
    stage.all_there(&mut [&mut capture]).await?;
    let log = changes(&stage.migration, &stage.topic).await?;
    in_order(&log, &watermarks(&stage.migration).await?, &stage.topic);
    capture.terminate().await
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_binlogs_stop_capture() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let mysql = Mysql::ephemeral(&MysqlOptions::default())?;
    servers.mysql_url = mysql.url();
    let mut stage = Stage::new(servers, "purged").await?;
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&mysql.url()).await?;
    stage.all_there(&mut [&mut capture]).await?;
    capture.kill()?;
    stage.insert(&mysql.url()).await?;
    let file = mysql.query("FLUSH BINARY LOGS; SHOW BINARY LOG STATUS")?;
    let file = file.split_whitespace().next().expect("there is a binlog").to_owned();
    mysql.query(&format!("PURGE BINARY LOGS TO '{file}'"))?;
    let mut capture = stage.capture("again")?;
    let log = ended(&mut capture).await?;
    assert!(log.contains("purged") && log.contains("`tandem resnapshot`"), "{log}");
    Ok(())
}

/// What a capture tells of itself, and what people see of the log.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_readiness_and_tail() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "tell").await?;
    let direct = stage.migration.servers.mysql_url.clone();
    let host = stage.host();
    let link = Link::to(&host).await?;
    stage.migration.servers.mysql_url = direct.replace(&host, &link.address);
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&direct).await?;
    stage.insert(&direct).await?;
    stage.all_there(&mut [&mut capture]).await?;
    let log = capture.log();
    let address =
        log.lines().find_map(|l| l.split("address=").nth(1)).expect("it says where").trim().to_owned();
    let get = |path: &str| -> anyhow::Result<(u16, String)> {
        let agent =
            ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let mut answer = agent.get(format!("http://{address}/{path}")).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    };
    let table = format!("{}.t", stage.migration.database);
    let counted = format!("tandem_capture_table_rows_total{{table=\"{table}\",op=\"c\"}} 2");
    let began = Instant::now();
    // Counted once Kafka has answered.
    while !get("metrics")?.1.contains(&counted) {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", get("metrics")?.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(get("metrics")?.1.contains("tandem_capture_seconds_behind_source"));
    assert_eq!(get("readyz")?.0, 200);

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

    link.hold(true);
    says(&mut capture, BACK, 0).await?;
    let (status, text) = get("readyz")?;
    assert_eq!((status, text.as_str()), (503, "the binlog is not being read\n"));
    link.hold(false);
    capture.terminate().await?;
    stage.migration.drop().await
}

/// A swap of tables as online schema changes make it: the rows of the new table were written under
/// another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_tables_stops_capture_before_rows_of_the_new_one() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "swap").await?;
    let url = stage.migration.servers.mysql_url.clone();
    stage.migration.configure("", MAPPING)?;
    let mut capture = stage.capture("capture")?;
    says(&mut capture, "reading the binlog", 0).await?;
    stage.insert(&url).await?;
    stage.all_there(&mut [&mut capture]).await?;
    for sql in [
        "CREATE TABLE _t_gho LIKE t",
        "ALTER TABLE _t_gho MODIFY COLUMN v BIGINT NOT NULL",
        "INSERT INTO _t_gho SELECT * FROM t",
        "RENAME TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (666, 0, 'of the new table')",
    ] {
        stage.migration.mysql.query_drop(sql).await?;
    }
    let log = ended(&mut capture).await?;
    assert!(
        log.contains("RENAME TABLE") && log.contains("binlog.") && log.contains(".t in transaction"),
        "{log}"
    );
    assert_eq!(stage.ids().await?, [1]);
    stage.migration.drop().await
}
