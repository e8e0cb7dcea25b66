//! The protocol of versions, checked by going through everything that can happen within bounds.

#![cfg(test)]
// A test fails by panicking; bounds are switches; a state's parts are matched one way or another.
#![allow(clippy::unwrap_used, clippy::struct_excessive_bools, clippy::single_match_else)]
#![allow(clippy::trivially_copy_pass_by_ref)]

mod actors;
mod cassandra;
mod protocol;
mod rules;
mod state;
mod table;
mod world;
