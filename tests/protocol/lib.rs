//! The protocol of versions, checked by exploring everything that can happen within bounds.
//!
//! The decisions are the product's own functions, on the product's types. Only the world around them is the model's: a
//! small MySQL, log and Cassandra, and the order in which things happen.
//!
//! | decision | function | asked by |
//! |---|---|---|
//! | binlog events to records and watermarks, resuming | `assemble::Assembler` | `capture_log` |
//! | rows to mutations, folding, repair, equality | `TablePlan`, `fold`, `differences` | `table`, `actors/apply.rs` |
//! | which watermark is borrowed, what is applied, what covers a position | `watermark` | `actors/check.rs` |
//! | a row check's verdict | `row_check::judge` | `actors/check.rs` |
//! | what a dual write writes to Cassandra | `dual_write::plan_secondary_writes` | `actors/gateway.rs` |
//! | which store serves a read | `route::route` | `actors/gateway.rs` |
//! | when a table halts, resumes and is live, and what is skipped | `table_state` | `halted_tables` |
//!
//! A rule that lies within such a function is broken at its border: its input or its output is altered.

#![cfg(test)]
// A test fails by panicking; bounds are switches; a state's parts are matched one way or another.
#![allow(clippy::unwrap_used, clippy::struct_excessive_bools, clippy::single_match_else)]
#![allow(clippy::trivially_copy_pass_by_ref)]

mod actors;
mod capture_log;
mod cassandra;
mod cutover;
mod halted_tables;
mod protocol;
mod rules;
mod search;
mod state;
mod table;
mod world;
