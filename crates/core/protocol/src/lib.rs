//! Every decision of the version protocol and of the rollout, as plain functions over values.
//!
//! The functions do no I/O, read no clock and draw no random numbers. Callers pass the time and the samples
//! in.
//!
//! | module | decides |
//! |---|---|
//! | [`assemble`] | the records, versions and Kafka transactions that a binlog's transactions become |
//! | [`captured_tables`] | which tables are captured from a watermark on |
//! | [`mapping_in_use`] | which mapping apply uses while its processes are restarted with another one |
//! | [`mint`] | the version of each row change and each watermark |
//! | [`watermark`] | which watermark a write may borrow, what a watermark covers, and when it is applied |
//! | [`row_check`] | whether a difference between the stores is a mismatch, and what repairs it |
//! | [`dead_letter`] | how a change that was put aside is retried |
//! | [`verified`] | what a full verification proves of a table |
//! | [`table_state`] | when a table halts, resumes, is copied again and is live |
//! | [`dual_write`] | what a gateway writes to Cassandra after MySQL |
//! | [`route`] | which store serves a read |
//! | [`cutover`] | the write switch, native writes, and the switch back; no role uses them yet |
//! | [`rollout`] | phases, gates and the next transition |
//!
//! The model in `tests/protocol` runs these functions, not copies of them.
//!
//! ```
//! use tandem_model::Version;
//! use tandem_protocol::row_check::{Evidence, Verdict, judge};
//!
//! let (lower, floor) = (Version(100), Version(0));
//! let evidence = |change| Evidence { last_change: Some(Version(change)), lower, floor, put_aside: false, settled: false };
//! // The stores differ, and no change of the key came after the lower watermark.
//! assert_eq!(judge(true, evidence(90)), Verdict::Mismatch);
//! // A change came after it. The comparison proves nothing and is repeated.
//! assert_eq!(judge(true, evidence(110)), Verdict::Undecided);
//! ```

pub mod assemble;
pub mod captured_tables;
pub mod cutover;
pub mod dead_letter;
pub mod dual_write;
pub mod mapping_in_use;
pub mod mint;
pub mod rollout;
pub mod route;
pub mod row_check;
pub mod table_state;
pub mod verified;
pub mod watermark;
pub mod watermark_log;
