//! Writers that stop, answers that are lost, and leases that lapse.

use std::collections::BTreeSet;
use std::pin::pin;

use tandem_model::{Nonce, Row};
use tandem_native_writes::{Decision, NativeWriteError, Outcome};

use super::stage::{Stage, again, increment, n_of, paused_after, request, row, stopped_after};
use crate::support::{Link, nodes};

/// A writer stops at each of its waits in turn, as a gateway does that is killed. The next writer of the row completes what
/// it finds, and a retry of the request finds out whether it has happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stops_anywhere_is_completed_by_the_next() -> anyhow::Result<()> {
    let stage = Stage::new("stops").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    let mut seen = BTreeSet::new();
    for waits in 1.. {
        let id = waits as i64;
        stage.base(&[row(id, 0, Some("old"), 0)]).await?;
        let nonce = Nonce(rand::random());
        let outcome = stopped_after(waits, first.write(id, again(nonce), increment)).await;
        let guard = stage.guards(1).await?.remove(&id);
        seen.insert(guard.as_ref().map(|guard| guard.done.is_some()));
        // The next writer, with a request of its own.
        second.write(id, request(), increment).await?;
        let before_retry = n_of(&stage.stored(id).await?.unwrap());
        let retried = second.write(id, again(nonce), increment).await?;
        let replayed = matches!(retried, Outcome::Written { replayed: true, .. });
        assert_eq!(before_retry, if replayed { 2 } else { 1 }, "after {waits} waits: {retried:?}");
        assert!(replayed || guard.is_none(), "after {waits} waits: {guard:?} {retried:?}");
        let mut steps = stage.log_of(id).await?;
        steps.sort_by_key(|change| change.version);
        steps.dedup();
        let ns: Vec<i64> = steps.iter().map(|change| n_of(change.after.as_ref().unwrap())).collect();
        assert_eq!(ns, [1, 2], "after {waits} waits");
        if outcome.is_some() {
            break;
        }
    }
    stage.assert_at_rest(1).await?;
    stage.replay().await?;
    stage.assert_at_rest(1).await?;
    // It stopped before its CAS, between CAS and mark, and after both.
    assert_eq!(seen, BTreeSet::from([None, Some(false), Some(true)]));
    stage.drop().await
}

/// Cassandra decides each CAS and its answer is lost. The write happens once.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_cas_is_settled_by_a_serial_read() -> anyhow::Result<()> {
    const WRITES: i64 = 12;
    let stage = Stage::new("lost").await?;
    stage.base(&[row(1, 0, None, 0)]).await?;
    let link = Link::to(&nodes()[0]).await?;
    let gateway = stage.gateway_over(1, vec![link.address.clone()]).await?;
    for n in 1..=WRITES {
        link.cut(b"[applied]");
        let outcome = gateway.write(1, request(), increment).await?;
        assert!(!link.is_to_cut(), "the answer was not lost");
        assert!(matches!(outcome, Outcome::Written { replayed: false, .. }), "{outcome:?}");
        assert_eq!(n_of(&stage.stored(1).await?.unwrap()), n);
    }
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.log_of(1).await?.len() as i64, WRITES);
    stage.drop().await
}

/// The request with a CAS is lost on its way. The writer sends the same CAS again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cas_that_is_lost_on_its_way_is_sent_again() -> anyhow::Result<()> {
    const WRITES: i64 = 6;
    let stage = Stage::new("unsent").await?;
    stage.base(&[row(1, 0, None, 0)]).await?;
    let link = Link::to(&nodes()[0]).await?;
    let gateway = stage.gateway_over(1, vec![link.address.clone()]).await?;
    for n in 1..=WRITES {
        let nonce = Nonce(rand::random());
        // The first message with the nonce asks for its answer. The second is the CAS.
        link.lose_nth(&nonce.0.to_be_bytes(), 2);
        let outcome = gateway.write(1, again(nonce), increment).await?;
        assert!(!link.is_to_lose(), "the CAS was not lost");
        assert!(matches!(outcome, Outcome::Written { replayed: false, .. }), "{outcome:?}");
        assert_eq!(n_of(&stage.stored(1).await?.unwrap()), n);
    }
    stage.assert_at_rest(1).await?;
    assert_eq!(stage.log_of(1).await?.len() as i64, WRITES);
    stage.drop().await
}

