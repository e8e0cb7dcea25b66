//! The protocol of versions, checked by going through everything that can happen within bounds.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod cassandra;
mod model;
mod rules;
mod table;
