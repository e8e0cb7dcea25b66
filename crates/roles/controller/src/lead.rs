//! The active controller: how it is elected, and what it does.

pub(crate) mod active;
pub(crate) mod leadership;
pub(crate) mod outcome;
