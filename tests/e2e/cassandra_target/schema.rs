//! Connecting, and the check of a table's definition.

use std::time::{Duration, Instant};

use tandem_cassandra::{ConnectError, Consistency, SchemaError, Target};
use tandem_model::{Cell, CqlType};

use super::{column, config, drop_keyspace, key, plain, shown, text, upsert};

#[tokio::test]
async fn schema_differences_and_their_remedies() -> anyhow::Result<()> {
    let config = config("schema");
    let target = Target::connect(&config).await?;
    assert!(!target.keyspace_exists().await?);
    let findings = target.check_schema(&[plain("t")]).await?;
    assert_eq!(findings.iter().map(|f| f.table.as_str()).collect::<Vec<_>>(), ["", "t"]);
    for finding in findings {
        target.execute_ddl(&finding.remedy.expect("both can be created")).await?;
    }
    assert!(target.keyspace_exists().await?);
    target.create_keyspace().await?;
    assert_eq!(target.check_schema(&[plain("t")]).await?, []);
    assert_eq!(target.gc_grace("t").await?, Some(Duration::from_hours(240)));

    // A column added later: statements prepared before still work. Prepared again, they include it.
    target.prepare(&[plain("t")]).await?;
    let mut wider = plain("t");
    wider.regular.push(column("New", CqlType::Decimal));
    for finding in target.check_schema(std::slice::from_ref(&wider)).await? {
        target.execute_ddl(&finding.remedy.expect("a column can be added")).await?;
    }
    target.write(vec![upsert("t", 1, 1, vec![text("x"), text("y")])]).await?;
    assert_eq!(shown(target.read("t", &[key(1)]).await?[0].as_ref()), "x@1 y@1");
    target.prepare(std::slice::from_ref(&wider)).await?;
    target
        .write(vec![upsert("t", 1, 2, vec![Cell::Null, Cell::Unset, Cell::Value(vec![0, 0, 0, 0, 1])])])
        .await?;
    let row = target.read("t", &[key(1)]).await?.remove(0).expect("the row is there");
    assert_eq!(row.writetimes, [None, Some(1), Some(2)]);

    // Differences that no statement repairs.
    let keyspace = &config.keyspace;
    for ddl in [
        format!("CREATE TABLE \"{keyspace}\".\"order\" (id int, c int, a text, b text, PRIMARY KEY (id, c))"),
        format!("CREATE TABLE \"{keyspace}\".hits (id bigint PRIMARY KEY, a counter)"),
        format!("CREATE TABLE \"{keyspace}\".lists (id bigint PRIMARY KEY, a text, b text, l list<int>)"),
        format!(
            "CREATE TABLE \"{keyspace}\".ttl (id bigint PRIMARY KEY, a blob, b text) WITH default_time_to_live = 9"
        ),
        format!(
            "CREATE TABLE \"{keyspace}\".statics (id bigint, c int, a text, b text STATIC, PRIMARY KEY (id, c))"
        ),
    ] {
        target.execute_ddl(&ddl).await?;
    }
    let names = ["order", "hits", "lists", "ttl", "statics"];
    let findings = target.check_schema(&names.map(plain)).await?;
    let findings: Vec<_> = findings.iter().map(|f| (f.table.as_str(), f.problem.as_str())).collect();
    let starts = [
        ("order", "the partition key is (id int), wanted is (id bigint)"),
        ("order", "the clustering key is (c int), wanted is ()"),
        ("hits", "it is a counter table"),
        ("ttl", "column `a` is of type blob, wanted is text"),
        ("ttl", "rows expire after 9 s"),
        ("statics", "the clustering key is (c int), wanted is ()"),
        ("statics", "column `b` is a static column, wanted is a regular one"),
    ];
    assert_eq!(findings.len(), starts.len(), "{findings:?}");
    for ((table, problem), (expected_table, start)) in findings.iter().zip(starts) {
        assert!(*table == expected_table && problem.starts_with(start), "{table}: {problem}");
    }
    for (table, at_fault) in [("hits", "a"), ("lists", "l"), ("statics", "b")] {
        let described = target.describe(table).await;
        assert!(
            matches!(&described, Err(SchemaError::Column { column, .. }) if column == at_fault),
            "{table}: {described:?}"
        );
    }
    assert!(matches!(target.prepare(&[plain("none")]).await, Err(SchemaError::Refused { .. })));
    assert!(matches!(target.execute_ddl("CREATE").await, Err(SchemaError::Refused { .. })));
    drop_keyspace(&target).await
}

#[tokio::test]
async fn connecting_says_what_is_wrong() -> anyhow::Result<()> {
    let mut config = config("connect");
    config.consistency = Consistency::Quorum;
    let target = Target::connect(&config).await?;
    assert!(!target.keyspace_exists().await?);
    assert_eq!(target.describe("t").await?, None);
    let prepared = target.prepare(&[plain("t")]).await;
    assert!(matches!(prepared, Err(SchemaError::Refused { .. })), "{prepared:?}");

    config.request_timeout = Duration::from_secs(2);
    // A port without a listener, and one that accepts connections and never answers.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    for address in [closed, silent.local_addr()?] {
        config.nodes = vec![address.to_string()];
        let began = Instant::now();
        match Target::connect(&config).await {
            Err(ConnectError::Unreachable { nodes, .. }) => assert_eq!(nodes, config.nodes),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("connected to {address}"),
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{address}: {:?}", began.elapsed());
    }
    Ok(())
}
