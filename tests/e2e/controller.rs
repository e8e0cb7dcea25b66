//! The controller: phases walked by hand and by itself, gates, take-over, and what it does without
//! Kafka. The gateways' metrics are pages that a test serves itself.

mod pages;
mod seat;
mod tls;
mod walk;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tandem_kafka::{Producer, read_all};
use tandem_model::PhaseRecord;
use tandem_wire::control::{
    FoundBy, Mismatch, MismatchKind, MismatchState, PHASE_KEY, decode_phase, encode_control,
};
use tandem_wire::log::{InRecord, OutRecord, Topics};

use crate::support::{Migration, Running, Servers, finish};
use pages::Pages;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT)";
const MAPPING: &str =
    "[[table]]\nsource = \"{db}.t\"\n[[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n";

/// No time is held, and two steps of the canary.
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

/// A migration with controllers, and a gateway's metrics page.
struct Stage {
    migration: Migration,
    pages: Pages,
}

/// A controller of one's own address.
struct Seated {
    url: String,
    config: PathBuf,
    running: Running,
}

/// An answer of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Json,
}

impl Stage {
    async fn new(test: &str) -> anyhow::Result<Option<Self>> {
        let Some(servers) = Servers::from_env() else { return Ok(None) };
        Self::with(servers, test).await.map(Some)
    }

