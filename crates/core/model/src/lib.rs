//! What every other crate of Tandem speaks of: values, rows, tables, changes, GTID sets, versions,
//! watermarks and mutations.
//!
//! This crate does no I/O and knows no tokio, no Kafka, no MySQL driver, no Cassandra driver and no
//! Avro. Everything in it is a plain function over values.

mod change;
mod cohort;
mod column_type;
mod cql;
mod decimal;
mod gtid;
mod mutation;
mod phase;
mod position;
mod table;
mod value;
mod version;
mod watermark;

pub use change::{Change, Op, SourceInfo};
pub use cohort::{Cohort, CohortAttribute, bucket};
pub use column_type::{ColumnType, UnsupportedType};
pub use cql::{ClusteringOrder, CqlColumn, CqlType, TargetTable};
pub use decimal::{Decimal, ParseDecimalError};
pub use gtid::{Gtid, GtidSet, ParseGtidError};
pub use mutation::{Cell, Mutation, StoredRow, TargetKey, Write};
pub use phase::{DualWriteMode, Phase, PhaseRecord};
pub use position::BinlogPosition;
pub use table::{ColumnDef, TableDef, TableName};
pub use value::{Row, Value};
pub use version::Version;
pub use watermark::{PartialTransaction, Watermark};
