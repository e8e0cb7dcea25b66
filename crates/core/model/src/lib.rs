//! The types that all crates of Tandem share: values, rows, tables, changes, GTID sets, versions, watermarks
//! and mutations.
//!
//! This crate does no I/O. It does not depend on tokio, Kafka, Avro, or a driver for MySQL or Cassandra.
//! Everything in it is a plain value or a plain function over values.
//!
//! ```
//! use tandem_model::GtidSet;
//!
//! let executed: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9".parse().unwrap();
//! let published: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7".parse().unwrap();
//! assert!(published.is_subset(&executed));
//! assert_eq!(executed.minus(&published).to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:6:8-9");
//! ```

mod change;
mod cohort;
mod column_type;
mod cql;
mod decimal;
mod disposition;
mod epoch;
mod gtid;
mod mutation;
mod name_case;
mod nonce;
mod phase;
mod position;
mod remedy;
mod table;
mod value;
mod version;
mod watermark;

pub use change::{Change, NativeSource, Op, SourceInfo};
pub use cohort::{Cohort, CohortAttribute, bucket};
pub use column_type::{ColumnType, UnsupportedType};
pub use cql::{ClusteringOrder, CqlColumn, CqlType, TargetTable};
pub use decimal::{Decimal, ParseDecimalError};
pub use disposition::Disposition;
pub use epoch::{Epoch, Store};
pub use gtid::{Gtid, GtidSet, ParseGtidError, Runs};
pub use mutation::{Cell, Mutation, StoredRow, TargetKey, Write};
pub use name_case::NameCase;
pub use nonce::Nonce;
pub use phase::{DualWriteMode, Phase, PhaseRecord};
pub use position::BinlogPosition;
pub use remedy::{FollowUp, Remedy};
pub use table::{ColumnDef, TableDef, TableName};
pub use value::{Row, Value};
pub use version::Version;
pub use watermark::{CapturedTables, PartialTransaction, Watermark};
