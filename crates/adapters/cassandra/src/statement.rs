//! CQL statements: their text, their preparation, their values.

pub(crate) mod bind;
pub(crate) mod cql;
pub(crate) mod prepared;
