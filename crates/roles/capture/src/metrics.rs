//! What capture tells about itself.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_model::{Op, TableName};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: String,
}

/// Counters and gauges of one capture. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) bytes: Counter<u64, AtomicU64>,
    pub(crate) transactions: Counter<u64, AtomicU64>,
    out_of_band_rows: Family<TableLabel, Counter<u64, AtomicU64>>,
    pub(crate) watermarks: Counter<u64, AtomicU64>,
    pub(crate) restarts: Counter<u64, AtomicU64>,
    pub(crate) standby: Gauge<i64, AtomicI64>,
    pub(crate) connected: Gauge<i64, AtomicI64>,
    pub(crate) last_event_s: Gauge<f64, AtomicU64>,
    pub(crate) source_lag_s: Gauge<f64, AtomicU64>,
    rows: Family<OfTable, Counter<u64, AtomicU64>>,
}

/// What row changes are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTable {
    table: String,
    /// As in the envelope.
    op: &'static str,
}

impl Metrics {
    /// Registers everything under `tandem_capture_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_capture");
        registry.register("bytes", "Bytes of keys and values published", self.bytes.clone());
        registry.register("transactions", "MySQL transactions published", self.transactions.clone());
        registry.register(
            "out_of_band_rows",
            "Of the row changes, those that no gateway made, by table",
            self.out_of_band_rows.clone(),
        );
        registry.register("watermarks", "Watermarks published", self.watermarks.clone());
        registry.register("restarts", "Times capture went back to its last watermark", self.restarts.clone());
        registry.register("standby", "1 while another capture publishes", self.standby.clone());
        registry.register("connected", "1 while the binlog is being read", self.connected.clone());
        registry.register(
            "rows",
            "Row changes published in committed transactions, by table and operation",
            self.rows.clone(),
        );
        registry.register(
            "source_lag_seconds",
            "How long before it was read here the last transaction had committed in MySQL; 0 at the binlog's end",
            self.source_lag_s.clone(),
        );
        registry.register(
            "last_event_timestamp_seconds",
            "When the last binlog event arrived, heartbeats included, in seconds since the epoch",
            self.last_event_s.clone(),
        );
    }

    /// Counts row changes of a table that were published.
    pub(crate) fn published(&self, table: &TableName, op: Op, rows: u64) {
        let labels = OfTable { table: table.to_string(), op: op.letter() };
        self.rows.get_or_create(&labels).inc_by(rows);
    }

    /// Counts row changes of a table that no gateway made; also none, so that a page shows that they are
    /// counted.
    pub(crate) fn count_out_of_band(&self, table: &TableName, rows: u64) {
        self.out_of_band_rows.get_or_create(&TableLabel { table: table.to_string() }).inc_by(rows);
    }

    /// Whether it stands by while another capture publishes.
    pub fn is_standby(&self) -> bool {
        self.standby.get() == 1
    }

    /// Whether the binlog is being read now.
    pub fn is_connected(&self) -> bool {
        self.connected.get() == 1
    }
}
