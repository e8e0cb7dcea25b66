//! Reverse: native writes from Kafka to MySQL.
//!
//! ```text
//! group consumer ──► decode, newest of each row ──► one transaction: rows, versions, offsets ──► commit offsets
//! ```
//!
//! Invariants:
//!
//! - A row in MySQL never goes back to an older native write. Its version stands in MySQL and changes in the row's
//!   transaction; a record counts only above it ([`tandem_protocol::cutover::reverse`]).
//! - The offsets stand in MySQL, too, in the same transaction, and reading begins there. So a MySQL that has failed over
//!   and lost transactions is caught up. Kafka has the same offsets afterwards, for the lag. What came to MySQL as a dead
//!   letter is written again at each start, if MySQL lacks it.
//! - A record that MySQL refuses is a dead letter before its offset is kept. The others go on.
//! - Dead letters are tried again together, in one transaction: what a later write has freed, and rows that exchange their
//!   unique values, come to MySQL by themselves. A dead letter falls away when MySQL keeps its version or a later one.
//! - Only native records count. What capture has published came from MySQL.

mod batch;
mod error;
mod letters;
mod metrics;
mod run;
mod write;

pub use error::ReverseError;
pub use metrics::Metrics;
pub use run::{Reverse, ReverseConfig};
