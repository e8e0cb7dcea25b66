//! What the caller of a failed operation does next.

/// The answer of every error type's `retry()`: what the caller of the failed operation does next.
///
/// Callers match on it without a wildcard arm, so that a new answer cannot be overlooked.
///
/// ```
/// use tandem_model::{Disposition, GtidSet};
///
/// let error = "not a set".parse::<GtidSet>().unwrap_err();
/// let next = match error.retry() {
///     Disposition::Retry => "try again after a pause",
///     Disposition::Stop => "stop and report it",
///     Disposition::Refuse => "refuse this input and take the next",
/// };
/// assert_eq!(next, "refuse this input and take the next");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The cause is outside and passes by itself, such as a server that is away or a lock wait. The same
    /// operation may succeed later.
    Retry,
    /// The operation cannot succeed before somebody changes something, such as the configuration, a
    /// privilege, a server's setting, or a log that has lost records. The role stops and reports it.
    Stop,
    /// The input is bad: a row, a record, a value or a request. Whoever may skip it refuses it or sets it
    /// aside, and takes the next one. Whoever may not skip it stops.
    Refuse,
}
