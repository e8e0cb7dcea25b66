//! Many clients, three gateways, phases that the controller takes forth and back, and a process killed
//! at every step that its planner knows: no acknowledged write is lost, and whoever reads with a write's
//! token reads that write, or one that came after it. The checker judges; nothing here does.

mod clients;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tandem_model::{GtidSet, Phase};
use tandem_protocol::rollout::{RolloutPlan, Stage, Transition, default_gates, default_rollback};

use crate::checker;
use crate::gateway::{MAPPING, ORDERS, free_port, http};
use crate::support::{Migration, Running, Servers};
use clients::Clients;

const CLIENTS: u64 = 6;
/// A step, and everything else that is waited for, takes no longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is killed.
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

/// Which victims are killed at the step of this number: with `all` each of them, one in each round;
/// otherwise one, by turns.
fn victims(number: usize, all: bool) -> impl Iterator<Item = Victim> {
    let rounds = if all { Victim::ALL.len() } else { 1 };
    (0..rounds).map(move |round| Victim::ALL[(number + round) % Victim::ALL.len()])
}

/// A process, the place where it serves, and how it is started again.
struct Process {
    victim: Victim,
    port: u16,
    config: String,
    running: Running,
}

struct Stage {
    migration: Migration,
    processes: Vec<Process>,
}

