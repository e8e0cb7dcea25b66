//! The log for other consumers: excluded columns, and tombstones after deletes.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use tandem_kafka::read_all;
use tandem_wire::log::InRecord;

use crate::support::{Migration, Servers};

const TABLES: [&str; 2] = [
    "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20), secret VARCHAR(40) NOT NULL, n INT)",
    "INSERT INTO people WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
     SELECT i, CONCAT('name ', i), CONCAT('hush ', i), i FROM n",
];
const CAPTURE: &str = "[capture]\ntombstones_on_delete = true\n";
const MAPPING: &str = "[[table]]\nsource = \"{db}.people\"\nexclude_from_capture = [\"Secret\"]\n\
    [[table.target]]\ntable = \"people\"\npartition_key = [\"id\"]\n";

fn holds(bytes: Option<&Vec<u8>>, word: &[u8]) -> bool {
    bytes.is_some_and(|bytes| bytes.windows(word.len()).any(|found| found == word))
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_columns_are_nowhere_and_tombstones_follow_deletes() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, "excluded", &TABLES).await?;
    migration.configure(CAPTURE, MAPPING)?;
    migration.succeed(&["check"]).await.expect_err("the target tables are not there yet");
    migration.succeed(&["schema", "create"]).await?;
    migration.configure(CAPTURE, &MAPPING.replace("\"Secret\"", "\"Secret\", \"secert\""))?;
    let checked = migration.tandem(&["check"]).await?;
    assert!(checked.success && checked.stderr.contains("it has no column `secert`"), "{}", checked.stderr);
    migration.configure(CAPTURE, MAPPING)?;
    let checked = migration.tandem(&["check"]).await?;
    assert!(checked.success && !checked.stderr.contains("exclude_from_capture"), "{}", checked.stderr);
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    for id in 1..=30 {
        for sql in [
            format!("INSERT INTO people VALUES (1000 + {id}, 'new', 'hush', {id})"),
            format!("UPDATE people SET secret = CONCAT('hush hush ', {id}) WHERE id = {id}"),
            format!("UPDATE people SET name = 'other', secret = 'hush!' WHERE id = {id}"),
            format!("DELETE FROM people WHERE id = {id} AND id % 2"),
            format!("UPDATE people SET id = 5000 + {id} WHERE id = {id} AND id % 3 = 0"),
        ] {
            migration.mysql.query_drop(sql).await?;
        }
    }
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    running.terminate().await?;

    let (topics, table) = (migration.topics(), migration.table("people"));
    let (mut records, mut named) = (0, 0);
    for topic in [
        topics.changes(&table),
        topics.backfill(&table),
        topics.schemas(),
        topics.watermarks(),
        topics.control(),
        topics.mismatches(),
    ] {
        for record in read_all(&migration.kafka(), &topic).await? {
            records += 1;
            for bytes in [record.key.as_ref(), record.value.as_ref()] {
                assert!(!holds(bytes, b"hush") && !holds(bytes, b"secret"), "on {topic}");
                named += usize::from(holds(bytes, b"name 7"));
            }
        }
    }
    assert!(records > 200 && named > 0, "{records} records, {named} of them named");

    let changes: Vec<InRecord> = read_all(&migration.kafka(), &topics.changes(&table)).await?;
    let mut deleted = BTreeSet::new();
    for pair in changes.windows(2) {
        let [before, tombstone] = pair else { continue };
        if tombstone.value.is_none() {
            assert!(before.value.is_some());
            assert_eq!((&before.key, before.version), (&tombstone.key, tombstone.version));
            assert!(tombstone.version.is_some() && before.partition == tombstone.partition);
            deleted.insert(tombstone.key.clone());
        }
    }
    // Rows with an odd id, and rows whose key has changed.
    assert_eq!(deleted.len(), 15 + 5);
    assert_eq!(changes.iter().filter(|record| record.value.is_none()).count(), 15 + 5);

    let cassandra = migration.cassandra().await?;
    let columns = cassandra
        .query_unpaged(
            "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = 'people'",
            (&migration.keyspace,),
        )
        .await?
        .into_rows_result()?;
    let columns: BTreeSet<String> =
        columns.rows::<(String,)>()?.map(|row| Ok(row?.0)).collect::<anyhow::Result<_>>()?;
    assert_eq!(columns.into_iter().collect::<Vec<_>>(), ["id", "n", "name"]);
    migration.drop().await
}
