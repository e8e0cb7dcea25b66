//! The row checker that streaming verification, full verification and repair share.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tandem_dead_letters::DeadLetters;
use tandem_model::TableName;
use tandem_protocol::table_state::is_captured;
use tandem_row_check::{ChangeTracker, CheckMetrics, CheckedTable, Checker};
use tandem_table_states::TableStates;
use tandem_watermarks::{Applied, NewestWatermark, Watermarks};
use tandem_wire::log::InRecord;
use tokio::sync::mpsc;

use crate::connect::servers::Servers;

/// Creates a checker whose tracker begins at the newest watermark that covers every captured table.
pub(crate) async fn checker(
    servers: &Servers,
    watermarks: &Watermarks,
    metrics: &CheckMetrics,
    feed: Option<mpsc::Sender<Vec<InRecord>>>,
) -> Result<(Checker, Vec<Arc<CheckedTable>>)> {
    let names = servers.kafka.topics();
    let mut tables = Vec::with_capacity(servers.plans.len());
    for plan in &servers.plans {
        tables.push(Arc::new(CheckedTable::new(Arc::clone(plan), &names)?));
    }
    let topics: BTreeSet<String> = tables.iter().map(|t| t.topic.clone()).collect();
    let states = TableStates::follow(&servers.kafka).await?;
    let now = states.now()?;
    let newest = NewestWatermark::read(&servers.kafka).await?;
    // A table that is not captured, or not yet again, is in no watermark.
    let captured =
        |table: &TableName| newest.as_ref().is_none_or(|n| n.watermark.tables.captured.contains_key(table));
    let names = servers.plans.iter().map(|plan| &plan.source().name);
    let known: Vec<&TableName> =
        names.filter(|table| is_captured(now.get(table)) && captured(table)).collect();
    let from = watermarks.knowing(&known).await?;
    let tracker = ChangeTracker::start(&servers.kafka, &topics, &from, feed).await?;
    let checker = Checker {
        mysql: servers.mysql.clone(),
        target: servers.target.clone().context("a check needs Cassandra")?,
        watermarks: watermarks.clone(),
        applied: Applied::of(&servers.kafka)?,
        tracker,
        letters: DeadLetters::follow(&servers.kafka).await?,
        states,
        layouts: Arc::new(servers.layouts.clone()),
        metrics: metrics.clone(),
    };
    Ok((checker, tables))
}
