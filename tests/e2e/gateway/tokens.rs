//! Tokens of writes.

use std::collections::BTreeSet;

use serde_json::json;
use tandem_model::{Gtid, GtidSet};

use super::Stage;
use crate::support::{Servers, http};

/// Each token is the GTID of its own transaction and of no other, even with many writes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_own_transaction() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwgtid", &["gateway"]).await?;
    let port = stage.port;
    let writes = (1..=40).map(|id| async move {
        let body = json!({ "customer": id, "note": "x" }).to_string();
        http(port, "PUT", &format!("/v1/order/{id}"), &[], &body).await
    });
    let answers = futures::future::try_join_all(writes).await?;
    let executed = stage.migration.executed().await?;
    let mut tokens = BTreeSet::new();
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.header("tandem-token");
        assert!(token.parse::<Gtid>().is_ok(), "{token} is not one transaction");
        assert!(token.parse::<GtidSet>().unwrap().is_subset(&executed));
        tokens.insert(token.to_owned());
    }
    assert_eq!(tokens.len(), answers.len());
    stage.end().await
}
