//! Writes: the MySQL transaction, and the secondary write to Cassandra.

pub(crate) mod change;
pub(crate) mod secondary;
pub(crate) mod writes;
