//! Many clients, three gateways, phases that the controller changes in both directions, and a process killed
//! at every transition of the rollout plan. No acknowledged write is lost, and a read with a write's token
//! returns that write or a later one. The checker judges this, not the test.

mod clients;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tandem_model::Phase;
use tandem_protocol::rollout::{RolloutPlan, Stage, Transition, default_gates, default_rollback};

use crate::checker;
use crate::gateway::{acted_on, is_ready};
use crate::support::{
    MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Running, Servers, captured, eventually, free_port,
    full, http,
};
use clients::Clients;

const CLIENTS: u64 = 6;
/// The kinds of processes that are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Apply,
    Gateway,
    Capture,
    Controller,
}

impl Victim {
    const ALL: [Self; 4] = [Self::Apply, Self::Gateway, Self::Capture, Self::Controller];
}

/// The victims at the transition with this number: with `all` every kind, one in each round; otherwise one
/// kind, in turn.
fn victims(number: usize, all: bool) -> impl Iterator<Item = Victim> {
    let rounds = if all { Victim::ALL.len() } else { 1 };
    (0..rounds).map(move |round| Victim::ALL[(number + round) % Victim::ALL.len()])
}

/// A process, its port, and how to start it again.
struct Process {
    victim: Victim,
    port: u16,
    name: String,
    config: PathBuf,
    running: Running,
}

struct Cluster {
    migration: Migration,
    processes: Vec<Process>,
}

