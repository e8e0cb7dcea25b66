//! Running roles, and the telemetry of a running process.

pub(crate) mod roles;
mod telemetry;
