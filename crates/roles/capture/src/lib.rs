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
//! - A watermark is published in the same Kafka transaction as the changes that it covers, after all
//!   of them. It is the only checkpoint: a change without its watermark was never committed.
//! - After any failure, capture drops its memory and restarts from the last committed watermark. A restart after a
//!   crash and a restart after an aborted transaction are the same code.
//! - Only one capture publishes at a time. The others are standbys (`standby.rs`). Kafka fences a capture that
//!   resumes after another one has taken over.
//! - A MySQL transaction larger than a batch is published in parts. A partial watermark says how many of its row
//!   changes are published. When the transaction is read again, those are skipped and no versions are minted for
//!   them.
//! - Changes that can no longer be read are a log gap. Only a re-snapshot, which an operator orders, continues after
//!   it (`resnapshot.rs`).
//! - The rows of an XA transaction are published at its XA COMMIT
//!   ([`tandem_protocol::assemble`]).

mod error;
mod metrics;
mod prefetch;
mod resnapshot;
mod run;
mod standby;
mod watermark_topic;

pub use error::CaptureError;
pub use metrics::Metrics;
pub use resnapshot::LogGap;
pub use run::{Capture, CaptureConfig};
