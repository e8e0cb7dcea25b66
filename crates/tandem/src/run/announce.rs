//! Says on Kafka, each second, what this process does.
//!
//! - Its report names the state of each role and what the process waits for. `tandem status` reads the reports of all
//!   processes.
//! - The controller learns from the announcements which gateways there are, on which generation of the phase each of them
//!   acts, and what they have counted. A gateway that does not run is not announced, so its silence is noticed.
//! - A process that ends takes both back. One that is killed falls silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tandem_kafka::{KafkaConfig, Producer};
use tandem_runtime::{Backoff, Wait, now_us};
use tandem_wire::WireError;
use tandem_wire::control::{
    Announcement, ProcessReport, ProcessRole, ProcessWait, counter, no_longer_announced, process_has_ended,
};
use tandem_wire::log::OutRecord;
use tokio::time::Instant;

use crate::config::gateway::GatewaySection;
use crate::role::Role;
use crate::run::process::Process;

/// How often a process reports, and how often a running role is announced.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often what was said last is compared with what holds. A change is said at once.
const LOOK: Duration = Duration::from_millis(100);
/// If Kafka acknowledges nothing for so long, the process waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
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
    /// When the process reported last, and what.
    reported: Option<(Instant, Report)>,
}

/// What the roles of a process do, and what it waits for.
type Report = (Vec<ProcessRole>, Vec<ProcessWait>);

impl Process<'_> {
    /// Reports until this is dropped or `ended` resolves. Then it takes back what it has said.
    pub(super) async fn announce(&self, ended: impl Future<Output = ()>) -> Result<()> {
        let mut ended = std::pin::pin!(ended);
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
            // The process creates the topic when it connects, and the controller before it runs.
            if !process.connected.load(Ordering::Relaxed) && !process.states.any_has_run() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match Producer::start(kafka).await {
                Ok(producer) => break producer,
                Err(error) => {
                    tracing::warn!(%error, "this process does not report what its roles do yet");
                    backoff.pause().await;
                }
            }
        };
        let topic = kafka.topics().announcements();
        Self {
            process,
            topic,
            producer,
            started_at_us,
            host: host.unwrap_or_default(),
            announced: BTreeMap::new(),
            reported: None,
        }
    }

    async fn run(&mut self) {
        loop {
            let now = Instant::now();
            let mut due: Vec<_> = self.report_if_due(now).into_iter().collect();
            for role in ANNOUNCED.into_iter().filter(|role| self.process.states.runs(*role)) {
                let generation = self.generation(role);
                let last = self.announced.get(&role);
                if last.is_none_or(|(at, of)| now.duration_since(*at) >= INTERVAL || *of != generation) {
                    self.announced.insert(role, (now, generation));
                    due.push(self.announcement(role, generation).record(&self.topic));
                }
            }
            self.send(due.into_iter().collect::<Result<_, _>>()).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The generation of the phase that a role acts on.
    fn generation(&self, role: Role) -> Option<i64> {
        (role == Role::Gateway).then(|| self.process.metrics.gateway.generation())
    }

    /// The process's report, if it was not made for an interval or says something else.
    fn report_if_due(&mut self, now: Instant) -> Option<Result<OutRecord, WireError>> {
        let wait = |wait: Wait| ProcessWait {
            what: wait.what.to_owned(),
            since_us: wait.since_us,
            cause: wait.cause,
            next_try_us: wait.next_try_us,
        };
        let roles = self.process.states.report(self.process.metrics.capture.is_standby());
        let waits: Vec<_> = self.process.config.waits.now().into_iter().map(wait).collect();
        let report = (roles, waits);
        let known = self.reported.as_ref();
        if known.is_some_and(|(at, of)| now.duration_since(*at) < INTERVAL && says_the_same(of, &report)) {
            return None;
        }
        self.reported = Some((now, report.clone()));
        let (roles, waits) = report;
        let report = ProcessReport {
            name: self.name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_us: self.started_at_us,
            roles,
            waits,
            at_us: now_us(),
        };
        Some(report.record(&self.topic))
    }

    async fn send(&self, records: Result<Vec<OutRecord>, WireError>) {
        let sent = match records {
            Ok(records) => self.acknowledged(records).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            tracing::warn!(error = format!("{error:#}"), "what this process does was not reported");
        }
    }

    /// Waits until Kafka acknowledges the records. The process waits for Kafka if that takes long.
    async fn acknowledged(&self, records: Vec<OutRecord>) -> Result<()> {
        let mut sent = std::pin::pin!(self.producer.send(records));
        if let Ok(outcome) = tokio::time::timeout(PATIENCE, &mut sent).await {
            return Ok(outcome.map(drop)?);
        }
        let cause = self.producer.last_error().unwrap_or_else(|| "no answer".to_owned());
        let _hold = self.process.config.waits.begin("Kafka", cause);
        Ok(sent.await.map(drop)?)
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

    /// The name of the process. One that starts again at the same address is the same one.
    fn name(&self) -> String {
        self.named(self.process.listen)
    }

    fn named(&self, address: SocketAddr) -> String {
        match address {
            // Others of this host have other processes.
            _ if address.port() == 0 => format!("{}:{}", self.host, std::process::id()),
            // Other hosts have the same address.
            _ if address.ip().is_unspecified() || address.ip().is_loopback() => {
                format!("{}:{}", self.host, address.port())
            }
            _ => address.to_string(),
        }
    }

    /// The name and the address of a role. A role that starts again at the same address is the same one.
    fn identity(&self, role: Role) -> (String, String) {
        if role != Role::Gateway {
            return (self.name(), String::new());
        }
        let default = GatewaySection::default();
        let section = self.process.config.gateway.as_ref().unwrap_or(&default);
        let address = section.listen();
        (section.name().unwrap_or_else(|| self.named(address)), address.to_string())
    }

    /// Takes back what was said: the roles have ended, and nobody must wait for them.
    async fn leave(&self) {
        let gone = |role: &Role| no_longer_announced(&self.topic, &role.to_string(), &self.identity(*role).0);
        let mut records: Vec<OutRecord> = self.announced.keys().map(gone).collect();
        records.push(process_has_ended(&self.topic, &self.name()));
        if let Err(error) = self.producer.send(records).await {
            tracing::warn!(%error, "the end of this process was not announced");
        }
    }
}

/// Whether two reports differ at most in times and in the words of a cause.
fn says_the_same(one: &Report, other: &Report) -> bool {
    let roles = |report: &Report| -> Vec<_> {
        report.0.iter().map(|role| (role.role.clone(), role.state.clone(), role.since_us)).collect()
    };
    let waits =
        |report: &Report| -> Vec<_> { report.1.iter().map(|w| (w.what.clone(), w.since_us)).collect() };
    roles(one) == roles(other) && waits(one) == waits(other)
}
