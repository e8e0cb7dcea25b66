//! Maps MySQL rows to Cassandra mutations: plans, conversions, folding, equality, DDL. No I/O.
//!
//! A [`TablePlan`] is compiled once from a [`TableConfig`] and the table's definition. After that, nothing is
//! looked up by name. The plan answers four questions:
//!
//! - Which mutations does a change write? [`TablePlan::mutations`]
//! - What must Cassandra hold for a MySQL row? [`TablePlan::expected`]
//! - Which MySQL row does a Cassandra row stand for? [`TablePlan::row`]
//! - Which mutations repair a row? [`TablePlan::repair`]
//!
//! [`fold`] merges many writes into few. [`differences`] is the only definition of equality between the
//! stores.

mod compile;
mod config;
mod convert;
mod ddl;
mod equality;
mod error;
mod filter;
mod fold;
mod former;
mod plan;
mod print;
mod reading;
mod report;
mod rows;

pub use compile::compile_all;
pub use config::{
    OnBadRow, OnNewColumn, OnTruncate, TableConfig, TargetConfig, TopicChoice, ZeroDates, same_shape,
};
pub use convert::cql_type;
pub use ddl::create_table;
pub use equality::{Difference, differences};
pub use error::{PlanError, PlanProblem, PlanProblemKind, RowError};
pub use filter::FilterProblem;
pub use fold::fold;
pub use former::FormerPlan;
pub use plan::{TablePlan, TargetPlan};
pub use print::printable;
pub use rows::ExpectedRow;
