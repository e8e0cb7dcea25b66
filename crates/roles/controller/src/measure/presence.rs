//! Which gateways there are, as they announce themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem_wire::WireError;
use tandem_wire::control::{Announcement, GATEWAY_ROLE, decode_control};
use tandem_wire::log::InRecord;
use tokio::time::Instant;

use crate::measure::counters::Page;

/// After so long without an announcement a role is silent. Running roles announce themselves each second.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// A role that has announced itself and was not taken back.
#[derive(Debug, Clone)]
struct Known {
    announcement: Announcement,
    /// When it was read, or when this controller began to listen and found it on the topic.
    since: Instant,
    /// Whether it was said while this controller listened.
    heard: bool,
}

/// The roles that have announced themselves. A silent gateway counts until it is heard again or forgotten: it may still
/// serve clients.
#[derive(Debug, Default)]
pub(crate) struct Presence(BTreeMap<Vec<u8>, Known>);

/// A gateway as the controller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownGateway {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) generation: i64,
    /// For how long it has been silent, if it is.
    pub(crate) silent: Option<Duration>,
}

impl Presence {
    /// Applies a record of the topic. `live` says that it is new: what was on the topic before may be of a role that is
    /// gone.
    ///
    /// # Errors
    ///
    /// The record cannot be decoded.
    pub(crate) fn take(&mut self, record: &InRecord, now: Instant, live: bool) -> Result<(), WireError> {
        let key = record.key.clone().unwrap_or_default();
        match &record.value {
            None => _ = self.0.remove(&key),
            Some(value) => {
                let announcement: Announcement = decode_control(value)?;
                self.0.insert(key, Known { announcement, since: now, heard: live });
            }
        }
        Ok(())
    }

    /// What each role has counted, by its name. A silent gateway has an error instead, and other silent roles are left out.
    pub(crate) fn pages(&self, now: Instant) -> BTreeMap<String, Result<Page, String>> {
        let mut pages = BTreeMap::new();
        for known in self.0.values() {
            let of = &known.announcement;
            let name = format!("{} {}", of.role, of.name);
            match known.silent(now) {
                None if known.heard => _ = pages.insert(name, Ok(Page::of(of))),
                None if of.role == GATEWAY_ROLE => {
                    let why = "it was not heard yet since this controller became active";
                    pages.insert(name, Err(why.to_owned()));
                }
                None => {}
                Some(silent) if of.role == GATEWAY_ROLE => {
                    let seconds = silent.as_secs();
                    let why =
                        format!("it has been silent for {seconds} s: if it is gone for good, forget it");
                    pages.insert(name, Err(why));
                }
                Some(_) => {}
            }
        }
        pages
    }

    /// The gateways, by name.
    pub(crate) fn gateways(&self, now: Instant) -> Vec<KnownGateway> {
        let gateways = self.0.values().filter(|known| known.announcement.role == GATEWAY_ROLE);
        gateways
            .map(|known| KnownGateway {
                name: known.announcement.name.clone(),
                address: known.announcement.address.clone(),
                version: known.announcement.version.clone(),
                generation: known.announcement.generation.unwrap_or(0),
                silent: known.silent(now),
            })
            .collect()
    }
}

impl Known {
    fn silent(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since)).filter(|silent| *silent >= SILENT_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_wire::control::{announcement_key, encode_control, no_longer_announced};

    fn record(role: &str, name: &str) -> InRecord {
        let announcement = Announcement {
            role: role.into(),
            name: name.into(),
            address: "127.0.0.1:1".into(),
            version: "1".into(),
            started_at_us: 1,
            generation: Some(7),
            counters: BTreeMap::new(),
            at_us: 2,
        };
        InRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            key: Some(announcement_key(role, name)),
            value: Some(encode_control(&announcement).unwrap()),
            version: None,
            timestamp_ms: None,
        }
    }

    #[test]
    fn a_silent_gateway_counts_until_it_is_heard_or_forgotten() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.take(&record("gateway", "a"), start, true).unwrap();
        presence.take(&record("gateway", "b"), start, true).unwrap();
        presence.take(&record("capture", "c"), start, true).unwrap();
        assert_eq!(presence.pages(start).len(), 3);
        let later = start + SILENT_AFTER;
        presence.take(&record("gateway", "b"), later, true).unwrap();
        let pages = presence.pages(later);
        assert_eq!(pages.len(), 2, "a silent capture holds nothing up");
        let why = pages["gateway a"].as_ref().unwrap_err();
        assert!(why.contains("silent for 5 s"), "{why}");
        assert_eq!(pages["gateway b"].as_ref().unwrap().generation, Some(7));
        let silent: Vec<bool> = presence.gateways(later).iter().map(|g| g.silent.is_some()).collect();
        assert_eq!(silent, [true, false]);
        let gone = no_longer_announced("t", "gateway", "a");
        presence
            .take(&InRecord { key: Some(gone.key), value: None, ..record("gateway", "a") }, later)
            .unwrap();
        assert_eq!(presence.pages(later).into_keys().collect::<Vec<_>>(), ["gateway b"]);
    }

    #[test]
    fn what_was_said_before_is_no_sign_of_life() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.take(&record("gateway", "a"), start, false).unwrap();
        presence.take(&record("capture", "c"), start, false).unwrap();
        let pages = presence.pages(start);
        assert_eq!(pages.len(), 1);
        assert!(pages["gateway a"].as_ref().unwrap_err().contains("not heard yet"));
        assert!(presence.pages(start + SILENT_AFTER)["gateway a"].as_ref().unwrap_err().contains("silent"));
        presence.take(&record("gateway", "a"), start, true).unwrap();
        assert!(presence.pages(start)["gateway a"].is_ok());
    }
}
