//! The gateway as its clients see it: the real binary over HTTP, with the real stores.

mod announced;
mod api;
mod behind;
mod canary;
mod clocks;
mod confirm;
mod controlled;
mod dead_letters;
mod failures;
mod faults;
mod hostile;
mod phases;
mod rollout;
mod tables;
mod tls;
mod tokens;

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use tandem_kafka::Producer;
use tandem_model::{Cohort, Phase, PhaseRecord};

use crate::support::{
    Answer, MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Running, Servers, eventually, free_port, http,
    phase_record,
};

/// A migration with running processes, one of them a gateway.
struct Stage {
    migration: Migration,
    running: Vec<Running>,
    port: u16,
    generation: u64,
    producer: Producer,
}

impl Stage {
    /// The sample tables, with these commands running.
    async fn new(servers: Servers, test: &str, commands: &[&str]) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[ORDERS]).await?;
        Self::of(migration, "", ORDERS_MAPPING, commands).await
    }

    async fn of(migration: Migration, extra: &str, mapping: &str, commands: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let section = format!("[gateway]\nlisten = \"127.0.0.1:{port}\"\n{extra}");
        migration.configure(&section, mapping)?;
        let commands: Vec<&[&str]> = commands.iter().map(std::slice::from_ref).collect();
        Self::started(migration, port, &commands).await
    }

    /// Starts these commands with the current configuration. Waits until the gateway at this port is ready
    /// and, with a capture, until the log has begun. Later writes are then on the log, and there is a
    /// watermark to borrow.
    async fn started(migration: Migration, port: u16, commands: &[&[&str]]) -> anyhow::Result<Self> {
        migration.succeed(&["schema", "create"]).await?;
        let running = commands.iter().map(|command| migration.start(command));
        let running = running.collect::<anyhow::Result<_>>()?;
        let producer = Producer::start(&migration.kafka()).await?;
        let mut stage = Self { migration, running, port, generation: 0, producer };
        stage.until_ready(port).await?;
        if commands.iter().any(|command| command[0] == "capture") {
            stage
                .until("the first watermark", async |stage| {
                    Ok(!stage.migration.status().await?["source"].is_null())
                })
                .await?;
        }
        Ok(stage)
    }

    /// Waits until the gateway at this port is ready.
    async fn until_ready(&mut self, port: u16) -> anyhow::Result<()> {
        self.until("the gateway to be ready", async |_| Ok(is_ready(port).await)).await
    }

    /// Waits until the gateway at this port acts on this generation.
    async fn until_generation(&mut self, port: u16, generation: u64) -> anyhow::Result<()> {
        let event = format!("generation {generation} to be acted on");
        self.until(&event, async |_| Ok(acted_on(port).await? == generation.to_string())).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        http(self.port, "GET", path, &[], "").await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        http(self.port, "GET", path, headers, "").await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        http(self.port, method, path, &[], body).await
    }

    /// Sends a request that must succeed.
    async fn done(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let answer = self.send(method, path, body).await?;
        anyhow::ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        Ok(answer)
    }

    /// Publishes a phase record of the next generation and waits until the gateway acts on it.
    async fn order(&mut self, record: PhaseRecord) -> anyhow::Result<()> {
        self.generation += 1;
        self.publish(&PhaseRecord { generation: self.generation, ..record }).await?;
        self.until_generation(self.port, self.generation).await
    }

    async fn phase(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.order(everything(phase)).await
    }

    async fn publish(&self, record: &PhaseRecord) -> anyhow::Result<()> {
        self.producer.send(vec![phase_record(&self.migration.prefix, record)]).await?;
        Ok(())
    }

    /// Waits until the condition holds. An error if a process ends.
    async fn until(
        &mut self,
        event: &str,
        so: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        eventually(event, MINUTE, async || {
            if so(self).await? {
                return Ok(Probe::Done(()));
            }
            for running in &mut self.running {
                running.check()?;
            }
            Ok(Probe::Pending(self.running.first().map(Running::tail).unwrap_or_default()))
        })
        .await
    }

    /// Waits until Cassandra serves a read with this token.
    async fn until_applied(&mut self, path: &str, token: &str) -> anyhow::Result<()> {
        self.until("the token to be applied", async |stage| {
            Ok(stage.get_with(path, &[("Tandem-Token", token)]).await?.fallback() != "token-not-applied")
        })
        .await
    }

    /// The note of a row in Cassandra's `orders`.
    async fn in_cassandra(&self, id: i64) -> anyhow::Result<Option<String>> {
        let session = self.migration.cassandra().await?;
        let rows = session.query_unpaged("SELECT note FROM orders WHERE id = ?", (id,)).await?;
        let row = rows.into_rows_result()?.maybe_first_row::<(Option<String>,)>()?;
        Ok(row.map(|(note,)| note.unwrap_or_default()))
    }

    /// The metrics of all running processes, one after the other. Their addresses are in the log.
    async fn metrics(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for port in self.running[0].metrics_ports() {
            // A process that has ended does not answer.
            if let Ok(answer) = http(port, "GET", "/metrics", &[], "").await {
                all.push_str(&answer.body);
            }
        }
        Ok(all)
    }

    /// The counts of `tandem_gateway_<name>_total` for orders, by reason.
    async fn counted(&self, name: &str) -> anyhow::Result<HashMap<String, u64>> {
        counts(&self.metrics().await?, name)
    }

    async fn sql(&mut self, statement: &str) -> anyhow::Result<()> {
        Ok(self.migration.mysql.query_drop(statement).await?)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        while let Some(running) = self.running.pop() {
            running.terminate().await?;
        }
        self.migration.drop().await
    }
}

/// The counts of `tandem_gateway_<name>_total` for orders in a metrics page, by reason.
fn counts(page: &str, name: &str) -> anyhow::Result<HashMap<String, u64>> {
    let label = format!("tandem_gateway_{name}_total{{entity=\"order\",reason=\"");
    let counts = page.lines().filter_map(|line| line.strip_prefix(&label)?.split_once("\"} "));
    counts.map(|(reason, count)| Ok((reason.to_owned(), count.parse()?))).collect()
}

/// Whether the gateway at this port is ready.
pub(crate) async fn is_ready(port: u16) -> bool {
    http(port, "GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200)
}

/// The generation that the gateway at this port acts on.
pub(crate) async fn acted_on(port: u16) -> anyhow::Result<String> {
    Ok(http(port, "GET", "/openapi.json", &[], "").await?.header("tandem-generation").to_owned())
}

/// A phase with every client in the cohort, and every read validated and shadowed.
fn everything(phase: Phase) -> PhaseRecord {
    let cohort = Cohort { percent: 100.0, ..Cohort::default() };
    PhaseRecord { phase, cohort, validate: 1.0, shadow: 1.0, ..PhaseRecord::default() }
}
