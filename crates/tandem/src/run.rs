//! Running roles, and the telemetry of a running process.

pub(crate) mod process;
mod role_states;
pub(crate) mod roles;
mod supervise;
mod telemetry;
mod units;
