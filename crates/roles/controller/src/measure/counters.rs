//! The counters in an announcement.

use std::collections::BTreeMap;

use tandem_wire::control::Announcement;

/// What a role has counted since its process started.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Page {
    /// The generation that the gateway acts on. `None` if the role is not a gateway.
    pub(crate) generation: Option<u64>,
    /// When the process started, in microseconds since the epoch.
    pub(crate) started_at_us: i64,
    counters: BTreeMap<String, i64>,
}

impl Page {
    /// What an announcement says.
    pub(crate) fn of(announcement: &Announcement) -> Self {
        Self {
            generation: announcement.generation.map(|generation| u64::try_from(generation).unwrap_or(0)),
            started_at_us: announcement.started_at_us,
            counters: announcement.counters.clone(),
        }
    }

    /// The value of a counter. One that was not announced is 0, because nothing was counted yet.
    pub(crate) fn count(&self, counter: &str) -> f64 {
        self.counters.get(counter).copied().unwrap_or(0) as f64
    }

    /// Whether the role counts this.
    pub(crate) fn has(&self, counter: &str) -> bool {
        self.counters.contains_key(counter)
    }
}
