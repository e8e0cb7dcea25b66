//! The entity that the clients use.

use serde_json::Value as Json;

/// An entity of the gateway, with its table in each store.
#[derive(Debug, Clone)]
pub(crate) struct Entity {
    /// Its name in the gateway.
    pub(crate) name: &'static str,
    /// MySQL's table.
    pub(crate) table: &'static str,
    /// The table in Cassandra that is keyed by `id`.
    pub(crate) target: &'static str,
    /// The column in which the clients write their values.
    pub(crate) value: &'static str,
    /// A whole row, except its value.
    pub(crate) row: fn(u64) -> Json,
}
