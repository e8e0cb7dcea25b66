//! Writes states.

use std::time::Duration;

use tandem_kafka::{GroupOffsets, KafkaConfig, PublishError, TransactionalPublisher};
use tandem_model::{Disposition, TableName};
use tandem_protocol::table_state::{self, Changes, Offsets, TableFault};
use tandem_runtime::{Backoff, now_us};
use tandem_wire::control::TableState;
use tokio::sync::Mutex;

use crate::error::TableStatesError;
use crate::states::{States, read_states};

/// The pauses between two attempts of writers that fence each other. They grow beyond the length of an attempt, so that one
/// of the writers gets through.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(15));

/// The writers of one process take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Halts a table. Returns its new state, or nothing if the table has halted already.
///
/// The offsets of apply's group are asked for first: what is skipped later lies at or above them.
///
/// # Errors
/// Kafka cannot be read or written.
pub async fn halt(
    kafka: &KafkaConfig,
    table: &TableName,
    fault: &TableFault,
) -> Result<Option<TableState>, TableStatesError> {
    let committed =
        if fault.changes == Changes::Wait { committed(kafka, table).await? } else { Offsets::new() };
    change(kafka, |states| {
        Ok::<_, TableStatesError>(table_state::halt(states.get(table), table, fault, &committed, now_us()))
    })
    .await
}

/// The offsets that apply's group has committed on the table's topics. Where it has none, everything is still to be applied.
async fn committed(kafka: &KafkaConfig, table: &TableName) -> Result<Offsets, TableStatesError> {
    let topics = kafka.topics();
    let names = topics.of_tables([table]);
    let group = GroupOffsets::new(kafka, &topics.apply_group())?;
    let mut committed: Vec<_> = group.committed(&names).await?.into_iter().collect();
    committed.sort();
    let mut offsets = Offsets::new();
    for ((topic, _), offset) in committed {
        offsets.entry(topic).or_default().push(offset.unwrap_or(0));
    }
    Ok(offsets)
}

/// Changes the state of a table. `decide` gets the newest states and returns the next one of a table, or nothing. It is
/// called again if another writer came between. Returns what was written.
///
/// One writer changes a state at a time: it takes over a transactional id, which fences every earlier writer, and reads
/// the states after that. So nothing comes between what `decide` has seen and what is written.
///
/// # Errors
/// `decide` refuses, or Kafka cannot be read or written.
pub async fn change<E: From<TableStatesError>>(
    kafka: &KafkaConfig,
    mut decide: impl FnMut(&States) -> Result<Option<TableState>, E>,
) -> Result<Option<TableState>, E> {
    let topics = kafka.topics();
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let _turn = TURN.lock().await;
    loop {
        // Whoever has nothing to write fences nobody.
        let Some(_) = decide(&read_states(kafka).await?)? else { return Ok(None) };
        match attempt(kafka, &topics.control(), &topics.tables_transactional_id(), &mut decide).await {
            Attempt::Done(outcome) => return outcome,
            Attempt::Again => backoff.pause().await,
        }
    }
}

enum Attempt<E> {
    Done(Result<Option<TableState>, E>),
    /// Nothing was written, mostly because another writer has taken over.
    Again,
}

async fn attempt<E: From<TableStatesError>>(
    kafka: &KafkaConfig,
    topic: &str,
    id: &str,
    decide: &mut impl FnMut(&States) -> Result<Option<TableState>, E>,
) -> Attempt<E> {
    let failed = |error: TableStatesError| Attempt::Done(Err(error.into()));
    let publisher = match TransactionalPublisher::start(kafka, id).await {
        Ok(publisher) => publisher,
        Err(PublishError::Fenced { .. }) => return Attempt::Again,
        Err(error) => return failed(error.into()),
    };
    let states = match read_states(kafka).await {
        Ok(states) => states,
        Err(error) => return failed(error),
    };
    let next = match decide(&states) {
        Ok(Some(next)) => next,
        other => return Attempt::Done(other),
    };
    let record = match next.record(topic) {
        Ok(record) => record,
        Err(error) => return failed(TableStatesError::encode(error)),
    };
    match publisher.publish(vec![record], |_| Ok(Vec::new())).await {
        Ok(_) => {
            tracing::info!(
                table = next.table, state = %next.condition, reason = next.reason, cause = next.cause,
                by = next.by, "the state of a table has changed"
            );
            Attempt::Done(Ok(Some(next)))
        }
        Err(PublishError::Fenced { .. } | PublishError::Aborted { retry: Disposition::Retry, .. }) => {
            Attempt::Again
        }
        Err(error) => failed(error.into()),
    }
}
