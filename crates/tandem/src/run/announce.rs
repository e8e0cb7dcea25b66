//! Announces the running roles of this process on Kafka, each second.
//!
//! The controller learns from there which gateways there are, on which generation of the phase each of them acts, and what
//! they have counted. A role that does not run is not announced, so its silence is noticed. One that ends is taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tandem_kafka::{KafkaConfig, Producer};
use tandem_runtime::{Backoff, now_us};
use tandem_wire::control::{Announcement, counter, no_longer_announced};
use tokio::time::Instant;

use crate::config::gateway::GatewaySection;
use crate::role::Role;
use crate::run::process::Process;

/// How often a running role is announced.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether a gateway acts on another generation, which is announced at once.
const LOOK: Duration = Duration::from_millis(100);
/// How long taking the announcements back may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause before Kafka is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// The roles that are announced.
const ANNOUNCED: [Role; 2] = [Role::Gateway, Role::Capture];

/// Who announces, and since when.
struct Announcer<'a> {
    process: &'a Process<'a>,
    topic: String,
    producer: Producer,
    started_at_us: i64,
    host: String,
}

impl Process<'_> {
    /// Announces the running roles until this is dropped or `ended` resolves. Then it takes the announcements back.
    pub(super) async fn announce(&self, ended: impl Future<Output = ()>) -> Result<()> {
        let mut ended = std::pin::pin!(ended);
        if !ANNOUNCED.iter().any(|role| self.has(*role)) {
            ended.await;
            return Ok(());
        }
        let kafka = self.config.kafka()?;
        let announcer = tokio::select! {
            announcer = Announcer::start(self, &kafka) => announcer,
            () = &mut ended => return Ok(()),
        };
        tokio::select! {
            () = announcer.run() => {}
            () = &mut ended => {}
        }
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, announcer.leave()).await;
        Ok(())
    }
}

impl<'a> Announcer<'a> {
    /// Connects, however long it takes.
    async fn start(process: &'a Process<'a>, kafka: &KafkaConfig) -> Self {
        let started_at_us = now_us();
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let mut backoff = Backoff::new(PAUSE, PAUSE);
        let producer = loop {
            // The roles create the topic before they run.
            if ANNOUNCED.iter().any(|role| process.states.runs(*role)) {
                match Producer::start(kafka).await {
                    Ok(producer) => break producer,
                    Err(error) => {
                        tracing::warn!(%error, "this process does not announce its roles yet");
                        backoff.pause().await;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        };
        let topic = kafka.topics().announcements();
        Self { process, topic, producer, started_at_us, host: host.unwrap_or_default() }
    }

    async fn run(&self) {
        let mut announced: BTreeMap<Role, (Instant, Option<i64>)> = BTreeMap::new();
        loop {
            let now = Instant::now();
            let due: Vec<Announcement> = ANNOUNCED
                .into_iter()
                .filter(|role| self.process.states.runs(*role))
                .filter_map(|role| {
                    let announcement = self.announcement(role);
                    let of_now = (now, announcement.generation);
                    let is_due = announced.get(&role).is_none_or(|(at, generation)| {
                        now.duration_since(*at) >= INTERVAL || *generation != announcement.generation
                    });
                    is_due.then(|| {
                        announced.insert(role, of_now);
                        announcement
                    })
                })
                .collect();
            self.send(&due).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn send(&self, announcements: &[Announcement]) {
        let records: Result<Vec<_>, _> = announcements.iter().map(|one| one.record(&self.topic)).collect();
        let sent = match records {
            Ok(records) if records.is_empty() => return,
            Ok(records) => self.producer.send(records).await.map(drop).map_err(anyhow::Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            tracing::warn!(error = format!("{error:#}"), "a running role was not announced");
        }
    }

    fn announcement(&self, role: Role) -> Announcement {
        let metrics = &self.process.metrics;
        let (generation, counters) = if role == Role::Gateway {
            (Some(metrics.gateway.generation()), metrics.gateway.counters())
        } else {
            let rows = i64::try_from(metrics.capture.out_of_band_rows()).unwrap_or(i64::MAX);
            (None, BTreeMap::from([(counter::OUT_OF_BAND_ROWS.to_owned(), rows)]))
        };
        let (name, address) = self.identity(role);
        Announcement {
            role: role.to_string(),
            name,
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_us: self.started_at_us,
            generation,
            counters,
            at_us: now_us(),
        }
    }

    /// The name and the address of a role. A gateway that starts again at the same address is the same gateway.
    fn identity(&self, role: Role) -> (String, String) {
        if role != Role::Gateway {
            return (format!("{}:{}", self.host, std::process::id()), String::new());
        }
        let default = GatewaySection::default();
        let section = self.process.config.gateway.as_ref().unwrap_or(&default);
        let address = section.listen();
        let name = section.name().unwrap_or_else(|| format!("{}:{}", self.host, address.port()));
        (name, address.to_string())
    }

    /// Takes the announcements back: the roles have ended, and nobody must wait for them.
    async fn leave(&self) {
        let own = ANNOUNCED.into_iter().filter(|role| self.process.has(*role));
        let records = own
            .map(|role| no_longer_announced(&self.topic, &role.to_string(), &self.identity(role).0))
            .collect();
        if let Err(error) = self.producer.send(records).await {
            tracing::warn!(%error, "the end of this process was not announced");
        }
    }
}