impl Cluster {
    async fn new(servers: Servers, percents: &[f64]) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, "history", &[ORDERS]).await?;
        migration.configure("", ORDERS_MAPPING)?;
        migration.succeed(&["schema", "create"]).await?;
        let mut cluster = Self { migration, processes: Vec::new() };
        for (number, victim) in [
            (0, Victim::Capture),
            (0, Victim::Apply),
            (0, Victim::Controller),
            (1, Victim::Controller),
            (0, Victim::Gateway),
            (1, Victim::Gateway),
            (2, Victim::Gateway),
        ] {
            cluster.add(victim, number, percents)?;
        }
        for gateway in cluster.gateways() {
            cluster.until("a gateway", async || Ok(is_ready(gateway).await)).await?;
        }
        cluster
            .until("a watermark", async || Ok(!cluster.migration.status().await?["source"].is_null()))
            .await?;
        Ok(cluster)
    }

    fn add(&mut self, victim: Victim, number: usize, percents: &[f64]) -> anyhow::Result<()> {
        let port = free_port()?;
        let mut section = String::new();
        match victim {
            Victim::Gateway => write!(section, "[gateway]\nlisten = \"127.0.0.1:{port}\"\n")?,
            Victim::Controller => section = controller(port, percents)?,
            Victim::Apply | Victim::Capture => {}
        }
        let name = format!("{victim:?}-{number}");
        let config = self.migration.configure_as(&name, &section, |common| common)?;
        let running = start(&self.migration, victim, &name, &config)?;
        self.processes.push(Process { victim, port, name, config, running });
        Ok(())
    }

    fn gateways(&self) -> Vec<u16> {
        let gateways = self.processes.iter().filter(|process| process.victim == Victim::Gateway);
        gateways.map(|process| process.port).collect()
    }

    /// The phase, from the active controller.
    async fn phase(&self) -> Option<Json> {
        for controller in self.processes.iter().filter(|process| process.victim == Victim::Controller) {
            match http(controller.port, "GET", "/v1/phase", &[], "").await {
                Ok(answer) if answer.status == 200 => return Some(answer.json()),
                _ => {}
            }
        }
        None
    }

    async fn until(&self, event: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let done = async || Ok(if so().await? { Probe::Done(()) } else { Probe::Pending(String::new()) });
        let waited = eventually(event, MINUTE, done).await;
        waited.map_err(|error| {
            let tails: Vec<String> = self.processes.iter().map(|p| p.running.tail()).collect();
            error.context(tails.join("\n---\n"))
        })
    }

    /// Kills a process of this kind (the active controller, or the gateways in turn) and starts it again.
    async fn kill(&mut self, victim: Victim, turn: usize) -> anyhow::Result<()> {
        let mut of: Vec<usize> = Vec::new();
        for (index, process) in self.processes.iter().enumerate().filter(|(_, p)| p.victim == victim) {
            let passive = victim == Victim::Controller
                && !http(process.port, "GET", "/v1/phase", &[], "").await.is_ok_and(|a| a.status == 200);
            if !passive {
                of.push(index);
            }
        }
        anyhow::ensure!(!of.is_empty(), "there is no {victim:?} to be killed");
        let process = &mut self.processes[of[turn % of.len()]];
        process.running.kill()?;
        process.running = start(&self.migration, victim, &process.name, &process.config)?;
        Ok(())
    }

    /// Has the controller make a transition, kills a process during it, and waits until every gateway acts on
    /// the new phase.
    async fn step(&mut self, step: Transition, victim: Victim, turn: usize) -> anyhow::Result<()> {
        let from = eventually(&format!("an active controller before {step:?}"), MINUTE, async || {
            Ok(Probe::some(self.phase().await, "none"))
        })
        .await?;
        anyhow::ensure!(is_at(&from, step.from), "{step:?} begins at {from:#}");
        let order = if step.to > step.from { "advance" } else { "back" };
        let controllers: Vec<u16> =
            self.processes.iter().filter(|p| p.victim == Victim::Controller).map(|p| p.port).collect();
        let under_way = tokio::spawn(ordered(controllers.clone(), order));
        // Varied, so that the kill comes before, inside or after the transaction that writes the phase.
        tokio::time::sleep(Duration::from_millis([0, 4, 12, 30][turn % 4])).await;
        self.kill(victim, turn).await?;
        under_way.await?;
        let reached = eventually(&format!("the end of {step:?}"), MINUTE, async || {
            match self.phase().await {
                Some(found) if is_at(&found, step.to) => Ok(Probe::Done(found)),
                Some(found) if is_at(&found, step.from) => {
                    // The order was lost with the killed controller.
                    ordered(controllers.clone(), order).await;
                    Ok(Probe::Pending(format!("{found:#}")))
                }
                Some(found) => anyhow::bail!("{step:?} led to {found:#}"),
                None => Ok(Probe::Pending("no active controller".into())),
            }
        })
        .await?;
        let generation = reached["generation"].to_string();
        for gateway in self.gateways() {
            let follows = async || Ok(acted_on(gateway).await.is_ok_and(|found| found == generation));
            self.until("a gateway to follow", follows).await?;
        }
        Ok(())
    }

    /// Waits until the count has grown by this much.
    async fn grown(&self, what: &str, count: &AtomicU64, by: u64) -> anyhow::Result<()> {
        let before = count.load(Ordering::Relaxed);
        self.until(what, async || Ok(count.load(Ordering::Relaxed) >= before + by)).await
    }

    /// Waits until everything that MySQL has committed is in Cassandra.
    async fn drained(&mut self) -> anyhow::Result<()> {
        let executed = self.migration.executed().await?;
        let applied = async || {
            let status = self.migration.status().await?;
            Ok(captured(&status, &executed) && status["lag"]["records"] == 0)
        };
        self.until("everything to be applied", applied).await
    }
}

fn start(migration: &Migration, victim: Victim, name: &str, config: &Path) -> anyhow::Result<Running> {
    migration.start_with(config, name, &[&format!("{victim:?}").to_lowercase()])
}

/// A controller that executes every order at once: it has no gates, and makes no transition without an order.
fn controller(port: u16, percents: &[f64]) -> anyhow::Result<String> {
    let mut text = format!(
        "[controller]\nlisten = \"127.0.0.1:{port}\"\ninterval_ms = 200\ncanary_percents = {percents:?}\n\
         validate = 0.0\nshadow = 1.0\n[controller.soak_seconds]\n"
    );
    for phase in Phase::ALL {
        writeln!(text, "{phase} = 0")?;
    }
    for phase in Phase::ALL {
        for (section, gates) in [("gates", default_gates(phase)), ("rollback", default_rollback(phase))] {
            if !gates.is_empty() {
                writeln!(text, "[controller.{section}.{phase}]")?;
            }
            for (name, _) in gates {
                writeln!(text, "{name} = ''")?;
            }
        }
    }
    Ok(text)
}

