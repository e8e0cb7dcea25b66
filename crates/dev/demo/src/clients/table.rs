//! The table of the gateways' clients in the database of a given dump. The demo cannot know which rows of the
//! dump's own tables an application may write.

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;

use tandem_compare::stores::schema::tick;

use super::entity::Entity;

const TABLE: &str = "tandem_clients";

/// Creates it.
pub(crate) async fn create(conn: &mut Conn, database: &str) -> Result<()> {
    let sql = format!(
        "CREATE TABLE {}.{TABLE} (id BIGINT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(80))",
        tick(database)
    );
    conn.query_drop(sql).await.with_context(|| format!("create the table {TABLE} for the gateways' clients"))
}

/// The table as an entity of the gateway.
pub(crate) fn entity() -> Entity {
    Entity {
        name: TABLE,
        table: TABLE,
        target: TABLE,
        value: "note",
        row: |id| json!({ "customer": id % 7 }),
    }
}
