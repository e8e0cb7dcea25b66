//! How a term as the active controller ends.

/// Why the term of the active controller ended.
pub(crate) enum Ended {
    /// The process was asked to stop.
    Stopped,
    /// It lost leadership, or the outcome of its write is unknown. It waits for leadership again.
    Lost,
    /// Another controller took over before this one noticed the loss of leadership. It rejoins the group.
    Fenced,
}
