//! Sessions with MySQL.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Mysql, MysqlOptions};
use tandem_model::GtidSet;

/// A session in a database.
pub(crate) async fn connect(url: &str, database: &str) -> anyhow::Result<Conn> {
    let mut conn = Conn::from_url(url).await?;
    conn.query_drop(format!("USE {database}")).await?;
    Ok(conn)
}

/// The GTIDs that the server has executed.
pub(crate) async fn executed(conn: &mut Conn) -> anyhow::Result<GtidSet> {
    let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await?;
    text.unwrap_or_default().parse().map_err(|e| anyhow::anyhow!("gtid_executed: {e}"))
}

/// `host:port` of a URL.
pub(crate) fn host_of(url: &str) -> &str {
    let address = url.rsplit('@').next().unwrap_or_default();
    address.trim_start_matches("mysql://").split(['/', '?']).next().unwrap_or_default()
}

/// A server id for the replica of one test. Other replicas of the server have other ids.
pub(crate) fn random_server_id() -> u32 {
    rand::random::<u32>() | 1
}

/// A separate server for one test, with these options in addition to the usual ones.
pub(crate) fn own_server(options: &[&str]) -> anyhow::Result<Mysql> {
    let extra_args = options.iter().map(|&option| option.to_owned()).collect();
    Mysql::ephemeral(&MysqlOptions { extra_args })
}
