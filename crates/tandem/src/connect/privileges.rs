//! The MySQL privileges that each role needs. README has the same list.

use anyhow::Result;
use tandem_model::TableName;
use tandem_mysql::{Need, ReverseSession};

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
            // Reverse has an account of its own.
            Role::Apply | Role::Backfill | Role::Reverse | Role::Controller => {}
        }
    }
    for table in config.tables()? {
        need("SELECT", Some(&table), "neither it nor its definition can be read");
    }
    Ok(needs)
}

/// The privileges that reverse's account needs.
pub(crate) fn needs_of_reverse(config: &Config) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for table in config.tables()? {
        for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
            let why = "what Cassandra has decided cannot be brought back to MySQL";
            needs.push(Need { privilege, on: Some(table.clone()), why });
        }
    }
    for table in ReverseSession::tables(&config.reverse()?.1.database) {
        for privilege in ["CREATE", "SELECT", "INSERT", "UPDATE", "DELETE"] {
            let why = "reverse cannot keep how far it is";
            needs.push(Need { privilege, on: Some(table.clone()), why });
        }
    }
    Ok(needs)
}
