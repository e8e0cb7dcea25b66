//! Epochs: which store decides what a row is.

use std::fmt;

/// A store that decides what a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// MySQL.
    Mysql,
    /// Cassandra.
    Cassandra,
}

/// Rises by one with each change of authority. The first one is MySQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The store that decides in this epoch.
    pub fn decides(self) -> Store {
        if self.0.is_multiple_of(2) { Store::Mysql } else { Store::Cassandra }
    }

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
