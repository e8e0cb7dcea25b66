//! Capture's metrics.

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

    /// Counts published row changes of a table.
    pub(crate) fn published(&self, table: &TableName, op: Op, rows: u64) {
        let labels = OfTable { table: table.to_string(), op: op.letter() };
        self.rows.get_or_create(&labels).inc_by(rows);
    }

    /// Counts out-of-band row changes of a table. A call with 0 puts the counter on the metrics page, which shows that
    /// it is counted.
    pub(crate) fn count_out_of_band(&self, table: &TableName, rows: u64) {
        self.out_of_band_rows.get_or_create(&TableLabel { table: table.to_string() }).inc_by(rows);
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
