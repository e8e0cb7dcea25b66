//! The HTTP API: from requests to reads and writes, and back to answers.

pub(crate) mod auth;
mod batch;
mod openapi;
pub(crate) mod server;
