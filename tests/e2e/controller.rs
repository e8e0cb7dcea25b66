//! The controller: manual and automatic phases, gates, leadership, and its behaviour without Kafka. The tests
//! themselves announce a gateway.

mod announced;
mod hostile;
mod leadership;
mod phases;
mod tls;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tandem_kafka::{Producer, read_all};
use tandem_model::PhaseRecord;
use tandem_wire::control::{
    FoundBy, Mismatch, MismatchKind, MismatchState, PHASE_KEY, decode_phase, encode_control,
};
use tandem_wire::log::InRecord;

use crate::support::{
    Finished, MINUTE, Migration, Probe, Running, Servers, T, T_MAPPING, control_record, eventually, finish,
    free_port, http,
};
use announced::Announced;

/// No soak times, and two percentages of the canary.
const QUICK: &str = "interval_ms = 200\ncanary_percents = [1, 50]\n[controller.soak_seconds]\n\
    dual-write = 0\nverify = 0\ncanary = 0\n";

/// Without any of the default gates.
const NO_GATES: &str = "[controller.gates.prepare]\ncapture_runs = ''\napply_has_begun = ''\n\
    [controller.gates.dual-write]\ncapture_runs = ''\napply_keeps_up = ''\ngateways_follow = ''\n\
    dual_writes_succeed = ''\n\
    [controller.gates.backfill]\ncapture_runs = ''\napply_keeps_up = ''\ngateways_follow = ''\n\
    dual_writes_succeed = ''\nevery_row_is_copied = ''\n\
    [controller.gates.verify]\ncapture_runs = ''\napply_keeps_up = ''\ngateways_follow = ''\n\
    dual_writes_succeed = ''\nno_mismatch_is_open = ''\nfull_scan_is_clean = ''\n\
    [controller.gates.canary]\ncapture_runs = ''\napply_keeps_up = ''\nno_mismatch_is_open = ''\n";

/// How long a controller may take to act again after Kafka stood still. A Kafka transaction that began then may wait
/// for its messages' timeout, which is 50 s, and for an abort, which is 30 s.
const PATIENCE: Duration = Duration::from_mins(3);

/// A migration with controllers, and a gateway that only announces itself.
struct Stage {
    migration: Migration,
    gateway: Announced,
}

/// A controller with its own address.
struct Controller {
    port: u16,
    config: PathBuf,
    running: Running,
}

/// A response of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Json,
}

impl Stage {
    async fn new(test: &str) -> anyhow::Result<Self> {
        Self::with(Servers::from_env(), test).await
    }

