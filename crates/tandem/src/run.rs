//! Running roles, and the telemetry of a running process.

mod announce;
mod open_files;
pub(crate) mod process;
mod role_states;
pub(crate) mod roles;
mod supervise;
mod telemetry;
mod units;
