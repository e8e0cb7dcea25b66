//! Schemas in a registry: a real Apicurio, which other consumers use as well.

mod loss;
mod refusals;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use mysql_async::prelude::Queryable;
use serde_json::{Value as Json, json};
use tandem_devstack::{Apicurio, ApicurioOptions};
use tandem_kafka::{Admin, ConsumeError, read_all};
use tandem_wire::log::InRecord;

use crate::support::{Migration, Running, Servers, http};

const MAPPING: &str = "[[table]]\nsource = \"{db}.t\"\non_new_column = \"ignore\"\n[[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n";
const TABLE: [&str; 2] = [
    "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL, price DECIMAL(10,2), at TIMESTAMP(6) NULL)",
    "INSERT INTO t VALUES (1, 'one', 1.50, '2024-05-31 12:00:00.000001'), (2, 'two', NULL, NULL)",
];

/// One request of the registry's API, which must succeed.
async fn request(registry: &Apicurio, method: &str, path: &str, body: &str) -> anyhow::Result<Json> {
    let url = registry.url();
    let base = url.find("/apis").map_or("", |at| &url[at..]);
    let headers = [("Content-Type", "application/vnd.schemaregistry.v1+json")];
    let answer = http(registry.port(), method, &format!("{base}{path}"), &headers, body).await?;
    anyhow::ensure!(answer.status == 200, "{method} {path}: {answer:?}");
    Ok(answer.json())
}

async fn get(registry: &Apicurio, path: &str) -> anyhow::Result<Json> {
    request(registry, "GET", path, "").await
}

/// Sets a compatibility level, of a subject or the global one.
async fn set_level(registry: &Apicurio, subject: &str, level: &str) -> anyhow::Result<()> {
    let body = json!({ "compatibility": level }).to_string();
    request(registry, "PUT", &format!("/config{subject}"), &body).await.map(drop)
}

/// A migration of `t` with this registry, ready to run.
async fn prepared(servers: Servers, test: &str, url: &str) -> anyhow::Result<Migration> {
    let migration = Migration::new(servers, test, &TABLE).await?;
    configure(&migration, url)?;
    migration.succeed(&["schema", "create"]).await?;
    Ok(migration)
}

fn configure(migration: &Migration, url: &str) -> anyhow::Result<()> {
    migration.configure(&format!("[schema_registry]\nurl = {url:?}\n"), MAPPING)
}

/// Runs it until all rows are copied and a first change is applied.
async fn running(migration: &mut Migration, arguments: &[&str]) -> anyhow::Result<Running> {
    let mut running = migration.start(arguments)?;
    migration.drained(&mut running).await?;
    migration.mysql.query_drop("UPDATE t SET price = price + 1 WHERE id = 1").await?;
    migration.drained(&mut running).await?;
    Ok(running)
}

fn changes(migration: &Migration) -> String {
    migration.topics().changes(&migration.table("t"))
}

fn backfill(migration: &Migration) -> String {
    migration.topics().backfill(&migration.table("t"))
}

/// Decodes records as any consumer of the registry would. Returns the registry's id and the datum of each
/// value. Keys are decoded as well.
async fn decoded(registry: &Apicurio, records: &[InRecord]) -> anyhow::Result<Vec<(u32, Avro)>> {
    let mut schemas = BTreeMap::new();
    let mut values = Vec::new();
    for record in records {
        for (framed, is_key) in [(&record.key, true), (&record.value, false)] {
            let Some(framed) = framed else { continue };
            anyhow::ensure!(framed[0] == 0, "no frame");
            let id = u32::from_be_bytes(framed[1..5].try_into()?);
            if let Entry::Vacant(unknown) = schemas.entry(id) {
                let answer = get(registry, &format!("/schemas/ids/{id}")).await?;
                let text = answer["schema"].as_str().ok_or_else(|| anyhow::anyhow!("no schema: {answer}"))?;
                unknown.insert(Schema::parse_str(text)?);
            }
            let mut datum = &framed[5..];
            let value = GenericDatumReader::builder(&schemas[&id]).build()?.read_value(&mut datum)?;
            anyhow::ensure!(datum.is_empty(), "{} bytes are left over", datum.len());
            if !is_key {
                values.push((id, value));
            }
        }
    }
    Ok(values)
}

/// A column's value in the row after a change.
fn after(envelope: &Avro, column: &str) -> Option<Avro> {
    let field = |record: &Avro, name: &str| match record {
        Avro::Record(fields) => fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()),
        _ => None,
    };
    let unwrapped = |value: Avro| if let Avro::Union(_, inner) = value { *inner } else { value };
    field(&unwrapped(field(envelope, "after")?), column).map(unwrapped)
}

