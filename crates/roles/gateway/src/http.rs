//! The HTTP API: turns requests into reads and writes, and their results into responses.

pub(crate) mod auth;
mod batch;
mod openapi;
pub(crate) mod server;
