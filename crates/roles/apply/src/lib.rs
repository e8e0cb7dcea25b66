//! The apply loop: changes from Kafka to timestamped writes in Cassandra.
//!
//! ```text
//! group consumer ──► decode, map, fold ──► write ──► commit offsets
//!                    (batch n + 1)         (batch n)
//! ```
//!
//! Invariants:
//!
//! - Every write carries its change's version as its timestamp, so batches can be replayed, in any order
//!   and by several consumers at once, and Cassandra converges to the same state.
//! - An offset is committed only after Cassandra has acknowledged everything below it, but for dead letters. Those are on
//!   their topic before the offset of their record is committed.
//! - A change that the mapping cannot convert or Cassandra refuses becomes a dead letter, or halts its table if the table
//!   says so. A record that cannot be decoded stops the role with its topic, partition and offset.
//! - Only changes of halted tables are skipped, and all of them are replayed when the table resumes
//!   (`tandem_protocol::table_state`). A table halts when the mapping does not fit it any more, when it has too many dead
//!   letters, and when its target is gone.
//! - All members of the group have one layout of the target tables: a process with another one waits (`membership.rs`).
//! - Changes of one row within a batch are folded and written together. Batches are written one after the other.

mod dead_letters;
mod error;
mod membership;
mod metrics;
mod plans;
mod replay;
mod run;
mod writer;

pub use error::ApplyError;
pub use membership::{is_in_use, layout_of, read_mapping_in_use};
pub use metrics::Metrics;
pub use plans::Plans;
pub use run::{Apply, ApplyConfig, Definitions};
