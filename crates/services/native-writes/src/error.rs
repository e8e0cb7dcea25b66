//! Why a native write fails.

use tandem_cassandra::{ReadError, Rejection, SchemaError, WriteError};
use tandem_kafka::{ConsumeError, PublishError};
use tandem_mapping::RowError;
use tandem_model::Disposition;
use tandem_wire::WireError;

/// Why a native write, a batch or a sweep did not end as it should.
///
/// This attempt has done nothing, unless it is [`Self::OutcomeUnknown`]. An earlier attempt of the same request, whose outcome
/// the caller has not learned, may have happened all the same.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant without a text of its own is the error of the part it names
pub enum NativeWriteError {
    /// The request may have happened. The same request, under the same nonce, settles it.
    #[error("the outcome of the write is unknown ({cause}); repeat the request under the same nonce")]
    OutcomeUnknown {
        /// Why.
        cause: String,
    },
    /// The deadline has passed.
    #[error("the deadline passed before the write was made; repeat the request under the same nonce")]
    Late,
    /// This process may not write now: its lease has lapsed, or it does not lead.
    #[error(
        "this process may not write now: its lease has lapsed; it goes on once it has read the control topic"
    )]
    MayNotAct,
    /// The table is not mapped here.
    #[error("table {table} is not in this tandem.toml: map it as the other gateways do")]
    NotMapped {
        /// `database.table`.
        table: String,
    },
    /// No target holds all columns of every row under the primary key.
    #[error(
        "table {table} has no target keyed by the primary key alone with all columns and without `where`; add one: a \
         native write reads the row there"
    )]
    NoBaseTarget {
        /// `database.table`.
        table: String,
    },
    /// The new row has another primary key. That is a delete and an insert.
    #[error("a write of a row of {table} may not change its primary key: delete the row and insert another")]
    KeyChanged {
        /// `database.table`.
        table: String,
    },
    /// A batch names a row twice.
    #[error("a batch names a row of {table} twice: make one change of both")]
    NamedTwice {
        /// `database.table`.
        table: String,
    },
    /// The guard would be larger than Cassandra takes.
    #[error(
        "the guard of a row of {table} would have {bytes} bytes, more than {limit}: it holds the row and the row before, and \
         remembers the writes of the last minutes; make the row smaller, or write it less often"
    )]
    TooLarge {
        /// `database.table`.
        table: String,
        /// The size of the guard.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Cassandra's consistency level does not let a read see each write that was acknowledged.
    #[error(
        "native writes need `consistency` in [cassandra] to be local_quorum, quorum or all, and it is {level}"
    )]
    WeakConsistency {
        /// The level.
        level: String,
    },
    /// A guard cannot be read here.
    #[error(
        "the guard of {key} cannot be read: {cause}; run gateways of one release and one definition of the table"
    )]
    Guard {
        /// The table of the row.
        key: String,
        /// Why.
        cause: String,
    },
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a guard could not be written: {0}")]
    Swap(#[from] Rejection),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Schemas(#[from] ConsumeError),
    #[error(transparent)]
    Prepare(#[from] SchemaError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl NativeWriteError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::OutcomeUnknown { .. } | Self::Late | Self::MayNotAct => Disposition::Retry,
            Self::KeyChanged { .. } | Self::NamedTwice { .. } | Self::TooLarge { .. } => Disposition::Refuse,
            Self::NotMapped { .. }
            | Self::NoBaseTarget { .. }
            | Self::WeakConsistency { .. }
            | Self::Guard { .. } => Disposition::Stop,
            Self::Row(error) => error.retry(),
            Self::Read(error) => error.retry(),
            Self::Swap(error) => error.retry(),
            Self::Write(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Schemas(error) => error.retry(),
            Self::Prepare(error) => error.retry(),
            Self::Wire(error) => error.retry(),
        }
    }
}
