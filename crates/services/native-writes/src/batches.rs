//! The rows of batches in Cassandra.

use tandem_cassandra::{Cells, Conditional, Freshness, RowScan, Swap, Target, TokenRange};
use tandem_model::{Epoch, Nonce, TargetKey, Version};
use tandem_protocol::cutover::batch::Outcome;
use tandem_wire::control::{BatchRow, NativeBatch, decode_control, encode_control};

use crate::error::NativeWriteError;
use crate::key::GuardKey;
use crate::tables;

const PENDING: &[u8] = b"pending";
const COMMITTED: &[u8] = b"committed";
const ABORTED: &[u8] = b"aborted";

/// The batches of one epoch. A CAS compares the state.
#[derive(Clone)]
pub(crate) struct Batches(Conditional);

/// A batch, as its row says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    pub(crate) outcome: Outcome,
    pub(crate) deadline_us: i64,
    /// Its rows, in the order of their keys.
    pub(crate) rows: Vec<GuardKey>,
}

impl Batches {
    /// Prepares the statements.
    pub(crate) async fn open(target: &Target, epoch: Epoch) -> Result<Self, NativeWriteError> {
        Ok(Self(target.conditional(&tables::batches(epoch)).await?))
    }

    /// Writes the row of a new batch.
    pub(crate) async fn begin(&self, id: Nonce, batch: &Batch) -> Result<Swap, NativeWriteError> {
        Ok(self.0.swap(&key(id), None, &encode(batch)?).await?)
    }

    /// Decides a batch, if it is still pending.
    pub(crate) async fn decide(
        &self,
        id: Nonce,
        batch: &Batch,
        outcome: Outcome,
    ) -> Result<Swap, NativeWriteError> {
        let decided = encode(&Batch { outcome, ..batch.clone() })?;
        Ok(self.0.swap(&key(id), Some(PENDING), &decided).await?)
    }

    /// Reads a batch, and brings about the outcome of each CAS on its row that is under way.
    pub(crate) async fn read(&self, id: Nonce) -> Result<Option<Batch>, NativeWriteError> {
        self.0.read(&key(id), Freshness::Serial).await?.map(|cells| decode(&cells)).transpose()
    }

    /// Removes the row of a settled batch that no guard names any more.
    pub(crate) async fn remove(&self, id: Nonce, outcome: Outcome) -> Result<Swap, NativeWriteError> {
        Ok(self.0.remove(&key(id), state(outcome)).await?)
    }

    /// Starts a scan of all batches.
    pub(crate) fn scan(&self) -> BatchScan {
        BatchScan(self.0.scan(TokenRange::WHOLE))
    }
}

/// A scan of batches.
pub(crate) struct BatchScan(RowScan);

impl BatchScan {
    /// The next page of batches; `None` at the end.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Nonce>>, NativeWriteError> {
        let Some(page) = self.0.next_page().await? else { return Ok(None) };
        page.into_iter()
            .map(|(key, _)| {
                let id = key.first().and_then(|id| <[u8; 16]>::try_from(&id[..]).ok());
                id.map(|id| Nonce(u128::from_be_bytes(id)))
                    .ok_or_else(|| unreadable("its id has another length"))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

fn key(id: Nonce) -> TargetKey {
    vec![id.0.to_be_bytes().to_vec()]
}

fn state(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Pending { .. } => PENDING,
        Outcome::Committed(_) => COMMITTED,
        Outcome::Aborted => ABORTED,
    }
}

fn unreadable(cause: &str) -> NativeWriteError {
    NativeWriteError::Guard { key: "a batch".to_owned(), cause: cause.to_owned() }
}

fn encode(batch: &Batch) -> Result<Cells, NativeWriteError> {
    let version = match batch.outcome {
        Outcome::Committed(version) => Some(version.0),
        Outcome::Pending { .. } | Outcome::Aborted => None,
    };
    let rows = batch.rows.iter().map(|row| BatchRow { table: row.table.clone(), key: row.key.clone() });
    let record = NativeBatch { deadline_us: batch.deadline_us, version, rows: rows.collect() };
    Ok(vec![Some(state(batch.outcome).to_vec()), Some(encode_control(&record)?)])
}

fn decode(cells: &Cells) -> Result<Batch, NativeWriteError> {
    let [Some(state), Some(record)] = &cells[..] else { return Err(unreadable("it lacks a column")) };
    let record: NativeBatch = decode_control(record)?;
    let outcome = match (&state[..], record.version) {
        (PENDING, _) => Outcome::Pending { deadline_us: record.deadline_us },
        (COMMITTED, Some(version)) => Outcome::Committed(Version(version)),
        (ABORTED, _) => Outcome::Aborted,
        _ => return Err(unreadable("its state is unknown")),
    };
    let rows = record.rows.into_iter().map(|row| GuardKey { table: row.table, key: row.key }).collect();
    Ok(Batch { outcome, deadline_us: record.deadline_us, rows })
}
