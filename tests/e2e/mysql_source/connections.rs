//! Connections that are refused, taken over, or dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tandem_model::{Row, TableName, Value};
use tandem_mysql_source::{BinlogError, Mysql, MysqlConfig, MysqlError};
use tokio::net::{TcpListener, TcpStream};

use super::Source;

#[tokio::test]
async fn a_clash_of_server_ids_is_told() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("clash").await? else { return Ok(()) };
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
async fn wrong_addresses_and_accounts_are_told_apart() -> anyhow::Result<()> {
    let Some(source) = Source::new("access").await? else { return Ok(()) };
    let mut url = source.config.url.clone();
    let host = url.split_off(url.rfind('@').map_or("mysql://".len(), |at| at + 1));
    let denied =
        Mysql::connect(&MysqlConfig::new(format!("mysql://nobody:hush@{host}"), 1)).await.unwrap_err();
    // For an account that does not exist the server makes up a method of authentication.
    assert!(matches!(denied, MysqlError::AccessDenied { .. } | MysqlError::AuthPlugin { .. }), "{denied:?}");
    assert!(!format!("{denied} {denied:?}").contains("hush"));
    assert!(!denied.is_transient());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    let nobody = Mysql::connect(&MysqlConfig::new(format!("mysql://u:hush@{address}"), 1)).await.unwrap_err();
    assert!(matches!(nobody, MysqlError::Unreachable { .. }), "{nobody:?}");
    assert!(nobody.is_transient() && nobody.to_string().contains(&address.to_string()));
    source.drop().await
}

/// A proxy to the server that can stop passing anything on, as a dead connection does.
async fn proxy(to: String) -> anyhow::Result<(String, Arc<AtomicBool>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let dead = Arc::new(AtomicBool::new(false));
    let stalled = Arc::clone(&dead);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&to).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, Arc::clone(&stalled)));
            tokio::spawn(pass(from_server, to_client, Arc::clone(&stalled)));
        }
    });
    Ok((address, dead))
}

async fn pass(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    dead: Arc<AtomicBool>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut from, mut to) = (from, to);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        while dead.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}

#[tokio::test]
async fn a_dead_connection_is_noticed() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("silent").await? else { return Ok(()) };
    let url = source.config.url.clone();
    let at = url.rfind('@').map_or("mysql://".len(), |at| at + 1);
    let host = url[at..].split(['/', '?']).next().unwrap_or_default().to_owned();
    let (address, dead) = proxy(host.clone()).await?;
    source.config.url = url.replace(&host, &address);
    let mut stream = source.stream("t").await?;
    for _ in 0..3 {
        stream.next().await?;
    }
    dead.store(true, Ordering::Relaxed);
    let asked = std::time::Instant::now();
    // Asked again and again, as a loop with other things to do does.
    let error = loop {
        match tokio::time::timeout(Duration::from_millis(300), stream.next()).await {
            Ok(Ok(_)) | Err(_) => assert!(asked.elapsed() < Duration::from_secs(10)),
            Ok(Err(error)) => break error,
        }
    };
    assert!(matches!(error, BinlogError::Silent { .. }) && error.is_transient(), "{error:?}");
    assert!(asked.elapsed() > Duration::from_secs(3));
    source.drop().await
}

/// With autocommit off by default the first SELECT of a connection would open a read view that
/// never ends, and what is read after `gtid_executed` would be older than it.
#[tokio::test]
async fn every_read_is_of_now_whatever_the_servers_defaults() -> anyhow::Result<()> {
    if std::env::var_os("TANDEM_MYSQL_URL").is_none() {
        eprintln!("skipped: TANDEM_MYSQL_URL is not set");
        return Ok(());
    }
    let options = tandem_devstack::MysqlOptions {
        extra_args: vec!["--autocommit=OFF".into(), "--transaction-isolation=READ-UNCOMMITTED".into()],
    };
    let server = tandem_devstack::Mysql::ephemeral(&options)?;
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