/// One writer pauses at each of its waits, another one stops at each of its own meanwhile. What the first one is refused
/// by is complete: a client that is told that the row exists finds it in every target.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_rests_on_a_complete_write() -> anyhow::Result<()> {
    let stage = Stage::new("refusals").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    let insert = |id: i64| {
        move |present: Option<&Row>| match present {
            None => Decision::Become(Some(row(id, 1, Some("new"), 0))),
            Some(_) => Decision::Refuse("exists"),
        }
    };
    let (mut id, mut refused) = (0, 0);
    'pauses: for pause in 1.. {
        for stop in 1.. {
            id += 1;
            let mut insert_again = pin!(second.write(id, request(), insert(id)));
            let early = paused_after(pause, insert_again.as_mut()).await;
            let stopped = stopped_after(stop, first.write(id, request(), insert(id))).await;
            let outcome = match early {
                Some(early) => early?,
                None => insert_again.await?,
            };
            if outcome == Outcome::Refused("exists") {
                refused += 1;
                let guard = stage.guards(1).await?.remove(&id);
                assert!(
                    guard.as_ref().is_some_and(|guard| guard.done == Some(guard.version)),
                    "paused after {pause} waits, the other one stopped after {stop}: {guard:?}"
                );
            }
            if matches!(outcome, Outcome::Written { .. }) && stopped.is_some() {
                break 'pauses;
            }
            if stopped.is_some() {
                break;
            }
        }
    }
    assert!(refused > 0);
    stage.drop().await
}

/// A retry meets the CAS of its earlier attempt and may not complete it. It does not say that nothing has happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_has_met_its_earlier_attempt_has_an_unknown_outcome() -> anyhow::Result<()> {
    let stage = Stage::new("met").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    stage.base(&[row(1, 0, None, 0)]).await?;
    let nonce = Nonce(rand::random());
    let abandoned = first.write(1, again(nonce), |present| {
        first.lapse();
        increment(present)
    });
    assert!(matches!(abandoned.await, Err(NativeWriteError::OutcomeUnknown { .. })));
    let mut retry = pin!(second.write(1, again(nonce), increment));
    assert!(paused_after(1, retry.as_mut()).await.is_none());
    second.lapse();
    let outcome = retry.await;
    assert!(matches!(outcome, Err(NativeWriteError::OutcomeUnknown { .. })), "{outcome:?}");
    second.renew();
    let outcome = second.write(1, again(nonce), increment).await?;
    assert!(matches!(outcome, Outcome::Written { replayed: true, .. }), "{outcome:?}");
    stage.assert_at_rest(1).await?;
    stage.drop().await
}

/// The lease lapses between the CAS and the effects. The write is abandoned, even if the lease is renewed at once: the
/// next writer completes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_lived_through_a_lapse_makes_no_effects() -> anyhow::Result<()> {
    let stage = Stage::new("lapse").await?;
    let (first, second) = (stage.gateway(1).await?, stage.gateway(1).await?);
    for (id, renewed) in [(1, false), (2, true)] {
        stage.base(&[row(id, 0, None, 0)]).await?;
        let nonce = Nonce(rand::random());
        let outcome = first.write(id, again(nonce), |present| {
            first.lapse();
            if renewed {
                first.renew();
            }
            increment(present)
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, Err(NativeWriteError::OutcomeUnknown { .. })), "{outcome:?}");
        let guard = stage.guards(1).await?.remove(&id).unwrap();
        assert_eq!((n_of(guard.image.as_ref().unwrap()), guard.done), (1, None));
        assert_eq!((stage.stored(id).await?, stage.log_of(id).await?.len()), (Some(row(id, 0, None, 0)), 0));
        if !renewed {
            let refused = first.write(id, request(), increment).await;
            assert!(matches!(refused, Err(NativeWriteError::MayNotAct)), "{refused:?}");
            first.renew();
        }
        second.write(id, request(), increment).await?;
        assert_eq!(n_of(&stage.stored(id).await?.unwrap()), 2);
        let retried = first.write(id, again(nonce), increment).await?;
        assert!(matches!(retried, Outcome::Written { replayed: true, .. }), "{retried:?}");
    }
    stage.assert_at_rest(1).await?;
    stage.drop().await
}
