//! The target tables: creating them, comparing them with the plan, preparing their statements.

mod catalog;
mod compare;
mod owners;
mod prepare;

pub use catalog::TableLimits;
pub use compare::Finding;
pub use owners::Owner;
