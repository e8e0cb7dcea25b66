//! Running roles, and what a running process tells about itself.

pub(crate) mod roles;
mod telemetry;
