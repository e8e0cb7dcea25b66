//! Announces the running roles of this process on Kafka, each second.
//!
//! The controller learns from there which gateways there are, on which generation of the phase each of them acts, and what
//! they have counted. A role that does not run is not announced, so its silence is noticed. One that ends is taken back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
/// How often a gateway's generation is compared with the announced one. A new one is announced at once.
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
    /// When each role was announced last, with its generation.
    announced: BTreeMap<Role, (Instant, Option<i64>)>,
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
        let mut announcer = tokio::select! {
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
        Self {
            process,
            topic,
            producer,
            started_at_us,
            host: host.unwrap_or_default(),
            announced: BTreeMap::new(),
        }
    }

    async fn run(&mut self) {
        loop {
            let now = Instant::now();
            let mut due = Vec::new();
            for role in ANNOUNCED.into_iter().filter(|role| self.process.states.runs(*role)) {
                let generation = self.generation(role);
                let last = self.announced.get(&role);
                if last.is_none_or(|(at, of)| now.duration_since(*at) >= INTERVAL || *of != generation) {
                    self.announced.insert(role, (now, generation));
                    due.push(self.announcement(role, generation));
                }
            }
            self.send(&due).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The generation of the phase that a role acts on.
    fn generation(&self, role: Role) -> Option<i64> {
        (role == Role::Gateway).then(|| self.process.metrics.gateway.generation())
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

    fn announcement(&self, role: Role, generation: Option<i64>) -> Announcement {
        let metrics = &self.process.metrics;
        let counters = if role == Role::Gateway {
            metrics.gateway.counters()
        } else {
            let rows = i64::try_from(metrics.capture.out_of_band_rows()).unwrap_or(i64::MAX);
            BTreeMap::from([(counter::OUT_OF_BAND_ROWS.to_owned(), rows)])
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

    /// The name and the address of a role. A role that starts again at the same address is the same one.
    fn identity(&self, role: Role) -> (String, String) {
        let named = |address: SocketAddr| match address {
            // Others of this host have other processes.
            _ if address.port() == 0 => format!("{}:{}", self.host, std::process::id()),
            // Other hosts have the same address.
            _ if address.ip().is_unspecified() || address.ip().is_loopback() => {
                format!("{}:{}", self.host, address.port())
            }
            _ => address.to_string(),
        };
        if role != Role::Gateway {
            return (named(self.process.listen), String::new());
        }
        let default = GatewaySection::default();
        let section = self.process.config.gateway.as_ref().unwrap_or(&default);
        let address = section.listen();
        (section.name().unwrap_or_else(|| named(address)), address.to_string())
    }

    /// Takes the announcements back: the roles have ended, and nobody must wait for them.
    async fn leave(&self) {
        let gone = |role: &Role| no_longer_announced(&self.topic, &role.to_string(), &self.identity(*role).0);
        let records = self.announced.keys().map(gone).collect();
        if let Err(error) = self.producer.send(records).await {
            tracing::warn!(%error, "the end of this process was not announced");
        }
    }
}
