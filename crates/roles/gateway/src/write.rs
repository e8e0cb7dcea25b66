//! Writes: MySQL's transaction, and Cassandra's secondary write.

pub(crate) mod change;
pub(crate) mod secondary;
pub(crate) mod writes;
