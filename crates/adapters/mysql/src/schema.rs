//! Table definitions, and the checks that run before a migration.

mod grants;
mod preflight;
mod spelling;
mod table_error;
mod tables;

pub use grants::Need;
pub use preflight::{Finding, Severity};
pub(crate) use spelling::LOWER_CASE_TABLE_NAMES;
pub use table_error::{TableError, TableProblem};