    async fn with(servers: Servers, test: &str) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[T]).await?;
        migration.configure("", T_MAPPING)?;
        let gateway = Announced::start(&migration.kafka()).await?;
        Ok(Self { migration, gateway })
    }

    /// Writes a configuration with these keys of `[controller]`. Returns its file and the port.
    fn configure(&self, name: &str, controller: &str) -> anyhow::Result<(PathBuf, u16)> {
        let port = free_port()?;
        let section = format!("[controller]\nlisten = \"127.0.0.1:{port}\"\n{controller}\n");
        Ok((self.migration.configure_as(name, &section, |common| common)?, port))
    }

    fn start(&self, name: &str, controller: &str) -> anyhow::Result<Controller> {
        let (config, port) = self.configure(name, controller)?;
        let running = self.migration.start_with(&config, name, &["controller"])?;
        Ok(Controller { port, config, running })
    }

    /// Publishes what a gateway publishes once a difference that a read of Cassandra found is confirmed.
    async fn mismatch(&self) -> anyhow::Result<()> {
        let event = Mismatch {
            table: format!("{}.t", self.migration.database),
            target: "t".into(),
            source_key: vec![],
            target_key: vec!["1".into()],
            kind: MismatchKind::Different,
            columns: vec!["v".into()],
            state: MismatchState::Found,
            lower: 0,
            upper: 0,
            writetimes: vec![],
            detected_at_us: i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?,
            raw_target_key: vec![],
            found_by: FoundBy::CanaryRead,
        };
        let topic = self.migration.topics().mismatches();
        let record = control_record(&topic, "t/1", encode_control(&event)?);
        let producer = Producer::start(&self.migration.kafka()).await?;
        producer.send(vec![record]).await?;
        Ok(())
    }

    /// The committed phase records, in the order of the log.
    async fn records(&self) -> anyhow::Result<Vec<PhaseRecord>> {
        let topic = self.migration.topics().control();
        let records = read_all(&self.migration.kafka(), &topic).await?;
        let phases = records.iter().filter(|record: &&InRecord| record.key.as_deref() == Some(PHASE_KEY));
        phases.map(|record| Ok(decode_phase(record.value.as_deref().unwrap_or_default())?)).collect()
    }

    /// Requires that the log holds every generation once, from 1 on, each with its entry of the audit trail.
    /// (Nothing has been compacted yet.)
    async fn generations(&self, controller: &Controller) -> anyhow::Result<usize> {
        let records = self.records().await?;
        let found: Vec<u64> = records.iter().map(|record| record.generation).collect();
        assert_eq!(found, (1..=records.len() as u64).collect::<Vec<_>>());
        let history = controller.ask("GET", "history", None, None).await?.body;
        let entries = history["history"].as_array().cloned().unwrap_or_default();
        let trail: Vec<u64> = entries.iter().filter_map(|entry| entry["generation"].as_u64()).collect();
        assert_eq!(trail, found);
        for (entry, record) in entries.iter().zip(&records) {
            assert_eq!(entry["phase"], record.phase.name());
            assert_eq!(entry["by"], record.by.as_str());
        }
        Ok(found.len())
    }
}

impl Controller {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `tandem phase …`.
    async fn phase(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        finish(Migration::command_with(&self.config, &[&["phase"], arguments].concat())).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        token: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer = http(self.port, method, &format!("/v1/{path}"), &headers, &body).await?;
        Ok(Answer { status: answer.status, body: serde_json::from_str(&answer.body)? })
    }

    /// Gives an order once.
    async fn order(&self, order: &str) -> anyhow::Result<Answer> {
        self.ask("POST", &format!("phase/{order}"), Some(&json!({ "reason": "a test" })), None).await
    }

    /// Gives an order until it is executed. A controller that has just become the leader, or has just been
    /// without Kafka, may lose the leadership once more and refuses then (503). Or Kafka does not report the
    /// result of the order in time (504).
    async fn order_until_done(&mut self, order: &str) -> anyhow::Result<Json> {
        let before = self.active().await?.body["generation"].clone();
        let body = json!({ "reason": "a test", "generation": before });
        let mut unknown = false;
        eventually(&format!("{order} to be done"), PATIENCE, async || {
            let answer = self.ask("POST", &format!("phase/{order}"), Some(&body), None).await?;
            match answer.status {
                200 => return Ok(Probe::Done(answer.body)),
                503 | 504 => unknown |= answer.status == 504,
                // An order with an unknown result was executed after the look below: the generation is
                // another one.
                409 if unknown => {}
                _ => anyhow::bail!("{order}: {answer:?}; {}", self.running.tail()),
            }
            // An order that was answered with "not known" may have been executed.
            let found = self.active().await?.body;
            let done = found["generation"] != before;
            Ok(Probe::some(done.then_some(found), format!("{answer:?}; {}", self.running.tail())))
        })
        .await
    }

    /// Waits until the response to a request for the phase meets the condition. An error if the process ends.
    async fn until(&mut self, event: &str, so: impl Fn(&Answer) -> bool) -> anyhow::Result<Answer> {
        eventually(event, PATIENCE, async || {
            self.running.check()?;
            let answer = self.ask("GET", "phase", None, None).await;
            let seen = format!("{answer:?}; {}", self.running.tail());
            Ok(Probe::some(answer.ok().filter(|answer| so(answer)), seen))
        })
        .await
    }

