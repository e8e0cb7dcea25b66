//! The target tables: created, compared with the plan, prepared.

mod catalog;
mod compare;
mod prepare;

pub use compare::Finding;
