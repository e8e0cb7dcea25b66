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
//! - An offset is committed only after Cassandra has acknowledged everything below it.
//! - A record that cannot be decoded or mapped stops the role with its topic, partition and offset. A write that
//!   Cassandra refuses stops it with the table and the reason. Neither is skipped.
//! - Changes of one row within a batch are folded and written together. Batches are written one after the other.

mod error;
mod metrics;
mod plans;
mod run;

pub use error::ApplyError;
pub use metrics::Metrics;
pub use plans::Plans;
pub use run::{Apply, ApplyConfig};
