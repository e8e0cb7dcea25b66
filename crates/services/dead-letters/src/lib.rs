//! Dead letters: the changes that apply has put aside, because the mapping cannot convert their row or Cassandra refuses
//! it.
//!
//! Invariants:
//!
//! - Apply publishes a dead letter before the offset of its record counts as done. So whoever sees an offset committed, and
//!   then reads the dead-letter topic to its end, knows every dead letter below that offset.
//! - While a dead letter of a key is open, Cassandra may lack the change. Reads of the key go to MySQL, and no check of the
//!   key counts, nor one that was under way when the dead letter was settled.
//! - A dead letter is settled only after a complete write of its key at a version above the change. An operator may discard
//!   it instead.

mod letters;
mod open;
mod retry;

pub use letters::{DeadLetters, DeadLettersError};
pub use open::OpenLetter;
pub use retry::{Retried, Retrier, RetryError};
