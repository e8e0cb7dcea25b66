//! Writes of single rows without faults: what each operation leaves, and many writers at once.

use std::sync::Arc;

use tandem_model::{Nonce, Op, Row, Value};
use tandem_native_writes::{Decision, NativeWriteError, Outcome, Token};

use super::stage::{FLOOR, Stage, again, increment, n_of, request, row};

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_leaves_its_row_in_the_guard_the_targets_and_the_log() -> anyhow::Result<()> {
    let stage = Stage::new("operations").await?;
    let gateway = stage.gateway(1).await?;
    stage.base(&[row(1, 1, Some("old"), 7)]).await?;
    // A row of before the switch: moved to another `k`, its text is NULL now.
    gateway.put(1, Some(row(1, 2, None, 8))).await?;
    // An insert, a patch, a delete, and an insert again.
    let insert = |present: Option<&Row>| match present {
        None => Decision::Become(Some(row(2, 1, Some("new"), 0))),
        Some(_) => Decision::Refuse("exists"),
    };
    let inserted = gateway.write(2, request(), insert).await?;
    assert!(matches!(inserted, Outcome::Written { replayed: false, .. }), "{inserted:?}");
    assert_eq!(gateway.write(2, request(), insert).await?, Outcome::Refused("exists"));
    gateway.write(2, request(), increment).await?;
    gateway.put(2, None).await?;
    assert_eq!(gateway.write(2, request(), increment).await?, Outcome::Refused("absent"));
    gateway.write(2, request(), insert).await?;
    // A row that never was.
    assert_eq!(gateway.write(3, request(), increment).await?, Outcome::Refused("absent"));

    stage.assert_at_rest(1).await?;
    assert_eq!(stage.stored(1).await?, Some(row(1, 2, None, 8)));
    let ops = |changes: Vec<tandem_model::Change>| changes.into_iter().map(|c| c.op).collect::<Vec<_>>();
    let first = stage.log_of(1).await?;
    assert_eq!(first[0].before, Some(row(1, 1, Some("old"), 7)));
    assert!(first[0].version >= FLOOR);
    assert_eq!(ops(first), [Op::Update]);
    assert_eq!(ops(stage.log_of(2).await?), [Op::Create, Op::Update, Op::Delete, Op::Create]);
    assert!(!stage.guards(1).await?.contains_key(&3));

    // What cannot be written is refused before anything happens.
    let moved = gateway.write(1, request(), |_| Decision::<()>::Become(Some(row(9, 1, None, 0)))).await;
    assert!(matches!(moved, Err(NativeWriteError::KeyChanged { .. })), "{moved:?}");
    let unfit = |_: Option<&Row>| Decision::<()>::Become(Some(vec![Value::Int(1), Value::Null]));
    assert!(matches!(gateway.write(1, request(), unfit).await, Err(NativeWriteError::Row(_))));
    let large = row(1, 1, Some(&"x".repeat(5 << 20)), 0);
    let large = gateway.write(1, request(), |_| Decision::<()>::Become(Some(large.clone()))).await;
    assert!(matches!(large, Err(NativeWriteError::TooLarge { .. })), "{large:?}");
    stage.assert_at_rest(1).await?;
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_increments_are_neither_lost_nor_doubled() -> anyhow::Result<()> {
    const WRITERS: i64 = 6;
    const EACH: i64 = 8;
    let stage = Stage::new("increments").await?;
    stage.base(&[row(1, 0, None, 0), row(2, 0, None, 0)]).await?;
    let gateways = [Arc::new(stage.gateway(1).await?), Arc::new(stage.gateway(1).await?)];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let [here, there] = gateways.clone();
        writers.spawn(async move {
            let (here, there) = if writer % 2 == 0 { (here, there) } else { (there, here) };
            for number in 0..EACH {
                let nonce = Nonce(rand::random());
                let id = 1 + number % 2;
                let write = here.write(id, again(nonce), increment);
                if number % 4 < 2 {
                    // The client is impatient: the same request runs on both gateways at once.
                    let (first, second) = tokio::join!(write, there.write(id, again(nonce), increment));
                    let tokens = [first, second].map(|outcome| token(&outcome.unwrap()));
                    assert_eq!(tokens[0], tokens[1], "one request, one write");
                } else {
                    token(&write.await.unwrap());
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer?;
    }
    stage.assert_at_rest(1).await?;
    stage.replay().await?;
    stage.assert_at_rest(1).await?;
    for id in [1, 2] {
        let n = n_of(&stage.stored(id).await?.expect("the row stays"));
        assert_eq!(n, WRITERS * EACH / 2);
        // Each step is on the log, from its predecessor: no other write came between.
        let mut steps = stage.log_of(id).await?;
        steps.sort_by_key(|change| change.version);
        steps.dedup();
        assert_eq!(steps.len() as i64, n);
        for (step, change) in steps.iter().enumerate() {
            let ns = [&change.before, &change.after].map(|row| n_of(row.as_ref().unwrap()));
            assert_eq!(ns, [step as i64, step as i64 + 1]);
        }
    }
    stage.drop().await
}

fn token(outcome: &Outcome<&'static str>) -> Token {
    match outcome {
        Outcome::Written { token, .. } => *token,
        Outcome::Refused(reason) => panic!("refused: {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_with_its_first_token_in_its_epoch_and_in_the_next() -> anyhow::Result<()> {
    let stage = Stage::new("retries").await?;
    stage.base(&[row(1, 0, None, 0)]).await?;
    let gateway = stage.gateway(1).await?;
    let nonce = Nonce(rand::random());
    let first = token(&gateway.write(1, again(nonce), increment).await?);
    gateway.write(1, request(), increment).await?;
    let replayed = Outcome::Written { token: first, replayed: true };
    assert_eq!(gateway.write(1, again(nonce), increment).await?, replayed);
    assert_eq!(first.to_string(), format!("1:{}", first.version));
    // Cassandra decides again: other guards, the same answers.
    let later = stage.gateway(3).await?;
    assert_eq!(later.write(1, again(nonce), increment).await?, replayed);
    let own = token(&later.write(1, request(), increment).await?);
    assert_eq!(own.epoch.0, 3);
    assert_eq!(n_of(&stage.stored(1).await?.unwrap()), 3);
    stage.drop().await
}
