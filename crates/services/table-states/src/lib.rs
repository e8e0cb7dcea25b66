//! The state of each table, and the mapping in use, on `<prefix>.control`.
//!
//! [`TableStates`] follows both. [`change`] writes one, after it has read all earlier ones. The rules are in
//! `tandem_protocol::table_state`.

mod change;
mod error;
mod states;

pub use change::{change, halt};
pub use error::TableStatesError;
pub use states::{States, TableStates, read_states};
