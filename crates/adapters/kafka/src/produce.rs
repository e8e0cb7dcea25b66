//! Writes to the log, with or without transactions.

pub(crate) mod producer;
mod publisher;

pub use producer::Producer;
pub use publisher::TransactionalPublisher;
