//! From a MySQL row to Cassandra mutations: plans, conversions, folding, equality, DDL.
//!
//! A [`TablePlan`] is compiled once from a [`TableConfig`] and the table's definition; after that
//! nothing is looked up by name. It says what a change writes ([`TablePlan::mutations`]), what
//! Cassandra must hold for a MySQL row ([`TablePlan::expected`]) and the other way round
//! ([`TablePlan::row`]), and how a row is put right again ([`TablePlan::repair`]). [`fold`] makes
//! few writes out of many, [`differences`] is the one definition of equality between both stores.
//! No I/O anywhere.

mod compile;
mod config;
mod convert;
mod ddl;
mod equality;
mod error;
mod filter;
mod fold;
mod plan;
mod print;
mod reading;
mod report;
mod rows;

pub use compile::compile_all;
pub use config::{OnNewColumn, TableConfig, TargetConfig, same_shape};
pub use convert::cql_type;
pub use ddl::create_table;
pub use equality::{Difference, differences};
pub use error::{PlanError, PlanProblem, Problem, RowError};
pub use filter::FilterProblem;
pub use fold::fold;
pub use plan::{TablePlan, TargetPlan};
pub use print::printable;
pub use rows::ExpectedRow;
