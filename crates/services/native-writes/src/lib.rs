//! Native writes: writes that a gateway accepts while Cassandra decides what a row is.
//!
//! A native write commits by one compare-and-set (CAS) on the guard of its key. Everything else is an effect: the record
//! on the log, the writes to the targets, the kept answer. Whoever meets a guard whose effects are not known to be there
//! makes them. The decisions are those of [`tandem_protocol::cutover`]; this crate carries them out on Cassandra and
//! Kafka.
//!
//! Invariants:
//!
//! - A guard changes only by a CAS that compares the nonce of the CAS before. A CAS whose outcome is unknown is settled by a
//!   serial read. If it may still arrive, only the same one is sent again.
//! - Before a guard is replaced, and before anything is answered that rests on it, its effects are there: record, targets
//!   and answer first, the mark `done` after all of them.
//! - Whoever makes effects makes the same ones, from the guard alone.
//! - A gateway's lease is asked between the CAS and the effects, and before each CAS of a batch. A write that lived through a
//!   lapse is abandoned. Whoever sweeps asks the same of its own right to act.
//! - A batch commits by one CAS on its own row. The row is written before any guard names the batch, and stays as long as one
//!   does.
//! - A request has an outcome that is known, or [`NativeWriteError::OutcomeUnknown`]. The same request settles it: it finds
//!   its nonce in the guard, or its answer in Cassandra.
//!
//! | table | rows | written by |
//! |---|---|---|
//! | `tandem_guards_<epoch>` | the guard of each key written in the epoch | CAS |
//! | `tandem_done_<epoch>` | the newest version of each guard whose effects are there | plain, at that version |
//! | `tandem_batches_<epoch>` | each batch that is not settled, and its state | CAS |
//! | `tandem_answers` | the version of each request lately accepted, in any epoch | plain, at that version |

mod batch;
mod batches;
mod complete;
mod error;
mod guards;
mod key;
mod lease;
mod request;
mod service;
mod settle;
mod sweep;
mod tables;
mod write;

pub use error::NativeWriteError;
pub use lease::{Began, HeldLease};
pub use request::{Decision, Outcome, Request, Token};
pub use service::{NativeConfig, NativeParts, NativeWrites};
pub use sweep::Swept;
pub use tables::{NativeTable, create_tables};
