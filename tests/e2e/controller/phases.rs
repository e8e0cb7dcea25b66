//! Every phase, manually and automatically.

use super::*;

/// The refusal must name the gate and its number.
async fn refused(controller: &Controller, gate: &str, number: &str) -> anyhow::Result<()> {
    let answer = controller.order("advance").await?;
    assert_eq!((answer.status, answer.body["type"].as_str()), (409, Some("urn:tandem:problem:not-yet")));
    let obstacles = answer.body["obstacles"].as_array().cloned().unwrap_or_default();
    let named = obstacles.iter().find(|obstacle| obstacle["name"] == gate);
    let named = named.unwrap_or_else(|| panic!("{gate} is not in {:#}", answer.body));
    let said = named["detail"].as_str().unwrap_or_default();
    assert!(said.contains(number), "{number:?} is not in {said:?}");
    let printed = controller.phase(&["advance"]).await?;
    assert!(
        !printed.success && printed.stderr.contains(gate) && printed.stderr.contains(number),
        "{printed:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_from_prepare_to_the_read_switch_and_back() -> anyhow::Result<()> {
    let stage = Stage::new("ctlhand").await?;
    let mut controller = stage.start("hand", QUICK)?;
    let first = controller.active().await?.body;
    assert_eq!((stage_of(&first).as_str(), first["generation"].as_u64()), ("prepare 0", Some(0)));
    let back = controller.order("back").await?;
    assert_eq!((back.status, back.body["type"].as_str()), (409, Some("urn:tandem:problem:first-phase")));
    refused(&controller, "capture_runs", "capture_age_seconds is not measured: capture has not begun")
        .await?;

    stage.migration.succeed(&["schema", "create"]).await?;
    let mut run = stage.migration.start(&["run"])?;
    let mut stages = vec![stage_of(&controller.advance().await?)];
    // The gateway does not know the phase yet.
    controller.until("the gateway to be behind", |a| a.body["measurements"]["gateways_behind"] == 1).await?;
    refused(&controller, "gateways_follow", "gateways_behind = 1").await?;
    stage.gateway.change(|gateway| gateway.generation = 1000);
    // There are no writes.
    controller.until("writes to be counted", |a| a.body["measurements"]["dual_writes"] == 0).await?;
    let nothing = "dual_write_failure_rate is not measured: no dual write was made since";
    refused(&controller, "dual_writes_succeed", nothing).await?;
    stage.gateway.change(|gateway| gateway.writes_each = 5);
    stages.push(stage_of(&controller.advance().await?));
    // The table is empty, but it still needs a verification.
    stages.push(stage_of(&controller.advance().await?));
    refused(&controller, "full_scan_is_clean", "no full verification has ended yet").await?;
    stage.migration.succeed(&["verify", "--full"]).await?;
    stages.push(stage_of(&controller.advance().await?));
    // There are no reads.
    controller.until("reads to be counted", |a| a.body["measurements"]["canary_reads"] == 0).await?;
    refused(&controller, "canary_is_read", "canary_reads = 0").await?;
    stage.gateway.change(|gateway| gateway.reads_each = 5);
    stages.push(stage_of(&controller.advance().await?));
    stages.push(stage_of(&controller.advance().await?));
    assert_eq!(
        stages,
        ["dual-write 0", "backfill 0", "verify 0", "canary 1", "canary 50", "read-switch 100"]
    );
    refused(&controller, "end", "no phase follows").await?;

    // A rollback needs no gate, and no gateway.
    stage.gateway.change(|gateway| gateway.generation = 0);
    for expected in ["canary 50", "canary 1", "verify 0", "backfill 0", "dual-write 0", "prepare 0"] {
        assert_eq!(stage_of(&controller.order("back").await?.body), expected);
    }
    assert_eq!(stage.generations(&controller).await?, 12);
    // A stage that was just reached has no measurements yet.
    let measured = |a: &Answer| !a.body["measurements"]["capture_age_seconds"].is_null();
    controller.until("the first round here", measured).await?;
    let status = controller.phase(&["status"]).await?;
    assert!(status.success && status.stdout.contains("capture_age_seconds = "), "{status:?}");
    let history = controller.phase(&["history", "--json"]).await?;
    let history: Json = serde_json::from_str(&history.stdout)?;
    let verified = &history["history"][3];
    assert_eq!((stage_of(verified).as_str(), verified["reason"].as_str()), ("canary 1", Some("a test")));
    assert_eq!(verified["measurements"]["open_mismatches"], 0);
    assert!(verified["gates"].as_array().is_some_and(|gates| gates.iter().all(|gate| gate["met"] == true)));
    run.check()?;
    run.terminate().await?;
    controller.running.terminate().await?;
    stage.migration.drop().await
}

/// `action stage by` of each entry of the audit trail.
async fn trail(controller: &Controller) -> anyhow::Result<Vec<String>> {
    let history = controller.ask("GET", "history", None, None).await?.body;
    let entries = history["history"].as_array().cloned().unwrap_or_default();
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    Ok(entries.iter().map(|e| format!("{} {} {}", text(&e["action"]), stage_of(e), text(&e["by"]))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_rolls_back_after_a_mismatch_and_advances_again() -> anyhow::Result<()> {
    let stage = Stage::new("ctlauto").await?;
    stage.gateway.change(|gateway| {
        gateway.generation = 1000;
        gateway.writes_each = 5;
        gateway.reads_each = 5;
    });
    let soak = "auto = true\ninterval_ms = 200\ncanary_percents = [1, 50]\n[controller.soak_seconds]\n\
                 prepare = 1\ndual-write = 1\nbackfill = 1\nverify = 1\ncanary = 1\n";
    let mut controller = stage.start("auto", &format!("{soak}{NO_GATES}"))?;
    let at_end = |answer: &Answer| answer.body["phase"] == "read-switch";
    controller.until("the whole way", at_end).await?;
    let advanced = [
        "advance dual-write 0 auto",
        "advance backfill 0 auto",
        "advance verify 0 auto",
        "advance canary 1 auto",
        "advance canary 50 auto",
        "advance read-switch 100 auto",
    ];
    assert_eq!(trail(&controller).await?, advanced);
    let times: Vec<i64> = stage.records().await?.iter().map(|record| record.at_us).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000_000), "{times:?}");

    controller.until("reads to be counted", |a| !a.body["measurements"]["canary_reads"].is_null()).await?;
    stage.mismatch().await?;
    controller.until("a rollback", |answer| answer.body["generation"].as_u64() >= Some(7)).await?;
    controller.until("the end again", at_end).await?;
    assert_eq!(trail(&controller).await?[6..], ["back canary 50 auto", "advance read-switch 100 auto"]);
    let back = &controller.ask("GET", "history", None, None).await?.body["history"][6];
    let reason = back["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("canary_differs") && reason.contains("canary_mismatches = 1"), "{reason}");

    // While it is paused, it does nothing by itself and refuses to advance. A rollback is always possible.
    assert_eq!(controller.order("pause").await?.body["paused"], true);
    controller.until("reads to be counted", |a| !a.body["measurements"]["canary_reads"].is_null()).await?;
    stage.mismatch().await?;
    let failing = |a: &Answer| a.body["rollback"].to_string().contains("\"met\":true");
    let held = controller.until("the mismatch to be seen", failing).await?;
    assert_eq!(
        (stage_of(&held.body).as_str(), held.body["generation"].as_u64()),
        ("read-switch 100", Some(9))
    );
    assert_eq!(stage_of(&controller.order("back").await?.body), "canary 50");
    let refused = controller.order("advance").await?;
    assert!(refused.status == 409 && refused.body["detail"].to_string().contains("resume"), "{refused:?}");
    let off = controller.phase(&["auto", "off", "--reason", "by hand now"]).await?;
    assert!(off.success && off.stdout.contains("paused"), "{off:?}");
    assert_eq!(controller.order("resume").await?.body["auto"], false);
    let well = |a: &Answer| a.body["obstacles"].as_array().is_some_and(Vec::is_empty);
    let waiting = controller.until("everything to be well", well).await?;
    assert_eq!(stage_of(&waiting.body), "canary 50");
    assert_eq!(stage.generations(&controller).await?, 12);
    assert_eq!(
        trail(&controller).await?[8..],
        [
            "pause read-switch 100 anybody",
            "back canary 50 anybody",
            "auto-off canary 50 anybody",
            "resume canary 50 anybody"
        ]
    );
    controller.running.terminate().await?;
    stage.migration.drop().await
}

/// A table without writes. `auto` stays in the phase that writes both stores until the gate is configured to
/// expect no writes.
#[tokio::test(flavor = "multi_thread")]
async fn without_writes_it_stays_until_the_gate_allows_none() -> anyhow::Result<()> {
    let stage = Stage::new("ctlquiet").await?;
    stage.gateway.change(|gateway| gateway.generation = 1000);
    let (prepare, others) = NO_GATES.split_once("[controller.gates.dual-write]\n").unwrap_or_default();
    let (_, after) = others.split_once("[controller.gates.backfill]\n").unwrap_or_default();
    let with = |gate: &str| {
        format!(
            "auto = true\n{QUICK}{prepare}[controller.gates.dual-write]\ncapture_runs = ''\napply_keeps_up = ''\n\
             {gate}[controller.gates.backfill]\n{after}"
        )
    };
    let mut controller = stage.start("quiet", &with(""))?;
    // Several rounds with a count and a decision.
    for _ in 0..5 {
        let counted = |a: &Answer| a.body["measurements"]["dual_writes"] == 0;
        let status = controller.until("writes to be counted", counted).await?.body;
        assert_eq!(stage_of(&status), "dual-write 0");
        let unmet: Vec<&Json> = list(&status["gates"]).iter().filter(|gate| gate["met"] == false).collect();
        assert!(matches!(&unmet[..], [gate] if gate["name"] == "dual_writes_succeed"), "{status:#}");
        let at = status["at"].clone();
        controller.until("the next round", |a| a.body["at"] != at).await?;
    }
    controller.running.terminate().await?;
    let expected = "dual_writes_succeed = 'dual_write_failures <= 0.01 * dual_writes'\n";
    let mut expecting = stage.start("expecting", &with(expected))?;
    expecting.until("the canary", |a| a.body["phase"] == "canary").await?;
    expecting.running.terminate().await?;
    stage.migration.drop().await
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// Cassandra fails in the canary: the controller rolls back until Cassandra serves no read.
#[tokio::test(flavor = "multi_thread")]
async fn it_rolls_back_stage_by_stage_while_cassandra_fails() -> anyhow::Result<()> {
    let stage = Stage::new("ctldown").await?;
    stage.gateway.change(|gateway| {
        gateway.generation = 1000;
        gateway.writes_each = 5;
        gateway.reads_each = 5;
    });
    let mut controller = stage.start("down", &format!("{QUICK}{NO_GATES}"))?;
    controller.active().await?;
    for _ in 0..5 {
        controller.advance().await?;
    }
    assert_eq!(stage_of(&controller.active().await?.body), "canary 50");
    let phase = eventually("the canary to be left", MINUTE, async || {
        stage.gateway.change(|gateway| gateway.fallbacks += 5);
        let found = controller.active().await?.body;
        let seen = format!("{found:#}");
        Ok(Probe::some((found["phase"] != "canary").then_some(found), seen))
    })
    .await?;
    assert_eq!(stage_of(&phase), "verify 0");
    assert_eq!(trail(&controller).await?[5..], ["back canary 1 auto", "back verify 0 auto"]);
    controller.running.terminate().await?;
    stage.migration.drop().await
}

/// A mismatch that reads found counts even if the controller restarts, or none ran at that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_found_while_no_controller_ran_counts() -> anyhow::Result<()> {
    let stage = Stage::new("ctlgone").await?;
    stage.gateway.change(|gateway| {
        gateway.generation = 1000;
        gateway.writes_each = 5;
        gateway.reads_each = 5;
    });
    let mut controller = stage.start("gone", &format!("{QUICK}{NO_GATES}"))?;
    controller.active().await?;
    for _ in 0..3 {
        controller.advance().await?;
    }
    // It is known before the canary begins, so it does not count for the canary.
    stage.mismatch().await?;
    let known = |n: u64| move |a: &Answer| a.body["measurements"]["canary_mismatches"] == n;
    controller.until("the first to be seen", known(1)).await?;
    assert_eq!(stage_of(&controller.advance().await?), "canary 1");
    controller.until("the first to be left behind", known(0)).await?;
    controller.running.kill()?;
    stage.mismatch().await?;
    let mut next = stage.start("next", &format!("{QUICK}{NO_GATES}"))?;
    next.active().await?;
    next.until("a rollback", |answer| answer.body["phase"] == "verify").await?;
    assert_eq!(trail(&next).await?[4..], ["back verify 0 auto"]);
    next.running.terminate().await?;
    stage.migration.drop().await
}
