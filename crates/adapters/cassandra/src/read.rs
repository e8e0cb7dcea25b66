//! Reads with writetimes: by keys, by slices of a partition, by token ranges.

pub(crate) mod keys;
mod scan;
mod slice;

pub use scan::{Scan, TokenRange};
pub use slice::{Slice, SliceBound};
