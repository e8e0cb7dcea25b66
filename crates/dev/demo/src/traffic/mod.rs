//! Live traffic on MySQL that bypasses the gateways.

mod run;
mod step;

pub(crate) use run::{Counts, Traffic, Workload};
pub(crate) use step::{Step, execute};
