//! Reads from either store, and the rechecks of the differences that they find.

mod compare;
pub(crate) mod live;
pub(crate) mod page;
pub(crate) mod reads;
pub(crate) mod recheck;
