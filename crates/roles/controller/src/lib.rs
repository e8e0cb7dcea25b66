//! The controller: takes a migration through its phases, holds it back while a gate is not met, and
//! takes a step back where Cassandra's answers turn out badly.
//!
//! What decides is plain functions over values: [`assess`](tandem_protocol::rollout::assess) over the phase record, the measurements and
//! the [`Policy`](tandem_protocol::rollout::Policy). What measures and writes is a loop around them, in [`Controller`].
//!
//! Invariants:
//!
//! - A phase is never skipped, and never entered while a gate of the one before is not met. What was not
//!   measured meets no gate.
//! - Going back to the place before needs no gate.
//! - A change is one Kafka transaction of the phase record and its entry of the audit trail: a crash
//!   leaves the old phase or the new one. Only the controller that took over last can write.

mod api;
mod config;
mod controller;
mod lead;
mod measure;
mod metrics;
mod order;

pub use api::auth::{Scope, Token};
pub use config::{Controller, ControllerConfig, ControllerError};
pub use measure::counters::MetricNames;
pub use measure::log_state::MappedTable;
pub use metrics::Metrics;
