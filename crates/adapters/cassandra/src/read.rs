//! Reads: rows by key with write times, slices of a partition, and keys by token range.

pub(crate) mod keys;
mod scan;
mod slice;

pub use scan::{Scan, TokenRange};
pub use slice::{Slice, SliceBound};
