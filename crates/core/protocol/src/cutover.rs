//! The write switch, the time in which Cassandra decides, and the switch back, as functions over values.
//!
//! No acknowledged write is lost, and one store at a time decides what a row is. Each module holds one part
//! of that:
//!
//! | module | decides |
//! |---|---|
//! | [`guard`] | the order of a key's native writes, their versions and their effects |
//! | [`lease`] | whether a gateway may still act on the phase record that it knows |
//! | [`batch`] | whether the rows of a batch count, and who settles a batch that nobody finishes |
//! | [`reverse`] | which native records MySQL still needs |
//! | [`switch`] | the steps from one authority to the other, and the floor of an epoch's versions |
//! | [`check`] | whether a row is right while Cassandra decides, and what repairs it |
//!
//! The model in `tests/protocol/cutover` calls these functions, and the service of native writes those of [`guard`],
//! [`batch`] and [`lease`]. No role uses that service yet.

pub mod batch;
pub mod check;
pub mod guard;
pub mod lease;
pub mod reverse;
pub mod switch;
