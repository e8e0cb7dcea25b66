//! Client reads and transactions, for the gateway.

mod partition_read;
mod pool;
mod transaction;
mod visible;

pub use partition_read::{Bound, PartitionRead};
pub use pool::{ClientPool, Forgotten};
pub use transaction::{ClientTransaction, Commit};
