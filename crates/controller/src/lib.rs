//! The controller.
mod counters;
mod exposition;
mod gate;
mod ladder;
mod measurement;
mod plan;
mod policy;
mod window;

pub use counters::MetricNames;
pub use gate::{Gate, GateError, Verdict};
pub use ladder::{Ladder, Place, Step};
pub use measurement::{Measured, Measurements, NAMES, Named};
pub use plan::{Decision, Obstacle, Outlook, Situation, assess};
pub use policy::{Expressions, Policy, PolicyError, default_dwell, default_gates, default_step_back};
