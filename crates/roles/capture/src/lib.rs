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
//! - Only the [`Assembler`](tandem_protocol::assemble::Assembler) mints versions.
//! - A watermark is published in the same Kafka transaction as the changes it speaks of, after all
//!   of them. It is the only checkpoint: whatever was published without one was never committed.
//! - Any failure drops everything in memory and starts again from the last committed watermark.
//!   A restart after a crash and a restart after an aborted transaction are the same code.
//! - One capture publishes. Others stand by while it does (`turn.rs`), and one that goes on after it was
//!   believed dead is fenced by Kafka.
//! - A MySQL transaction larger than a batch is cut. Its watermark says how many of its row changes
//!   are out, and they are skipped without minting when the transaction is read again.
//! - What cannot be read any more is a gap, which only a re-snapshot goes beyond, on somebody's word (`resnapshot.rs`).
//! - The rows of an XA transaction are published at its XA COMMIT
//!   ([`tandem_protocol::assemble`]).

mod error;
mod metrics;
mod prefetch;
mod resnapshot;
mod run;
mod standby;

pub use error::CaptureError;
pub use metrics::Metrics;
pub use resnapshot::LogGap;
pub use run::{Capture, CaptureConfig};
