//! The HTTP API: turns requests into reads and writes, and their results into responses.

pub(crate) mod api;
pub(crate) mod auth;
mod batch;
mod context;
mod openapi;
pub(crate) mod server;