    /// Waits until it is the active controller.
    async fn active(&mut self) -> anyhow::Result<Answer> {
        self.until("to be the active controller", |answer| answer.status == 200).await
    }

    /// Orders `advance` until no obstacle is left.
    async fn advance(&mut self) -> anyhow::Result<Json> {
        eventually("`advance` to be allowed", MINUTE, async || {
            self.running.check()?;
            let answer = self.order("advance").await?;
            match answer.status {
                200 => Ok(Probe::Done(answer.body)),
                409 => Ok(Probe::Pending(format!("{answer:?}; {}", self.running.tail()))),
                _ => anyhow::bail!("advance: {answer:?}; {}", self.running.tail()),
            }
        })
        .await
    }
}

/// The stage of the rollout in a response, such as `canary 50`.
fn stage_of(body: &Json) -> String {
    format!("{} {}", body["phase"].as_str().unwrap_or("?"), body["percent"])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_measurement_is_refused_at_start() -> anyhow::Result<()> {
    let stage = Stage::new("ctlname").await?;
    let (config, _) = stage.configure("wrong", "[controller.gates.verify]\nmine = 'aply_lag < 3'")?;
    let refused = finish(Migration::command_with(&config, &["controller"])).await?;
    assert!(!refused.success);
    for word in ["controller.gates.verify", "`mine`", "`aply_lag`", "apply_lag_seconds", "open_mismatches"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_allow_what_their_scopes_say() -> anyhow::Result<()> {
    let stage = Stage::new("ctltoken").await?;
    let look = stage.migration.write("look", "look-look-look-look")?;
    let operate = stage.migration.write("operate", "operate-operate-op")?;
    let (look, operate) = (look.display(), operate.display());
    let tokens = format!(
        "{QUICK}{NO_GATES}[[controller.token]]\nname = 'looker'\nsecret = 'file:{look}'\nscopes = ['read']\n\
         [[controller.token]]\nname = 'olga'\nsecret = 'file:{operate}'\nscopes = ['operate']\n"
    );
    let mut controller = stage.start("tokens", &tokens)?;
    controller.until("an answer", |answer| answer.status == 401).await?;
    let (looker, olga) = (Some("look-look-look-look"), Some("operate-operate-op"));
    let reason = json!({ "reason": "a test" });
    eventually("an answer to the one who may read", MINUTE, async || {
        let answer = controller.ask("GET", "phase", None, looker).await?;
        Ok(Probe::when(answer.status == 200, format!("{answer:?}; {}", controller.running.tail())))
    })
    .await?;
    for (token, status) in [(None, 401), (Some("guessed-guessed-guessed"), 401), (looker, 403)] {
        for path in ["phase/advance", "phase/back", "phase/pause", "phase/resume", "phase/auto"] {
            let refused = controller.ask("POST", path, Some(&reason), token).await?;
            assert_eq!(refused.status, status, "{path} {refused:?}");
        }
    }
    assert!(stage.records().await?.is_empty());
    assert_eq!(controller.ask("GET", "history", None, None).await?.status, 401);
    // The command line reads the token from this location.
    let location = format!("file:{operate}");
    let advanced = controller.phase(&["advance", "--reason", "it is time", "--token", &location]).await?;
    assert!(advanced.success && advanced.stdout.contains("dual-write"), "{advanced:?}");
    let stale = controller
        .ask("POST", "phase/advance", Some(&json!({ "reason": "x", "generation": 0 })), olga)
        .await?;
    assert_eq!(
        (stale.status, stale.body["type"].as_str()),
        (409, Some("urn:tandem:problem:other-generation"))
    );
    let records = stage.records().await?;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].by.as_str(), records[0].reason.as_str()), ("olga", "it is time"));
    assert!(!controller.running.log().contains("operate-operate"));
    controller.running.terminate().await?;
    stage.migration.drop().await
}
