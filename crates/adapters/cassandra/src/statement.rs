//! CQL statements: text, preparation and values.

pub(crate) mod bind;
pub(crate) mod cql;
pub(crate) mod prepared;
