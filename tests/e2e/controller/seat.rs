//! Which controller is the active one.

use tandem_devstack::Kafka;
use tandem_kafka::{PublishError, TransactionalPublisher};
use tandem_model::Phase;
use tandem_wire::control::encode_phase;
use tandem_wire::log::OutRecord;

use super::*;

/// Two controllers, the active one first.
async fn two(stage: &Stage) -> anyhow::Result<(Seated, Seated)> {
    let config = format!("{QUICK}{NO_GATES}");
    let mut first = stage.start("first", &config)?;
    first.active().await?;
    let mut second = stage.start("second", &config)?;
    // With the second, the seat is given anew.
    let began = Instant::now();
    loop {
        first.running.check()?;
        second.running.check()?;
        let status = |seated: &Seated| seated.ask("GET", "phase", None, None).map_or(0, |a| a.status);
        match (status(&first), status(&second)) {
            (200, 503) if joined(&second) => return Ok((first, second)),
            (503, 200) => return Ok((second, first)),
            _ => anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "no one of two is active"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether it answers as a standby, for some time.
fn joined(seated: &Seated) -> bool {
    (0..20).all(|_| {
        std::thread::sleep(Duration::from_millis(100));
        seated.ask("GET", "phase", None, None).is_ok_and(|a| a.body["type"] == "urn:tandem:problem:standby")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_after_kill_9() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctlkill").await? else { return Ok(()) };
    let (mut active, mut standby) = two(&stage).await?;
    active.ordered("advance").await?;
    let refused = standby.order("advance")?;
    assert_eq!((refused.status, refused.body["type"].as_str()), (503, Some("urn:tandem:problem:standby")));
    active.running.kill()?;
    let seen = standby.active().await?.body;
    assert_eq!((stage(&seen).as_str(), seen["generation"].as_u64()), ("dual-write 0", Some(1)));
    // The command line finds the one that answers.
    let told = standby.phase(&["advance", "--url", &active.url, "--url", &standby.url]).await?;
    assert!(told.success && told.stdout.contains("backfill (generation 2)"), "{told:?}");
    assert_eq!(stage.generations(&standby).await?, 2);
    standby.running.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_controller_that_goes_on_changes_nothing() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctlstop").await? else { return Ok(()) };
    let (mut zombie, mut other) = two(&stage).await?;
    zombie.ordered("advance").await?;
    zombie.running.signal("STOP")?;
    other.active().await?;
    assert_eq!(stage(&other.ordered("advance").await?), "backfill 0");
    zombie.running.signal("CONT")?;
    // It never says that the phase is the older one, and takes no order while it does not have the seat.
    for _ in 0..40 {
        let answer = zombie.ask("GET", "phase", None, None)?;
        // It may get the seat back, as any member of a group may.
        match answer.status {
            200 => assert_eq!(answer.body["generation"], 2, "{answer:?}"),
            status => assert_eq!(status, 503, "{answer:?}"),
        }
        // About the generation that it knew.
        let order = json!({ "reason": "a zombie", "generation": 1 });
        let order = zombie.ask("POST", "phase/back", Some(&order), None)?;
        assert!([503, 409].contains(&order.status), "{order:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    zombie.running.check()?;
    let records = stage.records().await?;
    let phases: Vec<Phase> = records.iter().map(|record| record.phase).collect();
    assert_eq!(phases, [Phase::DualWrite, Phase::Backfill]);
    let began = Instant::now();
    let active = loop {
        let seated = [&zombie, &other];
        let found =
            seated.into_iter().find(|s| s.ask("GET", "phase", None, None).is_ok_and(|a| a.status == 200));
        if let Some(active) = found {
            break active;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "neither is active");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    stage.generations(active).await?;
    zombie.running.terminate().await?;
    other.running.terminate().await?;
    stage.migration.drop().await
}

/// The seat alone does not protect: here the one who has it is fenced, and does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_controller_writes_nothing_and_begins_anew() -> anyhow::Result<()> {
    let Some(stage) = Stage::new("ctlfence").await? else { return Ok(()) };
    let mut seated = stage.start("fenced", &format!("{QUICK}{NO_GATES}"))?;
    seated.active().await?;
    assert_eq!(seated.order("advance")?.status, 200);
    let topics = Topics::new(&stage.migration.prefix);
    let id = topics.controller_transactional_id();
    let newer = TransactionalPublisher::start(&stage.migration.kafka(), &id).await?;
    let refused = seated.order("advance")?;
    assert_eq!((refused.status, refused.body["type"].as_str()), (503, Some("urn:tandem:problem:standby")));
    assert_eq!(stage.records().await?.len(), 1);

    // It has the seat, so it takes over again, and what fenced it is fenced.
    let again = seated.active().await?.body;
    assert_eq!((stage(&again).as_str(), again["generation"].as_u64()), ("dual-write 0", Some(1)));
    let record = OutRecord {
        topic: topics.control().into(),
        partition: 0,
        key: PHASE_KEY.to_vec(),
        value: Some(encode_phase(&PhaseRecord { generation: 9, ..PhaseRecord::default() })),
        version: None,
        timestamp_ms: None,
    };
    let late = newer.publish(vec![record], |_| Ok(Vec::new())).await;
    assert!(matches!(late, Err(PublishError::Fenced { .. })), "{late:?}");
    assert_eq!(stage(&seated.ordered("advance").await?), "backfill 0");
    assert_eq!(stage.generations(&seated).await?, 2);
    seated.running.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_it_holds_and_says_so() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let stage = Stage::with(servers, "ctlpause").await?;
    let mut seated = stage.start("paused", &format!("auto = true\n{QUICK}{NO_GATES}"))?;
    // Not beyond the canary: nobody reads, and gates that are not measured are not met.
    let at_canary = |a: &Answer| a.body["phase"] == "canary";
    let before = seated.until("the canary", at_canary).await?.body;
    kafka.pause()?;
    let silent = seated.until("Kafka's silence to be noticed", |a| a.status == 503).await?;
    assert_eq!(silent.body["type"], "urn:tandem:problem:control-topic-unavailable", "{silent:?}");
    assert!(silent.body["detail"].to_string().contains("canary at 1 %"), "{silent:?}");
    let order = seated.order("back")?;
    assert_eq!(order.status, 503, "{order:?}");
    kafka.resume()?;
    let after = seated.active().await?.body;
    assert_eq!((&after["generation"], stage(&after)), (&before["generation"], stage(&before)));
    assert_eq!(seated.ordered("pause").await?["paused"], true);
    assert_eq!(stage(&seated.ordered("back").await?), "verify 0");
    stage.generations(&seated).await?;
    seated.running.terminate().await?;
    stage.migration.drop().await
}
