//! Every decision of the version protocol and of the rollout, as plain functions over values. No I/O, no
//! clock, no randomness.
//!
//! | module | decides |
//! |---|---|
//! | [`assemble`] | which records a binlog's transactions become, with which versions, in which Kafka transaction |
//! | [`mint`] | the version of each row change and each watermark |
//! | [`watermark`] | which watermark may be borrowed, what it covers, when it is applied |
//! | [`row_check`] | whether a difference between the stores counts, and what repairs it |
//! | [`dual_write`] | what a gateway writes to Cassandra beside MySQL |
//! | [`route`] | which store serves a read |
//! | [`rollout`] | phases, gates, and what comes next |
//!
//! The model in `tests/protocol` runs these functions, and no copies of them.

pub mod assemble;
pub mod dual_write;
pub mod mint;
pub mod rollout;
pub mod route;
pub mod row_check;
pub mod watermark;
