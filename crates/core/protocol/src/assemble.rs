//! Turns binlog events into the records of Kafka transactions.
//!
//! Only the [`Assembler`] mints versions: one for each row change and one for each watermark, in binlog
//! order. They depend only on the last watermark and the binlog.

mod assembler;
mod error;
mod pending_xa;

pub use assembler::{Assembler, AssemblerConfig, Batch};
pub use error::AssembleError;
