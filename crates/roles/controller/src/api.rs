//! The HTTP API for operators.

pub(crate) mod auth;
pub(crate) mod problem;
pub(crate) mod server;
mod view;
