//! The sweep alone completes what dying writers left.

use std::sync::Arc;
use std::time::Duration;

use tandem_model::{Nonce, Row, Value};
use tandem_native_writes::{Decision, NativeWriteError, Outcome, Request};
use tokio::time::Instant;

use super::stage::{Stage, again, increment, n_of, request, row, stopped_after};

/// Adds one to every row of a batch.
fn increment_each(_: usize, row: Option<&Row>) -> Decision<&'static str> {
    increment(row)
}

/// Writers of single rows and of batches stop at each of their waits. Nobody writes these rows again but a sweep.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_completes_what_stopped_writers_left() -> anyhow::Result<()> {
    let stage = Stage::new("sweep").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    let mut requests = Vec::new();
    for waits in 1.. {
        let ids = [10 * waits, 10 * waits + 1, 10 * waits + 2].map(|id| id as i64);
        stage.base(&ids.map(|id| row(id, 0, Some("old"), 0))).await?;
        let nonces = [Nonce(rand::random()), Nonce(rand::random())];
        let single = stopped_after(waits, first.write(ids[0], again(nonces[0]), increment)).await;
        let seconds = 3 + waits as u64 / 16;
        let soon = Request { nonce: nonces[1], deadline: Instant::now() + Duration::from_secs(seconds) };
        let batch = stopped_after(waits, first.batch(&ids[1..], soon, increment_each)).await;
        requests.push((ids, nonces));
        if single.is_some() && batch.is_some_and(|batch| batch.is_ok()) {
            break;
        }
    }
    let swept = second.writes.sweep(&|| true).await?;
    assert!(swept.completed > 0 && swept.settled > 0 && swept.batches > 0, "{swept:?}");
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.batches(1).await?, 0);
    let again_swept = second.writes.sweep(&|| true).await?;
    assert!(again_swept.is_clean() && again_swept.guards == swept.guards, "{again_swept:?}");
    for (ids, nonces) in requests {
        // What a batch has done, it has done to both rows; and each request happens once, now or before.
        let mut values = Vec::new();
        for id in ids {
            values.push(n_of(&stage.stored(id).await?.unwrap()));
        }
        assert_eq!(values[1], values[2], "{ids:?}");
        let single = second.write(ids[0], again(nonces[0]), increment).await?;
        let batch = second.batch(&ids[1..], again(nonces[1]), increment_each).await?;
        for (outcome, value) in [(single, values[0]), (batch, values[1])] {
            assert!(matches!(outcome, Outcome::Written { replayed, .. } if replayed == (value == 1)));
        }
        assert_eq!(stage.stored(ids[1]).await?.map(|row| row[3].clone()), Some(Value::Int(1)));
    }
    stage.assert_at_rest(1).await?;
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_without_the_right_to_act_writes_nothing() -> anyhow::Result<()> {
    let stage = Stage::new("sweepright").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    stage.base(&[row(1, 0, None, 0)]).await?;
    // A write that is not done.
    let abandoned = first.write(1, request(), |present| {
        first.lapse();
        increment(present)
    });
    assert!(matches!(abandoned.await, Err(NativeWriteError::OutcomeUnknown { .. })));
    let refused = second.writes.sweep(&|| false).await;
    assert!(matches!(refused, Err(NativeWriteError::MayNotAct)), "{refused:?}");
    assert_eq!(stage.guards(1).await?[&1].done, None);
    assert_eq!((stage.stored(1).await?, stage.log().await?.len()), (Some(row(1, 0, None, 0)), 0));
    assert_eq!(second.writes.sweep(&|| true).await?.completed, 1);
    stage.assert_at_rest(1).await?;
    stage.drop().await
}

/// Writers that stop at random, batches among them, and sweeps at the same time. Each request is repeated until it is
/// answered.
#[tokio::test(flavor = "multi_thread")]
async fn sweeps_beside_stopping_writers_lose_and_double_nothing() -> anyhow::Result<()> {
    const REQUESTS: usize = 10;
    let stage = Stage::new("sweeplive").await?;
    stage.base(&(0..3).map(|id| row(id, 0, None, 0)).collect::<Vec<_>>()).await?;
    let gateways = [Arc::new(stage.gateway(1).await?), Arc::new(stage.gateway(1).await?)];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_usize {
        let gateways = gateways.clone();
        writers.spawn(async move {
            for number in 0..REQUESTS {
                let nonce = Nonce(rand::random());
                let ids = [(writer + number) as i64 % 3, (writer + number + 1) as i64 % 3];
                let mut attempt = 0;
                loop {
                    let gateway = &gateways[(writer + attempt) % 2];
                    attempt += 1;
                    // At first it stops soon. In the end it does not.
                    let waits = if attempt < 3 { rand::random_range(1..60) } else { usize::MAX };
                    let seconds = if attempt < 3 { 2 } else { 60 };
                    let request = Request { nonce, deadline: Instant::now() + Duration::from_secs(seconds) };
                    let outcome = if number % 2 == 0 {
                        stopped_after(waits, gateway.write(ids[0], request, increment)).await
                    } else {
                        stopped_after(waits, gateway.batch(&ids, request, increment_each)).await
                    };
                    match outcome {
                        Some(Ok(Outcome::Written { .. })) => break,
                        Some(Ok(refused)) => panic!("{refused:?}"),
                        Some(Err(error)) => assert!(attempt < 3, "{error}"),
                        None => {}
                    }
                }
            }
        });
    }
    while !writers.is_empty() {
        gateways[0].writes.sweep(&|| true).await?;
        while let Some(writer) = writers.try_join_next() {
            writer?;
        }
    }
    gateways[1].writes.sweep(&|| true).await?;
    stage.assert_at_rest(1).await?;
    let mut total = 0;
    for id in 0..3 {
        total += n_of(&stage.stored(id).await?.unwrap());
    }
    assert_eq!(total as usize, 4 * REQUESTS / 2 * 3);
    stage.drop().await
}
