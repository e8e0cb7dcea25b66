//! The active controller: its election and its work.

pub(crate) mod active;
pub(crate) mod leadership;
pub(crate) mod outcome;
