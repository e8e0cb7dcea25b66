//! Writing to the log: in transactions, or record by record.

pub(crate) mod producer;
mod publisher;

pub use producer::Producer;
pub use publisher::TransactionalPublisher;
