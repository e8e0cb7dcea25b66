//! Writers that stop, answers that are lost, and leases that lapse.

use std::collections::BTreeSet;

use tandem_model::Nonce;
use tandem_native_writes::{NativeWriteError, Outcome};

use super::stage::{Stage, again, increment, n_of, request, row, stopped_after};
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
