//! From binlog events to the records of Kafka transactions.
//!
//! Only the [`Assembler`] mints versions: one for each row change, one for each watermark, in binlog
//! order, from nothing but the last watermark and the binlog.

mod assembler;
mod error;
mod pending_xa;

pub use assembler::{Assembler, AssemblerConfig, Batch};
pub use error::AssembleError;
