//! The controller: it moves a migration through the stages of its rollout plan. It holds a stage while a gate is
//! not met, and rolls back when Cassandra's answers are bad.
//!
//! The decision is a pure function: [`assess`](tandem_protocol::rollout::assess) over the phase record, the
//! measurements and the [`Policy`](tandem_protocol::rollout::Policy). [`Controller`] is the loop around it, which
//! measures and writes.
//!
//! Invariants:
//!
//! - The controller never skips a phase, and never enters one while a gate of the phase before is not met. A
//!   measurement that is missing does not meet a gate.
//! - A rollback to the previous stage needs no gate.
//! - A change is one Kafka transaction: the phase record and its entry of the audit trail. A crash leaves either
//!   the old phase or the new one. Only the controller that took over last can write.

mod api;
mod config;
mod controller;
mod lead;
mod measure;
mod metrics;
mod order;

pub use api::auth::Scope;
pub use api::problem::STANDBY;
pub use config::{Controller, ControllerConfig, ControllerError};
pub use measure::log_state::MappedTable;
pub use measure::log_watch::LogError;
pub use metrics::Metrics;