/// The first change after which the row has this name.
fn named<'a>(values: &'a [(u32, Avro)], name: &str) -> &'a (u32, Avro) {
    let found = values.iter().find(|(_, value)| after(value, "name") == Some(Avro::String(name.into())));
    found.unwrap_or_else(|| panic!("no {name} in {values:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_any_consumer_can_read_by_its_registry() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let registry = Apicurio::ephemeral(&ApicurioOptions::default())?;
    set_level(&registry, "", "BACKWARD").await?;
    let mut migration = prepared(servers, "registry", &registry.url()).await?;
    let changes = changes(&migration);
    let values = migration.topics().value_subjects(&migration.table("t"));
    let subject = &values[0];
    let checked = migration.tandem(&["check"]).await?;
    let warned = ["warning: schema_registry:", subject, "BACKWARD", "PUT /config/"];
    assert!(checked.success && warned.iter().all(|w| checked.stderr.contains(w)), "{}", checked.stderr);

    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    // Changes that the level allows: nullable columns are added, and one is dropped.
    for statement in [
        "UPDATE t SET name = 'uno' WHERE id = 1",
        "ALTER TABLE t ADD COLUMN note VARCHAR(10), ADD COLUMN extra INT",
        "INSERT INTO t VALUES (3, 'three', 3, NULL, 'new', 3)",
        "ALTER TABLE t DROP COLUMN extra",
        "INSERT INTO t VALUES (5, 'five', NULL, NULL, 'new')",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    migration.drained(&mut running).await?;
    running.terminate().await?;

    let admin = Admin::connect(&migration.kafka()).await?;
    let own_topic = admin.partitions(&migration.topics().schemas()).await;
    assert!(matches!(own_topic, Err(ConsumeError::NoTopic(_))), "{own_topic:?}");
    let mut subjects: Vec<String> = serde_json::from_value(get(&registry, "/subjects").await?)?;
    subjects.sort();
    let backfill = backfill(&migration);
    // In a shared topic, subjects name the record too.
    let mut expected: Vec<String> =
        values.iter().flat_map(|value| [value.clone(), value.replace(".Envelope", ".Key")]).collect();
    expected.sort();
    assert_eq!(subjects, expected);
    let versions = async || get(&registry, &format!("/subjects/{subject}/versions")).await;
    assert_eq!(versions().await?, json!([1, 2, 3]));

    let copied = decoded(&registry, &read_all(&migration.kafka(), &backfill).await?).await?;
    assert_eq!(copied.len(), 2);
    let first = decoded(&registry, &read_all(&migration.kafka(), &changes).await?).await?;
    let (uno, three, five) = (named(&first, "uno"), named(&first, "three"), named(&first, "five"));
    assert_eq!((uno.0, after(&uno.1, "note")), (copied[0].0, None));
    assert_eq!(after(&three.1, "note"), Some(Avro::String("new".into())));
    assert_eq!((after(&three.1, "extra"), after(&five.1, "extra")), (Some(Avro::Int(3)), None));
    assert!(uno.0 < three.0 && three.0 < five.0, "{first:?}");
    assert!(matches!(after(&three.1, "price"), Some(Avro::Decimal(_))), "{three:?}");

    // Another process continues with the ids that the registry assigned.
    migration.cassandra().await?.query_unpaged("ALTER TABLE t ADD note text", ()).await?;
    let mut running = migration.start(&["run"])?;
    for statement in [
        "INSERT INTO t VALUES (4, 'four', NULL, NULL, NULL)",
        "UPDATE t SET note = 'newer' WHERE id IN (3, 5)",
        "DELETE FROM t WHERE id = 4",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    migration.drained(&mut running).await?;
    let again = decoded(&registry, &read_all(&migration.kafka(), &changes).await?).await?;
    assert_eq!((named(&again, "four").0, versions().await?), (five.0, json!([1, 2, 3])));

    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    let tail = migration.succeed(&["tail", "--from", "beginning", "--count", "7"]).await?;
    // The log is in order only within each partition.
    let mut events: Vec<Json> = tail.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    events.sort_by_key(|event| event["version"].as_i64());
    let ops: String = events.iter().filter_map(|event| event["op"].as_str()).collect();
    assert_eq!(ops, "ucccuud", "{tail}");
    running.terminate().await?;
    migration.drop().await
}
