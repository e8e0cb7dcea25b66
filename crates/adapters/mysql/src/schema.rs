//! Table definitions, and the checks that run before a migration.

mod grants;
mod preflight;
mod table_error;
mod tables;

pub use grants::Need;
pub use preflight::{Finding, Severity};
pub use table_error::{TableError, TableProblem};
