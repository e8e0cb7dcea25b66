//! The controller: takes a migration through its phases, holds it back while a gate is not met, and
//! takes a step back where Cassandra's answers turn out badly.
//!
//! What decides is plain functions over values: [`assess`] over the phase record, the measurements and
//! the [`Policy`]. What measures and writes is a loop around them, in [`Controller`].
//!
//! Invariants:
//!
//! - A phase is never skipped, and never entered while a gate of the one before is not met. What was not
//!   measured meets no gate.
//! - Going back to the place before needs no gate.
//! - A change is one Kafka transaction of the phase record and its entry of the audit trail: a crash
//!   leaves the old phase or the new one. Only the controller that took over last can write.

mod active;
mod api;
mod auth;
mod controller;
mod counters;
mod exposition;
mod gate;
mod ladder;
mod log_state;
mod log_watch;
mod measurement;
mod metrics;
mod order;
mod plan;
mod policy;
mod problem;
mod record;
mod scrape;
mod view;
mod window;

pub use auth::{Scope, Token};
pub use controller::{Controller, ControllerConfig, ControllerError};
pub use counters::MetricNames;
pub use gate::{Gate, GateError, Verdict};
pub use ladder::{Ladder, Place, Step};
pub use log_state::MappedTable;
pub use measurement::{Measured, Measurements, NAMES, Named};
pub use metrics::Metrics;
pub use plan::{Decision, Obstacle, Outlook, Situation, assess};
pub use policy::{Expressions, Policy, PolicyError, default_dwell, default_gates, default_step_back};
pub use record::Serving;
