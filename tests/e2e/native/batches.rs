//! Batches: all of their rows or none, whoever stops wherever, and beside writes of single rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_model::{Nonce, Row, Value};
use tandem_native_writes::{Decision, NativeWriteError, Outcome, Request};
use tokio::time::Instant;

use super::stage::{Gateway, Stage, again, increment, n_of, request, row, stopped_after};
use crate::support::{Link, nodes};

/// Takes one from the first row and gives it to the second. A row that is absent is refused.
fn transfer(index: usize, row: Option<&Row>) -> Decision<&'static str> {
    let Some(row) = row else { return Decision::Refuse("absent") };
    let n = n_of(row) + if index == 0 { -1 } else { 1 };
    Decision::Become(Some(vec![row[0].clone(), Value::Int(n.rem_euclid(3)), Value::Null, Value::Int(n)]))
}

async fn send(
    gateway: &Gateway,
    [from, to]: [i64; 2],
    request: Request,
) -> Result<Outcome<&'static str>, NativeWriteError> {
    gateway.batch(&[from, to], request, transfer).await
}

async fn values(stage: &Stage, ids: [i64; 2]) -> anyhow::Result<[i64; 2]> {
    let mut values = [0; 2];
    for (value, id) in values.iter_mut().zip(ids) {
        *value = n_of(&stage.stored(id).await?.expect("the row stays"));
    }
    Ok(values)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_writes_all_of_its_rows_or_none() -> anyhow::Result<()> {
    let stage = Stage::new("batch").await?;
    let gateway = stage.gateway(1).await?;
    stage.base(&[row(1, 0, Some("old"), 10), row(2, 0, None, 10)]).await?;
    let nonce = Nonce(rand::random());
    let first = send(&gateway, [2, 1], again(nonce)).await?;
    let Outcome::Written { token, replayed: false } = first else { panic!("{first:?}") };
    assert_eq!(values(&stage, [1, 2]).await?, [11, 9]);
    assert_eq!(
        send(&gateway, [2, 1], again(nonce)).await?,
        Outcome::Written { token, replayed: true },
        "a retry is answered with the first token"
    );
    // One version and one request on the log, and the rows as they were.
    let mut log = stage.log().await?;
    log.sort_by_key(|change| n_of(change.before.as_ref().unwrap()) + n_of(change.after.as_ref().unwrap()));
    assert_eq!(log.iter().map(|c| c.version).collect::<BTreeSet<_>>(), BTreeSet::from([token.version]));
    for change in &log {
        assert_eq!(change.source.native.unwrap().request, Some(nonce));
        assert_eq!(n_of(change.before.as_ref().unwrap()), 10);
    }
    // A refusal of one row, after the other one held its write.
    assert_eq!(send(&gateway, [1, 3], request()).await?, Outcome::Refused("absent"));
    assert_eq!(values(&stage, [1, 2]).await?, [11, 9]);
    let twice = send(&gateway, [1, 1], request()).await;
    assert!(matches!(twice, Err(NativeWriteError::NamedTwice { .. })), "{twice:?}");
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.batches(1).await?, 0);
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_and_single_writes_lose_and_double_nothing() -> anyhow::Result<()> {
    const ROWS: i64 = 4;
    const EACH: i64 = 6;
    let stage = Stage::new("transfers").await?;
    stage.base(&(0..ROWS).map(|id| row(id, 0, None, 100)).collect::<Vec<_>>()).await?;
    let gateways = [Arc::new(stage.gateway(1).await?), Arc::new(stage.gateway(1).await?)];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_i64 {
        let gateway = Arc::clone(&gateways[writer as usize % 2]);
        writers.spawn(async move {
            for number in 0..EACH {
                let from = (writer + number) % ROWS;
                let to = (from + 1 + number % (ROWS - 1)) % ROWS;
                let sent = send(&gateway, [from, to], request()).await.unwrap();
                assert!(matches!(sent, Outcome::Written { replayed: false, .. }), "{sent:?}");
                gateway.write(to, request(), increment).await.unwrap();
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer?;
    }
    stage.assert_at_rest(1).await?;
    stage.replay().await?;
    stage.assert_at_rest(1).await?;
    let mut total = 0;
    for id in 0..ROWS {
        total += n_of(&stage.stored(id).await?.unwrap());
        // Each record continues the one before: nothing came between a row's state and the write that was decided on it.
        let mut steps = stage.log_of(id).await?;
        steps.sort_by_key(|change| change.version);
        steps.dedup();
        let mut present = row(id, 0, None, 100);
        for step in steps {
            assert_eq!(step.before.as_ref(), Some(&present));
            present = step.after.unwrap();
        }
    }
    assert_eq!(total, ROWS * 100 + 4 * EACH);
    let mut by_request: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for change in stage.log().await? {
        let request = change.source.native.unwrap().request;
        by_request.entry(request).or_default().insert(change.version);
    }
    assert!(by_request.values().all(|versions| versions.len() == 1), "a batch has one version");
    assert_eq!(stage.batches(1).await?, 0);
    stage.drop().await
}

/// A maker stops at each of its waits in turn. The next writers of its rows find all of the batch or nothing, and its retry
/// makes it happen once.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_stops_anywhere_happens_whole_or_not_at_all() -> anyhow::Result<()> {
    const AT_ONCE: usize = 8;
    let stage = Arc::new(Stage::new("batchstops").await?);
    let gateways = Arc::new([stage.gateway(1).await?, stage.gateway(1).await?]);
    let mut seen = BTreeSet::new();
    for group in 0.. {
        let mut attempts = tokio::task::JoinSet::new();
        for waits in group * AT_ONCE + 1..=(group + 1) * AT_ONCE {
            attempts.spawn(stopped_batch(Arc::clone(&stage), Arc::clone(&gateways), waits));
        }
        let mut ended = false;
        while let Some(attempt) = attempts.join_next().await {
            let (has_ended, state) = attempt??;
            ended |= has_ended;
            seen.insert(state);
        }
        if ended {
            break;
        }
    }
    gateways[1].writes.sweep(&|| true).await?;
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.batches(1).await?, 0);
    // The first guard, both guards, a committed batch and a complete one were among the states in which it stopped.
    for state in [
        "0 tentative, 0 written",
        "1 tentative, 0 written",
        "2 tentative, 0 written",
        "0 tentative, 2 written",
    ] {
        assert!(seen.contains(state), "{state} was not seen: {seen:?}");
    }
    Arc::into_inner(stage).expect("all attempts have ended").drop().await
}

/// One batch that stops after some waits. Returns whether it had ended before that, and what it left.
async fn stopped_batch(
    stage: Arc<Stage>,
    gateways: Arc<[Gateway; 2]>,
    waits: usize,
) -> anyhow::Result<(bool, String)> {
    let ids = [2 * waits as i64, 2 * waits as i64 + 1];
    stage.base(&ids.map(|id| row(id, 0, Some("old"), 10))).await?;
    let nonce = Nonce(rand::random());
    // Others wait for a stopped batch until then. On a busy machine a whole batch may need longer.
    let soon = Request { nonce, deadline: Instant::now() + Duration::from_secs(3 + waits as u64 / 16) };
    let ended =
        stopped_after(waits, send(&gateways[0], ids, soon)).await.is_some_and(|outcome| outcome.is_ok());
    let guards = stage.guards(1).await?;
    let of_batch = ids.map(|id| guards.get(&id));
    let tentative = of_batch.iter().flatten().filter(|guard| guard.is_tentative).count();
    let is_written = |guard: &&&super::stage::Stored| guard.image.as_ref().is_some_and(|row| n_of(row) != 10);
    let written = of_batch.iter().flatten().filter(is_written).count();
    // Other writers of both rows, at once.
    let others = ids.map(|id| gateways[1].write(id, request(), increment));
    for other in futures::future::join_all(others).await {
        other?;
    }
    let values = values(&stage, ids).await?;
    anyhow::ensure!(values == [11, 11] || values == [10, 12], "half a batch after {waits} waits: {values:?}");
    let retried = send(&gateways[1], ids, again(nonce)).await?;
    let replayed = matches!(retried, Outcome::Written { replayed: true, .. });
    anyhow::ensure!(replayed == (values == [10, 12]), "after {waits} waits: {values:?} and {retried:?}");
    let values = self::values(&stage, ids).await?;
    anyhow::ensure!(values == [10, 12], "after {waits} waits and a retry: {values:?}");
    Ok((ended, format!("{tentative} tentative, {written} written")))
}

/// The answer of each CAS of a batch is lost in turn: of its row, its guards, its commit, and what follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_survives_the_loss_of_any_answer() -> anyhow::Result<()> {
    let stage = Stage::new("batchlost").await?;
    let link = Link::to(&nodes()[0]).await?;
    let gateway = stage.gateway_over(1, vec![link.address.clone()]).await?;
    for nth in 1.. {
        let ids = [2 * nth as i64, 2 * nth as i64 + 1];
        stage.base(&ids.map(|id| row(id, 0, None, 10))).await?;
        link.cut_nth(b"[applied]", nth);
        let outcome = send(&gateway, ids, request()).await?;
        assert!(matches!(outcome, Outcome::Written { replayed: false, .. }), "{nth}: {outcome:?}");
        assert_eq!(values(&stage, ids).await?, [9, 11], "the answer {nth} was lost");
        if link.is_to_cut() {
            // Its row, two guards, the commit, two guards again, and the removal.
            assert!(nth > 7, "{nth}");
            break;
        }
    }
    gateway.writes.sweep(&|| true).await?;
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.batches(1).await?, 0);
    stage.drop().await
}

