//! The MySQL privileges that each role needs. README has the same list.

use anyhow::Result;
use tandem_model::TableName;
use tandem_mysql::Need;

use crate::config::Config;
use crate::config::gateway::GatewaySection;
use crate::role::Role;

/// The privileges that these roles need.
pub(crate) fn needs(config: &Config, roles: &[Role]) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    let mut need = |privilege, on: Option<&TableName>, why| {
        let need = Need { privilege, on: on.cloned(), why };
        if !needs.contains(&need) {
            needs.push(need);
        }
    };
    for role in roles {
        match role {
            Role::Capture => need("REPLICATION SLAVE", None, "the binlog cannot be read"),
            Role::Verify | Role::Reconcile => {
                need("REPLICATION CLIENT", None, "the binlog's end cannot be asked for");
            }
            Role::Gateway => {
                for table in config.tables()? {
                    for privilege in ["INSERT", "UPDATE", "DELETE"] {
                        need(privilege, Some(&table), "clients' writes cannot be made");
                    }
                }
                let history = TableName::new("performance_schema", "events_transactions_history");
                let why = "a write cannot be answered with the token of its transaction";
                need("SELECT", Some(&history), why);
                if let Some(table) = config.gateway.as_ref().and_then(GatewaySection::idempotency_table) {
                    let table = table.parse().map_err(anyhow::Error::msg)?;
                    for privilege in ["CREATE", "SELECT", "INSERT", "UPDATE", "DELETE"] {
                        need(privilege, Some(&table), "replies of idempotency keys cannot be stored");
                    }
                }
            }
            Role::Apply | Role::Backfill | Role::Controller => {}
        }
    }
    for table in config.tables()? {
        need("SELECT", Some(&table), "neither it nor its definition can be read");
    }
    Ok(needs)
}
