//! The rollout: its stages, the gates between them, and the next transition.

mod assess;
mod gate;
mod measurement;
mod policy;
mod record;
mod stages;

pub use assess::{Decision, Obstacle, Outlook, Situation, assess};
pub use gate::{Gate, GateError, Verdict};
pub use measurement::{Measured, Measurements, NAMES, Named};
pub use policy::{Expressions, Policy, PolicyError, default_gates, default_rollback, default_soak};
pub use record::{Action, Reason, Serving, audit, next_record};
pub use stages::{RolloutPlan, Stage, Transition};
