//! Capture's metrics.
//!
//! Metrics by table name at most [`NAMED_TABLES`] tables. The rows of the others are counted under the table `(other)`,
//! and `tandem_capture_tables_not_named` says how many these are.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_model::{Op, TableName};
use tandem_runtime::{Trying, Waits};

/// How many tables have metrics of their own.
const NAMED_TABLES: usize = 200;

/// The label of all other tables. No table of MySQL is printed like this.
const OTHER: &str = "(other)";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: String,
}

/// Counters and gauges of one capture. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Where capture shows that it waits for MySQL or Kafka.
    pub waits: Waits,
    trying: Trying,
    pub(crate) bytes: Counter<u64, AtomicU64>,
    pub(crate) transactions: Counter<u64, AtomicU64>,
    out_of_band_rows: Family<TableLabel, Counter<u64, AtomicU64>>,
    all_out_of_band_rows: Arc<AtomicU64>,
    pub(crate) watermarks: Counter<u64, AtomicU64>,
    pub(crate) restarts: Counter<u64, AtomicU64>,
    pub(crate) standby: Gauge<i64, AtomicI64>,
    pub(crate) connected: Gauge<i64, AtomicI64>,
    pub(crate) last_event_s: Gauge<f64, AtomicU64>,
    pub(crate) source_lag_s: Gauge<f64, AtomicU64>,
    rows: Family<OfTable, Counter<u64, AtomicU64>>,
    tables_not_named: Gauge<i64, AtomicI64>,
    tables: Arc<Mutex<Tables>>,
}

/// The tables that have been counted so far.
#[derive(Debug, Default)]
struct Tables {
    named: HashSet<TableName>,
    others: HashSet<TableName>,
}

/// The labels of the counter of row changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTable {
    table: String,
    /// The operation, as in the change envelope.
    op: &'static str,
}

impl Metrics {
    /// Registers every metric under `tandem_capture_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_capture");
        registry.register("bytes", "Bytes of keys and values published", self.bytes.clone());
        registry.register("transactions", "MySQL transactions published", self.transactions.clone());
        registry.register(
            "out_of_band_rows",
            "Row changes that no gateway made, by table",
            self.out_of_band_rows.clone(),
        );
        registry.register("watermarks", "Watermarks published", self.watermarks.clone());
        registry.register("restarts", "Restarts of capture from its last watermark", self.restarts.clone());
        registry.register("standby", "1 while another capture publishes", self.standby.clone());
        registry.register("connected", "1 while the binlog is being read", self.connected.clone());
        registry.register(
            "rows",
            "Row changes published in committed transactions, by table and operation",
            self.rows.clone(),
        );
        registry.register(
            "tables_not_named",
            "Tables whose rows are counted under the table (other), because too many have metrics of their own",
            self.tables_not_named.clone(),
        );
        registry.register(
            "source_lag_seconds",
            "Seconds between the commit of the last transaction in MySQL and its reading here; 0 at the binlog's end",
            self.source_lag_s.clone(),
        );
        registry.register(
            "last_event_timestamp_seconds",
            "When the last binlog event arrived, heartbeats included, in seconds since the epoch",
            self.last_event_s.clone(),
        );
    }

    /// The label of a table.
    fn label(&self, table: &TableName) -> String {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.named.contains(table) {
            if tables.named.len() == NAMED_TABLES {
                if tables.others.insert(table.clone()) {
                    self.tables_not_named.inc();
                }
                return OTHER.to_owned();
            }
            tables.named.insert(table.clone());
        }
        table.to_string()
    }

    /// Counts published row changes of a table.
    pub(crate) fn published(&self, table: &TableName, op: Op, rows: u64) {
        let labels = OfTable { table: self.label(table), op: op.letter() };
        self.rows.get_or_create(&labels).inc_by(rows);
    }

    /// The row changes that no gateway made, of all tables, since the process started.
    pub fn out_of_band_rows(&self) -> u64 {
        self.all_out_of_band_rows.load(Ordering::Relaxed)
    }

    /// Counts out-of-band row changes of a table. A call with 0 puts the counter on the metrics page, which shows that
    /// it is counted.
    pub(crate) fn count_out_of_band(&self, table: &TableName, rows: u64) {
        self.out_of_band_rows.get_or_create(&TableLabel { table: self.label(table) }).inc_by(rows);
        self.all_out_of_band_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Capture has failed, and goes back to its last watermark after `pause`.
    pub(crate) fn failed(&self, cause: String, pause: Duration) {
        self.restarts.inc();
        self.trying.failed(&self.waits, "capture", cause, pause);
    }

    /// Capture waits for nothing: it has published, stands by, or begins.
    pub(crate) fn waits_no_more(&self) {
        self.trying.succeeded();
    }

    /// Whether this capture is a standby while another one publishes.
    pub fn is_standby(&self) -> bool {
        self.standby.get() == 1
    }

    /// Whether the binlog is being read now.
    pub fn is_connected(&self) -> bool {
        self.connected.get() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_by_table_are_bounded_and_say_what_they_leave_out() {
        let metrics = Metrics::default();
        for round in 0..2 {
            for table in 0..NAMED_TABLES + 7 {
                let table = TableName::new("d", format!("t{table}"));
                metrics.count_out_of_band(&table, round);
                metrics.published(&table, Op::Update, 1);
            }
        }
        assert_eq!(metrics.tables_not_named.get(), 7);
        let rows = |table: &str| {
            let labels = OfTable { table: table.to_owned(), op: Op::Update.letter() };
            metrics.rows.get(&labels).map(|count| count.get())
        };
        assert_eq!((rows("d.t0"), rows("d.t200"), rows(OTHER)), (Some(2), None, Some(14)));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert_eq!(text.matches("out_of_band_rows_total{").count(), NAMED_TABLES + 1);
    }
}
