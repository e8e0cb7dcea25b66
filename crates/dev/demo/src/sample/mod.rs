//! The sample database: its tables, its rows and its traffic.

mod rows;
mod schema;
mod traffic;

pub(crate) use rows::{Generator, QUIET, Size, create, insert};
pub(crate) use schema::{MAPPING, entity};
pub(crate) use traffic::SampleTraffic;
