//! Connections that are refused, replaced, or dead.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use tandem_model::{Disposition, Row, TableName, Value};
use tandem_mysql::{BinlogError, Mysql, MysqlConfig, MysqlError};

use super::Source;
use crate::support::{Fault, Link, Probe, eventually, free_port, host_of, own_server, unique_id};

#[tokio::test]
async fn a_clash_of_server_ids_is_an_error() -> anyhow::Result<()> {
    let mut source = Source::new("clash").await?;
    let mut first = source.stream("t").await?;
    let _second = source.stream("t").await?;
    let error = loop {
        if let Err(error) = first.next().await {
            break error;
        }
    };
    assert_eq!(error, BinlogError::ServerIdClash { server_id: source.config.server_id });
    source.drop().await
}

#[tokio::test]
async fn wrong_addresses_and_wrong_accounts_are_different_errors() -> anyhow::Result<()> {
    let source = Source::new("access").await?;
    let host = host_of(&source.config.url);
    let denied =
        Mysql::connect(&MysqlConfig::new(format!("mysql://nobody:hush@{host}"), 1)).await.unwrap_err();
    // For an account that does not exist, the server invents an authentication method.
    assert!(matches!(denied, MysqlError::AccessDenied { .. } | MysqlError::AuthPlugin { .. }), "{denied:?}");
    assert!(!format!("{denied} {denied:?}").contains("hush"));
    assert_eq!(denied.retry(), Disposition::Stop);
    let address = format!("127.0.0.1:{}", free_port()?);
    let nobody = Mysql::connect(&MysqlConfig::new(format!("mysql://u:hush@{address}"), 1)).await.unwrap_err();
    assert!(matches!(nobody, MysqlError::Unreachable { .. }), "{nobody:?}");
    assert!(nobody.retry() == Disposition::Retry && nobody.to_string().contains(&address));
    source.drop().await
}

/// The stream logs in by itself, once with the full password, once with the server's cached one.
#[tokio::test]
async fn accounts_with_passwords() -> anyhow::Result<()> {
    let mut source = Source::new("accounts").await?;
    let name = format!("u{}", unique_id());
    source.sql(&format!("CREATE USER {name} IDENTIFIED WITH caching_sha2_password BY 'se cret/1'")).await?;
    source.sql(&format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO {name}")).await?;
    source.config.url = format!("mysql://{name}@{}", host_of(&source.config.url));
    source.config.password = Some("se cret/1".into());
    for _ in 0..2 {
        let mut stream = source.stream("t").await?;
        source.upto_now(&mut stream).await?;
    }
    source.config.password = Some("wrong".into());
    let denied = source.stream("t").await.unwrap_err().to_string();
    assert!(denied.contains(&name) && denied.contains("password") && !denied.contains("wrong"), "{denied}");
    // Another authentication method, which is not supported, is named in the error.
    let other = source.sql(&format!("ALTER USER {name} IDENTIFIED WITH sha256_password BY 'x'")).await;
    if other.is_ok() {
        let refused = source.stream("t").await.unwrap_err().to_string();
        assert!(refused.contains("sha256_password"), "{refused}");
    }
    source.sql(&format!("DROP USER {name}")).await?;
    source.drop().await
}

/// A byte within a row that changed on the way.
#[tokio::test]
async fn a_flipped_byte_is_an_error_with_the_position() -> anyhow::Result<()> {
    let mut source = Source::new("flipped").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40))").await?;
    let (link, url) = Link::to_mysql(&source.config.url).await?;
    source.config.url = url;
    let mut stream = source.stream("t").await?;
    source.sql("INSERT INTO t VALUES (1, 'a value that is whole')").await?;
    source.upto_now(&mut stream).await?;
    link.flip(b"that will be flipped");
    source.sql("INSERT INTO t VALUES (2, 'a value that will be flipped')").await?;
    let error = source.upto_now(&mut stream).await.unwrap_err().to_string();
    assert!(error.contains("its checksum is wrong") && error.contains("binlog."), "{error}");
    assert!(error.contains("WRITE_ROWS"), "{error}");
    source.drop().await
}

#[tokio::test]
async fn a_dead_connection_is_noticed() -> anyhow::Result<()> {
    let mut source = Source::new("silent").await?;
    let (link, url) = Link::to_mysql(&source.config.url).await?;
    source.config.url = url;
    let mut stream = source.stream("t").await?;
    for _ in 0..3 {
        stream.next().await?;
    }
    link.set(Fault::Hold);
    let asked = std::time::Instant::now();
    // Polled repeatedly, as a loop with other tasks does.
    let error = eventually("an error of the stream", Duration::from_secs(10), async || {
        let next = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
        let seen = format!("{next:?}");
        Ok(Probe::some(next.ok().and_then(Result::err), seen))
    })
    .await?;
    assert!(matches!(error, BinlogError::Silent { .. }) && error.retry() == Disposition::Retry, "{error:?}");
    assert!(asked.elapsed() > Duration::from_secs(3));
    source.drop().await
}

/// With autocommit off by default, the first SELECT of a connection would open a read view that never ends.
/// Reads after `gtid_executed` would then return older rows than it promises.
#[tokio::test]
async fn every_read_is_of_now_whatever_the_servers_defaults() -> anyhow::Result<()> {
    let server = own_server(&["--autocommit=OFF", "--transaction-isolation=READ-UNCOMMITTED"])?;
    server.query("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v INT); INSERT INTO d.t VALUES (1, 1); COMMIT")?;
    let mysql = Mysql::connect(&MysqlConfig::new(server.url(), 1)).await?;
    let table = mysql.table_def(&TableName::new("d", "t")).await?;
    let mut reader = mysql.reader().await?;
    let key = [vec![Value::Int(1)]];
    let v = |rows: Vec<Option<Row>>| rows[0].as_ref().map(|row| row[1].clone());
    assert_eq!(v(reader.read_keys(&table, &key).await?), Some(Value::Int(1)));
    let mut writer = mysql_async::Conn::from_url(server.url()).await?;
    writer.query_drop("UPDATE d.t SET v = 2").await?;
    assert_eq!(v(reader.read_keys(&table, &key).await?), Some(Value::Int(1)), "not yet committed");
    writer.query_drop("COMMIT").await?;
    assert_eq!(v(reader.read_keys(&table, &key).await?), Some(Value::Int(2)));
    Ok(())
}