/// Gives an order to the controller that accepts it. Its result is visible in the phase.
async fn ordered(controllers: Vec<u16>, order: &str) {
    let body = json!({ "reason": "a step of the test" }).to_string();
    for port in controllers {
        let answer = http(port, "POST", &format!("/v1/phase/{order}"), &[], &body).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
}

fn is_at(found: &Json, place: Stage) -> bool {
    found["phase"] == place.phase.name() && found["percent"].as_f64() == Some(place.percent)
}

/// By default one victim at each transition, every kind in turn; with `test --full` every kind at each
/// transition.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whoever_is_killed_at_whichever_step() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let full = full();
    let percents: &[f64] = if full { &[20.0, 60.0] } else { &[60.0] };
    let plan = RolloutPlan::new(percents).map_err(anyhow::Error::msg)?;
    let steps = plan.transitions();
    let wanted: BTreeSet<(usize, Victim)> =
        (0..steps.len()).flat_map(|n| victims(n, full).map(move |victim| (n, victim))).collect();
    let kinds: BTreeSet<Victim> = wanted.iter().map(|(_, victim)| *victim).collect();
    assert_eq!(kinds.len(), Victim::ALL.len());

    let mut cluster = Cluster::new(servers, percents).await?;
    let clients = Clients::start(CLIENTS, &cluster.gateways(), &cluster.migration).await?;
    let mut covered = BTreeSet::new();
    let mut place = plan.stages()[0];
    let rounds = victims(0, full).count();
    for round in 0..rounds {
        for forth in [true, false] {
            while let Some(to) = if forth { plan.next(place) } else { plan.previous(place) } {
                let step = Transition { from: place, to };
                let number = steps.iter().position(|known| *known == step).expect("it is a step of the plan");
                let victim = victims(number, full).nth(round).expect("there are so many rounds");
                cluster.step(step, victim, covered.len()).await?;
                cluster.grown("writes to go on", &clients.seen.acknowledged, 12).await?;
                if to.phase == Phase::ReadSwitch {
                    cluster.grown("Cassandra to serve", &clients.seen.by_cassandra, 30).await?;
                }
                eprintln!("{} to {}: {victim:?} killed", step.from, step.to);
                covered.insert((number, victim));
                place = to;
            }
        }
    }
    let missing: Vec<_> = wanted.difference(&covered).map(|(n, victim)| (steps[*n], *victim)).collect();
    assert!(missing.is_empty(), "never killed at a step: {missing:?}");

    let journals = clients.stop().await?;
    cluster.drained().await?;
    let stores = checker::orders(&cluster.migration, &["orders", "by_customer"]);
    let (finished, verdict) = checker::check(cluster.migration.folder.path(), &stores, &journals).await?;
    eprintln!("{}", finished.stdout);
    if !finished.success {
        let kept = cluster.migration.folder.keep();
        anyhow::bail!("{finished:?}; journals and logs are in {}", kept.display());
    }
    assert_eq!((&verdict["lost_writes"], &verdict["stale_reads"]), (&json!(0), &json!(0)));
    assert!(verdict["reads_served_by"]["cassandra"].as_u64() > Some(0), "{verdict:#}");
    assert!(verdict["reads_under_token"].as_u64() > Some(0), "{verdict:#}");
    let writes = &verdict["writes"];
    assert!(writes["unknown"].as_u64() > Some(0) || writes["refused"].as_u64() > Some(0), "{verdict:#}");
    for process in cluster.processes {
        process.running.terminate().await?;
    }
    cluster.migration.drop().await
}