impl Stage {
    async fn new(servers: Servers, percents: &[f64]) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, "history", &[ORDERS]).await?;
        migration.configure("", MAPPING)?;
        migration.succeed(&["schema", "create"]).await?;
        let mut stage = Self { migration, processes: Vec::new() };
        for (number, victim) in [
            (0, Victim::Capture),
            (0, Victim::Apply),
            (0, Victim::Controller),
            (1, Victim::Controller),
            (0, Victim::Gateway),
            (1, Victim::Gateway),
            (2, Victim::Gateway),
        ] {
            stage.add(victim, number, percents)?;
        }
        for gateway in stage.gateways() {
            stage.until("a gateway", async || Ok(ready(gateway).await)).await?;
        }
        stage.until("a watermark", async || Ok(!stage.migration.status().await?["source"].is_null())).await?;
        Ok(stage)
    }

    fn add(&mut self, victim: Victim, number: usize, percents: &[f64]) -> anyhow::Result<()> {
        let port = free_port()?;
        let mut section = String::new();
        match victim {
            Victim::Gateway => write!(section, "[gateway]\nlisten = \"127.0.0.1:{port}\"\n")?,
            Victim::Controller => section = controller(port, percents)?,
            Victim::Apply | Victim::Capture => {}
        }
        let config = format!("{victim:?}-{number}.toml");
        let common = std::fs::read_to_string(self.migration.config())?;
        std::fs::write(self.migration.folder.path().join(&config), section + &common)?;
        let running = start(&self.migration, victim, &config)?;
        self.processes.push(Process { victim, port, config, running });
        Ok(())
    }

    fn gateways(&self) -> Vec<u16> {
        let gateways = self.processes.iter().filter(|process| process.victim == Victim::Gateway);
        gateways.map(|process| process.port).collect()
    }

    /// How things stand, by the active controller.
    async fn standing(&self) -> Option<Json> {
        for controller in self.processes.iter().filter(|process| process.victim == Victim::Controller) {
            match http(controller.port, "GET", "/v1/phase", &[], "").await {
                Ok(answer) if answer.status == 200 => return Some(answer.json()),
                _ => {}
            }
        }
        None
    }

    async fn until(&self, what: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let began = Instant::now();
        while !so().await? {
            if began.elapsed() > PATIENCE {
                let tails: Vec<String> = self.processes.iter().map(|p| p.running.tail()).collect();
                anyhow::bail!("not within a minute: {what}; {}", tails.join("\n---\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills a process of this kind (the controller that is active, the gateways by turns) and starts it
    /// again.
    async fn kill(&mut self, victim: Victim, turn: usize) -> anyhow::Result<()> {
        let mut of: Vec<usize> = Vec::new();
        for (place, process) in self.processes.iter().enumerate().filter(|(_, p)| p.victim == victim) {
            let passive = victim == Victim::Controller
                && !http(process.port, "GET", "/v1/phase", &[], "").await.is_ok_and(|a| a.status == 200);
            if !passive {
                of.push(place);
            }
        }
        anyhow::ensure!(!of.is_empty(), "there is no {victim:?} to be killed");
        let process = &mut self.processes[of[turn % of.len()]];
        process.running.kill()?;
        process.running = start(&self.migration, victim, &process.config)?;
        Ok(())
    }

    /// Has the controller take a step, kills somebody meanwhile, and waits until every gateway acts on
    /// it.
    async fn step(&mut self, step: Transition, victim: Victim, turn: usize) -> anyhow::Result<()> {
        let mut from = Json::Null;
        let began = Instant::now();
        while from.is_null() {
            anyhow::ensure!(began.elapsed() < PATIENCE, "no controller is active before {step:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            from = self.standing().await.unwrap_or_default();
        }
        anyhow::ensure!(is_at(&from, step.from), "{step:?} begins at {from:#}");
        let order = if step.to > step.from { "advance" } else { "back" };
        let controllers: Vec<u16> =
            self.processes.iter().filter(|p| p.victim == Victim::Controller).map(|p| p.port).collect();
        let under_way = tokio::spawn(ordered(controllers.clone(), order));
        // Before, within and after the transaction that writes the phase, as it happens.
        tokio::time::sleep(Duration::from_millis([0, 4, 12, 30][turn % 4])).await;
        self.kill(victim, turn).await?;
        under_way.await?;
        let began = Instant::now();
        let reached = loop {
            match self.standing().await {
                Some(standing) if is_at(&standing, step.to) => break standing,
                // The order was lost with the controller.
                Some(standing) if is_at(&standing, step.from) => {
                    ordered(controllers.clone(), order).await;
                }
                Some(standing) => anyhow::bail!("{step:?} led to {standing:#}"),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "{step:?} does not end");
        };
        let generation = reached["generation"].to_string();
        for gateway in self.gateways() {
            let follows = async || {
                let answer = http(gateway, "GET", "/openapi.json", &[], "").await;
                Ok(answer.is_ok_and(|answer| answer.header("tandem-generation") == generation))
            };
            self.until("a gateway to follow", follows).await?;
        }
        Ok(())
    }

    /// Waits until the count has grown by so much.
    async fn grown(&self, what: &str, count: &AtomicU64, by: u64) -> anyhow::Result<()> {
        let before = count.load(Ordering::Relaxed);
        self.until(what, async || Ok(count.load(Ordering::Relaxed) >= before + by)).await
    }

    /// Waits until everything that MySQL has committed is in Cassandra.
    async fn drained(&mut self) -> anyhow::Result<()> {
        let executed = self.migration.executed().await?;
        let applied = async || {
            let status = self.migration.status().await?;
            let captured = status["source"]["gtid_set"].as_str().and_then(|g| g.parse::<GtidSet>().ok());
            Ok(captured.is_some_and(|c| executed.is_subset(&c)) && status["lag"]["records"] == 0)
        };
        self.until("everything to be applied", applied).await
    }
}

fn start(migration: &Migration, victim: Victim, config: &str) -> anyhow::Result<Running> {
    let folder = migration.folder.path();
    let role = format!("{victim:?}").to_lowercase();
    let command = Migration::command_with(&folder.join(config), &[&role]);
    Running::of(command, folder.join(config).with_extension("log"))
}

/// A controller that does what it is ordered at once: no gate stands before a step, nothing but an order
/// makes it take one.
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

async fn ready(port: u16) -> bool {
    http(port, "GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200)
}

/// Gives an order to whichever controller takes it. What becomes of it shows in the phase.
async fn ordered(controllers: Vec<u16>, order: &str) {
    let body = json!({ "reason": "a step of the test" }).to_string();
    for port in controllers {
        let answer = http(port, "POST", &format!("/v1/phase/{order}"), &[], &body).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
}

fn is_at(standing: &Json, place: Stage) -> bool {
    standing["phase"] == place.phase.name() && standing["percent"].as_f64() == Some(place.percent)
}

/// In CI at each step one victim, all of them by turns; under `test --full` at each step each victim.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whoever_is_killed_at_whichever_step() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let full = std::env::var_os("TANDEM_TEST_FULL").is_some();
    let percents: &[f64] = if full { &[20.0, 60.0] } else { &[60.0] };
    let plan = RolloutPlan::new(percents).map_err(anyhow::Error::msg)?;
    let steps = plan.transitions();
    let wanted: BTreeSet<(usize, Victim)> =
        (0..steps.len()).flat_map(|n| victims(n, full).map(move |victim| (n, victim))).collect();
    let kinds: BTreeSet<Victim> = wanted.iter().map(|(_, victim)| *victim).collect();
    assert_eq!(kinds.len(), Victim::ALL.len());

    let mut stage = Stage::new(servers, percents).await?;
    let clients = Clients::start(CLIENTS, &stage.gateways(), &stage.migration).await?;
    let mut covered = BTreeSet::new();
    let mut place = plan.stages()[0];
    let rounds = victims(0, full).count();
    for round in 0..rounds {
        for forth in [true, false] {
            while let Some(to) = if forth { plan.next(place) } else { plan.previous(place) } {
                let step = Transition { from: place, to };
                let number = steps.iter().position(|known| *known == step).expect("it is a step of the plan");
                let victim = victims(number, full).nth(round).expect("there are so many rounds");
                stage.step(step, victim, covered.len()).await?;
                stage.grown("writes to go on", &clients.seen.acknowledged, 12).await?;
                if to.phase == Phase::ReadSwitch {
                    stage.grown("Cassandra to serve", &clients.seen.by_cassandra, 30).await?;
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
    stage.drained().await?;
    let stores = checker::orders(&stage.migration, &["orders", "by_customer"]);
    let (finished, verdict) = checker::check(stage.migration.folder.path(), &stores, &journals).await?;
    eprintln!("{}", finished.stdout);
    if !finished.success {
        let kept = stage.migration.folder.keep();
        anyhow::bail!("{finished:?}; journals and logs are in {}", kept.display());
    }
    assert_eq!((&verdict["lost_writes"], &verdict["stale_reads"]), (&json!(0), &json!(0)));
    assert!(verdict["reads_served_by"]["cassandra"].as_u64() > Some(0), "{verdict:#}");
    assert!(verdict["reads_under_token"].as_u64() > Some(0), "{verdict:#}");
    let felt = &verdict["writes"];
    assert!(felt["unknown"].as_u64() > Some(0) || felt["refused"].as_u64() > Some(0), "{verdict:#}");
    for process in stage.processes {
        process.running.terminate().await?;
    }
    stage.migration.drop().await
}
