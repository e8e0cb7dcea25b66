//! Reads, and what becomes of the differences that they meet.

pub(crate) mod page;
pub(crate) mod reads;
pub(crate) mod recheck;
