//! Which gateways there are, as they announce themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem_wire::control::{Announcement, GATEWAY_ROLE, decode_control, is_process_key};
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
    /// When another process with the same name was heard last.
    other: Option<Instant>,
}

/// The roles that have announced themselves. A silent gateway counts until it is heard again or forgotten: it may still
/// serve clients.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    known: BTreeMap<Vec<u8>, Known>,
    /// The announcements that cannot be read, by key. A later release may have written them.
    unreadable: BTreeMap<Vec<u8>, String>,
}

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
    pub(crate) fn take(&mut self, record: &InRecord, now: Instant, live: bool) {
        let key = record.key.clone().unwrap_or_default();
        // What the roles of a process do holds nothing up: what they achieve is measured.
        if is_process_key(&key) {
            return;
        }
        self.unreadable.remove(&key);
        let Some(value) = &record.value else {
            self.known.remove(&key);
            return;
        };
        match decode_control::<Announcement>(value) {
            Ok(announcement) => {
                let before = self.known.get(&key);
                // The process that started first still speaks, although another one has taken its name.
                let older =
                    before.is_some_and(|k| live && k.announcement.started_at_us > announcement.started_at_us);
                let other = if older { Some(now) } else { before.and_then(|known| known.other) };
                self.known.insert(key, Known { announcement, since: now, heard: live, other });
            }
            Err(error) => _ = self.unreadable.insert(key, error.to_string()),
        }
    }

    /// What each role has counted, by its name. A silent gateway has an error instead, and other silent roles are left out.
    pub(crate) fn pages(&self, now: Instant) -> BTreeMap<String, Result<Page, String>> {
        let mut pages = BTreeMap::new();
        let gateway = |key: &[u8]| key.starts_with(format!("{GATEWAY_ROLE}/").as_bytes());
        for (key, error) in self.unreadable.iter().filter(|(key, _)| gateway(key)) {
            let why = format!("its announcement cannot be read: {error}");
            pages.insert(String::from_utf8_lossy(key).replacen('/', " ", 1), Err(why));
        }
        for known in self.known.values() {
            let of = &known.announcement;
            let name = format!("{} {}", of.role, of.name);
            let shared = known.other.is_some_and(|at| now.saturating_duration_since(at) < SILENT_AFTER);
            let why = match known.silent(now) {
                Some(silent) => Some(format!(
                    "it has been silent for {} s: if it is gone for good, forget it",
                    silent.as_secs()
                )),
                None if shared => Some(
                    "two processes announce themselves by this name: give one of them another gateway.name"
                        .into(),
                ),
                None if !known.heard => {
                    Some("it was not heard yet since this controller became active".into())
                }
                None => None,
            };
            match why {
                None => _ = pages.insert(name, Ok(Page::of(of))),
                Some(why) if of.role == GATEWAY_ROLE => _ = pages.insert(name, Err(why)),
                // Other silent roles hold nothing up.
                Some(_) => {}
            }
        }
        pages
    }

    /// The gateways, by name.
    pub(crate) fn gateways(&self, now: Instant) -> Vec<KnownGateway> {
        let gateways = self.known.values().filter(|known| known.announcement.role == GATEWAY_ROLE);
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
        presence.take(&record("gateway", "a"), start, true);
        presence.take(&record("gateway", "b"), start, true);
        presence.take(&record("capture", "c"), start, true);
        assert_eq!(presence.pages(start).len(), 3);
        let later = start + SILENT_AFTER;
        presence.take(&record("gateway", "b"), later, true);
        let pages = presence.pages(later);
        assert_eq!(pages.len(), 2, "a silent capture holds nothing up");
        let why = pages["gateway a"].as_ref().unwrap_err();
        assert!(why.contains("silent for 5 s"), "{why}");
        assert_eq!(pages["gateway b"].as_ref().unwrap().generation, Some(7));
        let silent: Vec<bool> = presence.gateways(later).iter().map(|g| g.silent.is_some()).collect();
        assert_eq!(silent, [true, false]);
        let gone = no_longer_announced("t", "gateway", "a");
        let gone = InRecord { key: Some(gone.key), value: None, ..record("gateway", "a") };
        presence.take(&gone, later, true);
        assert_eq!(presence.pages(later).into_keys().collect::<Vec<_>>(), ["gateway b"]);
    }

    #[test]
    fn what_was_said_before_is_no_sign_of_life() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.take(&record("gateway", "a"), start, false);
        presence.take(&record("capture", "c"), start, false);
        let pages = presence.pages(start);
        assert_eq!(pages.len(), 1);
        assert!(pages["gateway a"].as_ref().unwrap_err().contains("not heard yet"));
        assert!(presence.pages(start + SILENT_AFTER)["gateway a"].as_ref().unwrap_err().contains("silent"));
        presence.take(&record("gateway", "a"), start, true);
        assert!(presence.pages(start)["gateway a"].is_ok());
    }

    #[test]
    fn two_gateways_of_one_name_and_what_cannot_be_read_are_noticed() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let said = |started_at_us| {
            let value = record("gateway", "a").value.unwrap();
            let announcement: Announcement = decode_control(&value).unwrap();
            let value = encode_control(&Announcement { started_at_us, ..announcement }).unwrap();
            InRecord { value: Some(value), ..record("gateway", "a") }
        };
        presence.take(&said(1), start, true);
        presence.take(&said(2), start, true);
        assert!(presence.pages(start)["gateway a"].is_ok(), "it has started again");
        presence.take(&said(1), start, true);
        presence.take(&said(2), start, true);
        assert!(presence.pages(start)["gateway a"].as_ref().unwrap_err().contains("two processes"));
        let later = start + SILENT_AFTER;
        presence.take(&said(2), later, true);
        assert!(presence.pages(later)["gateway a"].is_ok());
        presence.take(&InRecord { value: Some(vec![1]), ..record("gateway", "b") }, later, true);
        assert!(presence.pages(later)["gateway b"].as_ref().unwrap_err().contains("cannot be read"));
    }
}
