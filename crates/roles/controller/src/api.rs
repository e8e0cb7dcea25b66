//! The HTTP API for operators.

pub(crate) mod auth;
mod problem;
pub(crate) mod server;
mod view;
