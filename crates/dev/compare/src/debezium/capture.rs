//! Runs the statements once while both captures run.
//!
//! Both are started before the statements, so that they read the binlog from its first event. A marker table
//! shows that they read, and later that they have read everything.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Debezium, Kafka, Mysql, MysqlOptions};

use super::binlog::{self, Ends};
use super::events::{Event, Schemas, by_table, of_debezium, of_tandem};
use crate::captures::{self, Layout, Mapped};
use crate::process::Tandem;
use crate::stores::schema;
use crate::topic::Topic;

/// The marker table: database and name.
const MARKS: (&str, &str) = ("tandem_marks", "marks");

/// How long either may take to publish everything.
const TIMEOUT: Duration = Duration::from_mins(5);

/// After this time without new records, everything counts as captured.
const QUIET: Duration = Duration::from_secs(2);

/// A table and its events of both captures.
pub(super) struct TableEvents {
    /// `database.table`.
    pub(super) name: String,
    pub(super) has_key: bool,
    pub(super) theirs: Vec<Event>,
    pub(super) ours: Vec<Event>,
}

/// Everything that was captured.
pub(super) struct Captured {
    pub(super) tables: Vec<TableEvents>,
    pub(super) ends: Ends,
}

/// Runs the statements, on servers of its own.
pub(super) async fn both(binary: PathBuf, layout: Layout, sql: &str) -> Result<Captured> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let mysql = Mysql::ephemeral(&MysqlOptions::default())?;
    let kafka = Kafka::ephemeral()?;
    let mut conn = schema::mysql(&mysql.url()).await?;
    let (database, table) = MARKS;
    for statement in [
        "CREATE DATABASE compare".to_owned(),
        format!("CREATE DATABASE {database}"),
        format!("CREATE TABLE {database}.{table} (id INT AUTO_INCREMENT PRIMARY KEY)"),
    ] {
        conn.query_drop(&statement).await.context(statement)?;
    }
    let marks = Mapped { database: database.to_owned(), table: table.to_owned(), key: vec!["id".to_owned()] };

    let only_marks = std::slice::from_ref(&marks);
    let (mut tandem, _) =
        captures::tandem(binary.clone(), folder.path(), &mysql, &kafka, layout, only_marks)?;
    let debezium = Debezium::ephemeral(&captures::debezium(
        &mysql,
        &kafka,
        "1g",
        layout,
        &[],
        &[("provide.transaction.metadata", "true"), ("bigint.unsigned.handling.mode", "precise")],
    ))?;
    tandem.start()?;
    let marks_in = [marks.topic_of_tandem(layout), marks.topic_of_debezium(layout)];
    for topic in &marks_in {
        first_mark(&mut conn, &kafka, topic, &mut tandem).await?;
    }
    // It is started again below, once the tables are known.
    tandem.terminate().await?;

    run(&mysql, sql)?;
    let mut mapped = vec![marks];
    let mut keyless = Vec::new();
    for table in tables(&mut conn).await? {
        if table.key.is_empty() { keyless.push(table) } else { mapped.push(table) }
    }
    let (mut tandem, url) = captures::tandem(binary, folder.path(), &mysql, &kafka, layout, &mapped)?;
    tandem.start()?;
    all_there(&mut conn, &kafka, &marks_in, &mut tandem, &debezium).await?;

    let mut schemas = Schemas::of(url);
    let mapped = &mapped[1..];
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    let topics = mapped.iter().chain(&keyless).map(|table| table.topic_of_debezium(layout));
    for topic in topics.collect::<BTreeSet<_>>() {
        theirs.extend(of_debezium(&kafka.brokers(), &topic)?);
    }
    for topic in mapped.iter().map(|table| table.topic_of_tandem(layout)).collect::<BTreeSet<_>>() {
        ours.extend(of_tandem(&kafka.brokers(), &topic, &mut schemas)?);
    }
    let (mut theirs, mut ours) = (by_table(theirs), by_table(ours));
    let mut found = Vec::new();
    for (table, has_key) in mapped.iter().map(|t| (t, true)).chain(keyless.iter().map(|t| (t, false))) {
        let name = table.name();
        let (theirs, ours) =
            (theirs.remove(&name).unwrap_or_default(), ours.remove(&name).unwrap_or_default());
        found.push(TableEvents { name, has_key, theirs, ours });
    }
    tandem.terminate().await?;
    Ok(Captured { tables: found, ends: binlog::ends(&mut conn).await? })
}

/// Runs the statements with MySQL's own client.
fn run(mysql: &Mysql, sql: &str) -> Result<()> {
    let mut client = mysql.client();
    client.args(["--default-character-set=utf8mb4", "compare"]);
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("run the mysql client")?;
    let mut stdin = child.stdin.take().context("the mysql client takes no input")?;
    // A client that stops at an error reads no further. Its exit status reports the error.
    let _ = stdin.write_all(sql.as_bytes());
    drop(stdin);
    if !child.wait().context("wait for the mysql client")?.success() {
        bail!("MySQL refuses the statements");
    }
    Ok(())
}

/// All tables except MySQL's own and the marker table.
async fn tables(conn: &mut Conn) -> Result<Vec<Mapped>> {
    let found: Vec<(String, String)> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND \
             TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', '{}') ORDER BY 1, 2",
            MARKS.0
        ))
        .await
        .context("list the tables")?;
    let mut tables = Vec::new();
    for (database, table) in found {
        let key = conn
            .exec(
                "SELECT COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE CONSTRAINT_NAME = 'PRIMARY' AND \
                 TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
                (&database, &table),
            )
            .await
            .context("list the keys")?;
        tables.push(Mapped { database, table, key });
    }
    Ok(tables)
}

async fn mark(conn: &mut Conn) -> Result<()> {
    conn.query_drop(format!("INSERT INTO {}.{} VALUES ()", MARKS.0, MARKS.1)).await.context("insert a mark")
}

/// Writes marks until one has arrived.
async fn first_mark(conn: &mut Conn, kafka: &Kafka, topic: &str, tandem: &mut Tandem) -> Result<()> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        mark(conn).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        tandem.check()?;
        // A topic that is being created has no leaders yet.
        match Topic::open(&kafka.brokers(), topic).and_then(|topic| topic.ends()) {
            Ok(ends) if ends.iter().any(|end| *end > 0) => return Ok(()),
            _ if Instant::now() > deadline => bail!("nothing came to topic `{topic}`"),
            _ => {}
        }
    }
}

/// Writes a last mark and waits until both have published it.
async fn all_there(
    conn: &mut Conn,
    kafka: &Kafka,
    marks_in: &[String; 2],
    tandem: &mut Tandem,
    debezium: &Debezium,
) -> Result<()> {
    let [ours, theirs] = marks_in;
    let topics = [Topic::open(&kafka.brokers(), theirs)?, Topic::open(&kafka.brokers(), ours)?];
    let sums = || -> Result<Vec<i64>> { topics.iter().map(|t| Ok(t.ends()?.iter().sum())).collect() };
    for topic in &topics {
        topic.quiet(QUIET).await?;
    }
    let before = sums()?;
    mark(conn).await?;
    let deadline = Instant::now() + TIMEOUT;
    while sums()?.iter().zip(&before).any(|(now, before)| now <= before) {
        tandem.check()?;
        if Instant::now() > deadline {
            bail!(
                "not all was captured within {} s. {}\nDebezium:\n{}",
                TIMEOUT.as_secs(),
                tandem.tail(),
                debezium.log_tail(20)
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