/// The second row of a batch cannot be written. The first one is free at once, long before the batch's deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_frees_its_rows() -> anyhow::Result<()> {
    let stage = Stage::new("batchfails").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    stage.base(&[row(1, 0, None, 10), row(2, 0, None, 10)]).await?;
    let unfit = |index: usize, row: Option<&Row>| match index {
        0 => transfer(0, row),
        _ => Decision::Become(Some(vec![Value::Int(2), Value::Null])),
    };
    let refused = first.batch(&[1, 2], request(), unfit).await;
    assert!(matches!(refused, Err(NativeWriteError::Row(_))), "{refused:?}");
    let guards = stage.guards(1).await?;
    assert!(guards.values().all(|guard| !guard.is_tentative), "{guards:?}");
    assert_eq!(stage.batches(1).await?, 0);
    second.write(1, request(), increment).await?;
    assert_eq!(values(&stage, [1, 2]).await?, [11, 10]);
    stage.assert_at_rest(1).await?;
    stage.drop().await
}

/// The lease lapses between reading a guard and its CAS. The batch sends no CAS any more, and others abort it.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_lived_through_a_lapse_does_not_commit() -> anyhow::Result<()> {
    let stage = Stage::new("batchlapse").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    for last in [0, 1] {
        let ids = [2 * last as i64 + 1, 2 * last as i64 + 2];
        stage.base(&ids.map(|id| row(id, 0, None, 10))).await?;
        let soon = Request { deadline: Instant::now() + Duration::from_secs(6), ..request() };
        let outcome = first.batch(&ids, soon, |index, row| {
            if index == last {
                first.lapse();
                first.renew();
            }
            transfer(index, row)
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, Err(NativeWriteError::MayNotAct)), "{outcome:?}");
        let guards = stage.guards(1).await?;
        let tentative =
            ids.iter().filter(|id| guards.get(*id).is_some_and(|guard| guard.is_tentative)).count();
        assert_eq!(tentative, last, "only the CASes before the lapse");
        for id in ids {
            second.write(id, request(), increment).await?;
        }
        assert_eq!(values(&stage, ids).await?, [11, 11]);
    }
    second.writes.sweep(&|| true).await?;
    stage.assert_at_rest(1).await?;
    stage.drop().await
}