    async fn with(servers: Servers, test: &str) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[TABLE]).await?;
        migration.configure("", MAPPING)?;
        Ok(Self { migration, pages: Pages::serve().await? })
    }

    /// Writes a configuration with these keys of `[controller]`, and gives its file and the address.
    fn configure(&self, name: &str, controller: &str) -> anyhow::Result<(PathBuf, String)> {
        // Free until somebody else takes it, which on a port just given is unlikely.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let common = std::fs::read_to_string(self.migration.config())?;
        let section = format!(
            "[controller]\nlisten = \"{listen}\"\ngateways = [\"{}\"]\n{controller}\n",
            self.pages.url()
        );
        let config = self.migration.folder.path().join(format!("{name}.toml"));
        std::fs::write(&config, format!("{section}{common}"))?;
        Ok((config, format!("http://{listen}")))
    }

    fn start(&self, name: &str, controller: &str) -> anyhow::Result<Seated> {
        let (config, url) = self.configure(name, controller)?;
        let log = self.migration.folder.path().join(format!("{name}.log"));
        let running = Running::of(Migration::command_with(&config, &["controller"]), log)?;
        Ok(Seated { url, config, running })
    }

    /// What a gateway writes once a difference that a read of Cassandra met is confirmed.
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
        let record = OutRecord {
            topic: Topics::new(&self.migration.prefix).mismatches().into(),
            partition: 0,
            key: b"t/1".to_vec(),
            value: Some(encode_control(&event)?),
            version: None,
            timestamp_ms: None,
        };
        let producer = Producer::start(&self.migration.kafka()).await?;
        producer.send(vec![record]).await?;
        Ok(())
    }

    /// The committed phase records, in the order of the log.
    async fn records(&self) -> anyhow::Result<Vec<PhaseRecord>> {
        let topic = Topics::new(&self.migration.prefix).control();
        let records = read_all(&self.migration.kafka(), &topic).await?;
        let phases = records.iter().filter(|record: &&InRecord| record.key.as_deref() == Some(PHASE_KEY));
        phases.map(|record| Ok(decode_phase(record.value.as_deref().unwrap_or_default())?)).collect()
    }

    /// The log must hold every generation once, from 1 on (compaction has had no time), each with its
    /// entry of the audit trail.
    async fn generations(&self, seated: &Seated) -> anyhow::Result<usize> {
        let records = self.records().await?;
        let found: Vec<u64> = records.iter().map(|record| record.generation).collect();
        assert_eq!(found, (1..=records.len() as u64).collect::<Vec<_>>());
        let history = seated.ask("GET", "history", None, None)?.body;
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

impl Seated {
    /// `tandem phase …`.
    async fn phase(&self, arguments: &[&str]) -> anyhow::Result<crate::support::Finished> {
        finish(Migration::command_with(&self.config, &[&["phase"], arguments].concat())).await
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Json>,
        token: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(40)))
            .http_status_as_error(false);
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}/v1/{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.map(ToString::to_string).unwrap_or_default())?;
        let mut answer = ureq::Agent::from(config.build()).run(request)?;
        let body = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        Ok(Answer { status: answer.status().as_u16(), body })
    }

    fn order(&self, order: &str) -> anyhow::Result<Answer> {
        self.ask("POST", &format!("phase/{order}"), Some(&json!({ "reason": "a test" })), None)
    }

    /// Orders it until it is done. Whoever has just taken the seat, or was just without Kafka, may lose
    /// the seat once more, and refuses then (503); or Kafka does not tell it in time what became of the
    /// order (504).
    async fn ordered(&mut self, order: &str) -> anyhow::Result<Json> {
        let began = Instant::now();
        let before = self.active().await?.body["generation"].clone();
        let body = json!({ "reason": "a test", "generation": before });
        let mut unknown = false;
        loop {
            let answer = self.ask("POST", &format!("phase/{order}"), Some(&body), None)?;
            match answer.status {
                200 => return Ok(answer.body),
                503 | 504 if began.elapsed() < Duration::from_mins(1) => unknown |= answer.status == 504,
                // What was not known came about after the look below: the generation is another one.
                409 if unknown => {}
                _ => anyhow::bail!("{order}: {answer:?}; {}", self.running.tail()),
            }
            // What is answered with "not known" may have come about.
            let seen = self.active().await?.body;
            if seen["generation"] != before {
                return Ok(seen);
            }
        }
    }

    /// Polls the phase until the answer is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Answer) -> bool) -> anyhow::Result<Answer> {
        let began = Instant::now();
        loop {
            self.running.check()?;
            let answer = self.ask("GET", "phase", None, None);
            match answer {
                Ok(answer) if so(&answer) => return Ok(answer),
                other => anyhow::ensure!(
                    began.elapsed() < Duration::from_mins(1),
                    "not within a minute: {what}; {other:?}; {}",
                    self.running.tail()
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it is the active one.
    async fn active(&mut self) -> anyhow::Result<Answer> {
        self.until("to be the active controller", |answer| answer.status == 200).await
    }

    /// Orders `advance` until nothing stands in the way any more.
    async fn advance(&mut self) -> anyhow::Result<Json> {
        let began = Instant::now();
        loop {
            self.running.check()?;
            let answer = self.order("advance")?;
            match answer.status {
                200 => return Ok(answer.body),
                409 if began.elapsed() < Duration::from_mins(1) => {}
                _ => anyhow::bail!("advance: {answer:?}; {}", self.running.tail()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Where it is, such as `canary 50`.
fn stage(body: &Json) -> String {
    format!("{} {}", body["phase"].as_str().unwrap_or("?"), body["percent"])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_measurement_is_refused_at_start() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctlname").await? else { return Ok(()) };
    let (config, _) = stage.configure("wrong", "[controller.gates.verify]\nmine = 'aply_lag < 3'")?;
    let refused = finish(Migration::command_with(&config, &["controller"])).await?;
    assert!(!refused.success);
    for word in ["controller.gates.verify", "`mine`", "`aply_lag`", "apply_lag_seconds", "open_mismatches"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_reach_as_far_as_their_scopes() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctltoken").await? else { return Ok(()) };
    let secret = |name: &str, text: &str| {
        let path = stage.migration.folder.path().join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let (look, operate) = (secret("look", "look-look-look-look")?, secret("operate", "operate-operate-op")?);
    let tokens = format!(
        "{QUICK}{NO_GATES}[[controller.token]]\nname = 'looker'\nsecret = 'file:{look}'\nscopes = ['read']\n\
         [[controller.token]]\nname = 'olga'\nsecret = 'file:{operate}'\nscopes = ['operate']\n"
    );
    let mut seated = stage.start("tokens", &tokens)?;
    seated.until("an answer", |answer| answer.status == 401).await?;
    let (looker, olga) = (Some("look-look-look-look"), Some("operate-operate-op"));
    let reason = json!({ "reason": "a test" });
    let began = Instant::now();
    while seated.ask("GET", "phase", None, looker)?.status != 200 {
        assert!(began.elapsed() < Duration::from_mins(1), "{}", seated.running.tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (token, status) in [(None, 401), (Some("guessed-guessed-guessed"), 401), (looker, 403)] {
        for path in ["phase/advance", "phase/back", "phase/pause", "phase/resume", "phase/auto"] {
            let refused = seated.ask("POST", path, Some(&reason), token)?;
            assert_eq!(refused.status, status, "{path} {refused:?}");
        }
    }
    assert!(stage.records().await?.is_empty());
    assert_eq!(seated.ask("GET", "history", None, None)?.status, 401);
    // The token is found where the command line says.
    let place_of = format!("file:{operate}");
    let advanced = seated.phase(&["advance", "--reason", "it is time", "--token", &place_of]).await?;
    assert!(advanced.success && advanced.stdout.contains("dual-write"), "{advanced:?}");
    let stale =
        seated.ask("POST", "phase/advance", Some(&json!({ "reason": "x", "generation": 0 })), olga)?;
    assert_eq!(
        (stale.status, stale.body["type"].as_str()),
        (409, Some("urn:tandem:problem:other-generation"))
    );
    let records = stage.records().await?;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].by.as_str(), records[0].reason.as_str()), ("olga", "it is time"));
    assert!(!seated.running.log().contains("operate-operate"));
    seated.running.terminate().await?;
    stage.migration.drop().await
}
