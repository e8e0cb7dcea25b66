//! Leadership: which controller is the active one.

use std::time::Duration;
use tandem_devstack::Kafka;

use tandem_kafka::{PublishError, TransactionalPublisher};
use tandem_model::Phase;

use super::*;
use crate::support::phase_record;

/// Two controllers, the active one first.
async fn two(stage: &Stage) -> anyhow::Result<(Controller, Controller)> {
    let config = format!("{QUICK}{NO_GATES}");
    let mut first = stage.start("first", &config)?;
    first.active().await?;
    let mut second = stage.start("second", &config)?;
    // When the second joins the group, the leadership is assigned again.
    let first_leads = eventually("one of two controllers to be the active one", MINUTE, async || {
        first.running.check()?;
        second.running.check()?;
        match (status(&first).await, status(&second).await) {
            (200, 503) if stands_by(&second).await => Ok(Probe::Done(true)),
            (503, 200) => Ok(Probe::Done(false)),
            found => Ok(Probe::Pending(format!("{found:?}"))),
        }
    })
    .await?;
    Ok(if first_leads { (first, second) } else { (second, first) })
}

/// The status of its response to a request for the phase; 0 without a response.
async fn status(controller: &Controller) -> u16 {
    controller.ask("GET", "phase", None, None).await.map_or(0, |answer| answer.status)
}

/// Whether it answers as a standby for two seconds. A controller that is still joining the group does not.
async fn stands_by(controller: &Controller) -> bool {
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = controller.ask("GET", "phase", None, None).await;
        if !answer.is_ok_and(|answer| answer.body["type"] == "urn:tandem:problem:standby") {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_after_kill_9() -> anyhow::Result<()> {
    let stage = Stage::new("ctlkill").await?;
    let (mut active, mut standby) = two(&stage).await?;
    active.order_until_done("advance").await?;
    let refused = standby.order("advance").await?;
    assert_eq!((refused.status, refused.body["type"].as_str()), (503, Some("urn:tandem:problem:standby")));
    active.running.kill()?;
    let seen = standby.active().await?.body;
    assert_eq!((stage_of(&seen).as_str(), seen["generation"].as_u64()), ("dual-write 0", Some(1)));
    // The command line finds the active one.
    let advanced = standby.phase(&["advance", "--url", &active.url(), "--url", &standby.url()]).await?;
    assert!(advanced.success && advanced.stdout.contains("backfill (generation 2)"), "{advanced:?}");
    assert_eq!(stage.generations(&standby).await?, 2);
    standby.running.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_controller_that_goes_on_changes_nothing() -> anyhow::Result<()> {
    let stage = Stage::new("ctlstop").await?;
    let (mut zombie, mut other) = two(&stage).await?;
    zombie.order_until_done("advance").await?;
    zombie.running.signal("STOP")?;
    other.active().await?;
    assert_eq!(stage_of(&other.order_until_done("advance").await?), "backfill 0");
    zombie.running.signal("CONT")?;
    // It never reports the older phase, and takes no order while it is not the leader. The test observes it
    // for two seconds, because nothing shows when it has noticed.
    for _ in 0..40 {
        let answer = zombie.ask("GET", "phase", None, None).await?;
        // It may become the leader again, like any member of a group.
        match answer.status {
            200 => assert_eq!(answer.body["generation"], 2, "{answer:?}"),
            status => assert_eq!(status, 503, "{answer:?}"),
        }
        // An order for the generation that it knew.
        let order = json!({ "reason": "a zombie", "generation": 1 });
        let order = zombie.ask("POST", "phase/back", Some(&order), None).await?;
        assert!([503, 409].contains(&order.status), "{order:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    zombie.running.check()?;
    let records = stage.records().await?;
    let phases: Vec<Phase> = records.iter().map(|record| record.phase).collect();
    assert_eq!(phases, [Phase::DualWrite, Phase::Backfill]);
    let active = eventually("one of two controllers to be the active one", MINUTE, async || {
        let found = (status(&zombie).await, status(&other).await);
        let active = if found.0 == 200 { Some(&zombie) } else { (found.1 == 200).then_some(&other) };
        Ok(Probe::some(active, format!("{found:?}")))
    })
    .await?;
    stage.generations(active).await?;
    zombie.running.terminate().await?;
    other.running.terminate().await?;
    stage.migration.drop().await
}

/// Leadership alone does not protect. Here the leader is fenced and does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_controller_writes_nothing_and_begins_anew() -> anyhow::Result<()> {
    let stage = Stage::new("ctlfence").await?;
    let mut controller = stage.start("fenced", &format!("{QUICK}{NO_GATES}"))?;
    controller.active().await?;
    assert_eq!(controller.order("advance").await?.status, 200);
    let id = stage.migration.topics().controller_transactional_id();
    let newer = TransactionalPublisher::start(&stage.migration.kafka(), &id).await?;
    let refused = controller.order("advance").await?;
    assert_eq!((refused.status, refused.body["type"].as_str()), (503, Some("urn:tandem:problem:standby")));
    assert_eq!(stage.records().await?.len(), 1);

    // It is still the leader, so it takes over again and fences the other publisher.
    let again = controller.active().await?.body;
    assert_eq!((stage_of(&again).as_str(), again["generation"].as_u64()), ("dual-write 0", Some(1)));
    let record = PhaseRecord { generation: 9, ..PhaseRecord::default() };
    let record = phase_record(&stage.migration.prefix, &record);
    let late = newer.publish(vec![record], |_| Ok(Vec::new())).await;
    assert!(matches!(late, Err(PublishError::Fenced { .. })), "{late:?}");
    assert_eq!(stage_of(&controller.order_until_done("advance").await?), "backfill 0");
    assert_eq!(stage.generations(&controller).await?, 2);
    controller.running.terminate().await?;
    stage.migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_it_holds_and_says_so() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let stage = Stage::with(servers, "ctlpause").await?;
    let mut controller = stage.start("paused", &format!("auto = true\n{QUICK}{NO_GATES}"))?;
    // Not beyond the canary: there are no reads, and gates without measurements are not met.
    let at_canary = |a: &Answer| a.body["phase"] == "canary";
    let before = controller.until("the canary", at_canary).await?.body;
    kafka.pause()?;
    let silent = controller.until("Kafka's silence to be noticed", |a| a.status == 503).await?;
    assert_eq!(silent.body["type"], "urn:tandem:problem:control-topic-unavailable", "{silent:?}");
    assert!(silent.body["detail"].to_string().contains("canary at 1 %"), "{silent:?}");
    let order = controller.order("back").await?;
    assert_eq!(order.status, 503, "{order:?}");
    kafka.resume()?;
    let after = controller.active().await?.body;
    assert_eq!((&after["generation"], stage_of(&after)), (&before["generation"], stage_of(&before)));
    assert_eq!(controller.order_until_done("pause").await?["paused"], true);
    assert_eq!(stage_of(&controller.order_until_done("back").await?), "verify 0");
    stage.generations(&controller).await?;
    controller.running.terminate().await?;
    stage.migration.drop().await
}
