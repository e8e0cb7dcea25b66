//! The capture loop: MySQL's binlog to Kafka, in order, exactly once.
//!
//! ```text
//! binlog events ──► Assembler ──► batch ──► one Kafka transaction
//!                   (versions,              (the batch's changes, then its watermark)
//!                    records)
//! ```
//!
//! Invariants:
//!
//! - Only the [`Assembler`] mints versions: one for each row change, one for each watermark, in
//!   binlog order, from nothing but the last watermark and the binlog.
//! - A watermark is published in the same Kafka transaction as the changes it speaks of, after all
//!   of them. It is the only checkpoint: whatever was published without one was never committed.
//! - Any failure drops everything in memory and starts again from the last committed watermark.
//!   A restart after a crash and a restart after an aborted transaction are the same code.
//! - One capture publishes. Others stand by while it does (`turn.rs`), and one that goes on after it was
//!   believed dead is fenced by Kafka.
//! - A MySQL transaction larger than a batch is cut. Its watermark says how many of its row changes
//!   are out, and they are skipped without minting when the transaction is read again.
//! - What cannot be read any more is a gap, which only a resync goes beyond, on somebody's word (`resync.rs`).
//! - The rows of an XA transaction are published at its XA COMMIT (`prepared.rs`).

mod ahead;
mod assemble_error;
mod assembler;
mod error;
mod metrics;
mod prepared;
mod resync;
mod run;
mod turn;

pub use assemble_error::AssembleError;
pub use assembler::{Assembler, Batch, Outline};
pub use error::CaptureError;
pub use metrics::Metrics;
pub use resync::Gap;
pub use run::{Capture, CaptureConfig};
