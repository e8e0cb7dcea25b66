//! Guards, marks and answers in Cassandra.

use std::sync::Arc;

use tandem_cassandra::{Cells, Conditional, Freshness, RowScan, Swap, Target, TokenRange};
use tandem_model::{Cell, Epoch, Mutation, Nonce, Row, TargetKey, TargetTable, Version, Write};
use tandem_protocol::cutover::guard::{Accepted, Guard, Tentative};
use tandem_wire::control::{
    AcceptedWrite, GuardRecord, StaleKey, TentativeWrite, decode_control, encode_control,
};
use tandem_wire::{Image, Images};

use crate::error::NativeWriteError;
use crate::key::GuardKey;
use crate::tables::{self, NativeTable, Tables};

/// The largest guard. Cassandra writes one twice for a CAS, and refuses a mutation of more than half a segment of its commit
/// log: 16 MiB by default.
const MAX_BYTES: usize = 4 << 20;

/// The tables of one epoch, and the answers.
#[derive(Clone)]
pub(crate) struct Guards {
    target: Target,
    rows: Conditional,
    done: Arc<str>,
    answers: Arc<str>,
}

/// What a request was answered with, in the epoch in which it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
}

impl Guards {
    /// Prepares the statements.
    pub(crate) async fn open(target: &Target, epoch: Epoch) -> Result<Self, NativeWriteError> {
        let (done, answers) = (tables::done(epoch), tables::answers());
        let rows = target.conditional(&tables::guards(epoch)).await?;
        let name = |table: &TargetTable| table.name.as_str().into();
        let (done_name, answers_name) = (name(&done), name(&answers));
        target.prepare(&[done, answers]).await?;
        Ok(Self { target: target.clone(), rows, done: done_name, answers: answers_name })
    }

    /// Reads a guard.
    pub(crate) async fn read(
        &self,
        table: &NativeTable,
        key: &GuardKey,
        freshness: Freshness,
    ) -> Result<Option<Guard>, NativeWriteError> {
        let cells = self.rows.read(&key.to_cql(), freshness).await?;
        cells.map(|cells| decode(table, key, &cells)).transpose()
    }

    /// Sets a guard if its nonce is still `expected`.
    pub(crate) async fn swap(
        &self,
        table: &NativeTable,
        key: &GuardKey,
        expected: Option<Nonce>,
        guard: &Guard,
    ) -> Result<Swap, NativeWriteError> {
        let expected = expected.map(|nonce| nonce.0.to_be_bytes());
        let expected = expected.as_ref().map(<[u8; 16]>::as_slice);
        let cells = encode(table, guard)?;
        let bytes: usize = cells.iter().flatten().map(Vec::len).sum();
        if bytes > MAX_BYTES {
            return Err(NativeWriteError::TooLarge { table: table.name.clone(), bytes, limit: MAX_BYTES });
        }
        Ok(self.rows.swap(&key.to_cql(), expected, &cells).await?)
    }

    /// Starts a scan of the guards in a part of the token ring.
    pub(crate) fn scan(&self, part: TokenRange) -> GuardScan {
        GuardScan(self.rows.scan(part))
    }

    /// The newest version of each of these guards that is done.
    pub(crate) async fn done(&self, keys: &[GuardKey]) -> Result<Vec<Option<Version>>, NativeWriteError> {
        let keys: Vec<TargetKey> = keys.iter().map(GuardKey::to_cql).collect();
        let rows = self.target.read(&self.done, &keys).await?;
        let version = |cells: &Cells| cells.first().cloned().flatten().and_then(|bytes| long(&bytes));
        Ok(rows.into_iter().map(|row| row.and_then(|row| version(&row.cells)).map(Version)).collect())
    }

    /// The write that marks a version as done.
    pub(crate) fn mark(&self, key: &GuardKey, version: Version) -> Mutation {
        let cells = vec![Cell::Value(version.0.to_be_bytes().to_vec())];
        let target = Arc::clone(&self.done);
        Mutation { target, key: key.to_cql(), version, write: Write::Upsert(cells) }
    }

    /// The answer that is kept for a request.
    pub(crate) async fn answer(&self, request: Nonce) -> Result<Option<Answer>, NativeWriteError> {
        let mut rows = self.target.read(&self.answers, &[request_key(request)]).await?;
        let Some(row) = rows.pop().flatten() else { return Ok(None) };
        let [Some(epoch), Some(version)] = &row.cells[..] else { return Ok(None) };
        let epoch = <[u8; 4]>::try_from(&epoch[..]).map(u32::from_be_bytes);
        Ok(epoch
            .ok()
            .zip(long(version))
            .map(|(epoch, version)| Answer { epoch: Epoch(epoch), version: Version(version) }))
    }

    /// The write that keeps a request's answer.
    pub(crate) fn keep_answer(&self, request: Nonce, answer: Answer) -> Mutation {
        let epoch = Cell::Value(answer.epoch.0.to_be_bytes().to_vec());
        let version = Cell::Value(answer.version.0.to_be_bytes().to_vec());
        Mutation {
            target: Arc::clone(&self.answers),
            key: request_key(request),
            version: answer.version,
            write: Write::Upsert(vec![epoch, version]),
        }
    }
}

/// A scan of guards.
pub(crate) struct GuardScan(RowScan);

impl GuardScan {
    /// The next page of guards, which may be empty; `None` at the end.
    pub(crate) async fn next_page(
        &mut self,
        tables: &Tables,
    ) -> Result<Option<Vec<(GuardKey, Guard)>>, NativeWriteError> {
        let Some(page) = self.0.next_page().await? else { return Ok(None) };
        let guards = page.into_iter().map(|(key, cells)| {
            let unknown = || NativeWriteError::Guard {
                key: "a row".to_owned(),
                cause: "its key is not that of a guard".to_owned(),
            };
            let key = GuardKey::of_cql(key).ok_or_else(unknown)?;
            let guard = decode(tables.get(&key.table)?, &key, &cells)?;
            Ok((key, guard))
        });
        guards.collect::<Result<_, _>>().map(Some)
    }
}

fn request_key(request: Nonce) -> TargetKey {
    vec![request.0.to_be_bytes().to_vec()]
}

fn long(bytes: &[u8]) -> Option<i64> {
    <[u8; 8]>::try_from(bytes).ok().map(i64::from_be_bytes)
}

/// The cells of a guard, in the order of its table.
fn encode(table: &NativeTable, guard: &Guard) -> Result<Cells, NativeWriteError> {
    let source = table.plan.source();
    let image = |row: Option<&Row>| -> Result<Option<Vec<u8>>, NativeWriteError> {
        let Some(row) = row else { return Ok(None) };
        let mut images = Images::default();
        images.push(source, row)?;
        Ok(images.iter().next().map(|image| image.row.to_vec()))
    };
    let stale = |keys: &[(usize, TargetKey)]| -> Vec<StaleKey> {
        let target = |number: usize| table.plan.targets()[number].table().name.clone();
        keys.iter().map(|(number, key)| StaleKey { target: target(*number), key: key.clone() }).collect()
    };
    let accepted = guard.recent.iter();
    let tentative = guard.tentative.as_ref().map(|tentative| -> Result<_, NativeWriteError> {
        Ok(TentativeWrite {
            batch: tentative.batch.0.to_be_bytes().to_vec(),
            request: tentative.request.0.to_be_bytes().to_vec(),
            image: image(tentative.image.as_ref())?,
            stale: stale(&tentative.stale),
        })
    });
    let record = GuardRecord {
        version: guard.version.0,
        schema_id: i64::from(table.topic.schema().value_id()),
        before: image(guard.before.as_ref())?,
        image: image(guard.image.as_ref())?,
        stale: stale(&guard.stale),
        recent: accepted
            .map(|a| AcceptedWrite { request: a.nonce.0.to_be_bytes().to_vec(), version: a.version.0 })
            .collect(),
        tentative: tentative.transpose()?,
    };
    Ok(vec![
        Some(guard.nonce.0.to_be_bytes().to_vec()),
        Some(guard.version.0.to_be_bytes().to_vec()),
        Some(encode_control(&record)?),
    ])
}

/// Reads a guard out of its cells.
fn decode(table: &NativeTable, key: &GuardKey, cells: &Cells) -> Result<Guard, NativeWriteError> {
    let unreadable = |cause: &str| NativeWriteError::Guard { key: key.to_string(), cause: cause.to_owned() };
    let [Some(nonce), Some(_), Some(record)] = &cells[..] else {
        return Err(unreadable("it lacks a column"));
    };
    let nonce_of = |bytes: &[u8]| -> Result<Nonce, NativeWriteError> {
        let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| unreadable("a nonce has another length"))?;
        Ok(Nonce(u128::from_be_bytes(bytes)))
    };
    let record: GuardRecord = decode_control(record)?;
    if record.schema_id != i64::from(table.topic.schema().value_id()) {
        return Err(unreadable("its row was written under another definition of the table"));
    }
    let source = table.plan.source();
    let row = |bytes: Option<Vec<u8>>| -> Result<Option<Row>, NativeWriteError> {
        let row = bytes.map(|bytes| Image { key: &[], row: &bytes }.decode(source)).transpose();
        row.map_err(|e| unreadable(&e.to_string()))
    };
    let stale = |keys: Vec<StaleKey>| -> Result<Vec<(usize, TargetKey)>, NativeWriteError> {
        let number = |name: &str| table.plan.targets().iter().position(|target| target.table().name == name);
        let keys = keys.into_iter().map(|stale| Some((number(&stale.target)?, stale.key)));
        keys.collect::<Option<_>>().ok_or_else(|| unreadable("it names a target that is not mapped here"))
    };
    let tentative = record.tentative.map(|tentative| -> Result<_, NativeWriteError> {
        Ok(Tentative {
            batch: nonce_of(&tentative.batch)?,
            request: nonce_of(&tentative.request)?,
            image: row(tentative.image)?,
            stale: stale(tentative.stale)?,
        })
    });
    let accepted = record.recent.iter().map(|accepted| {
        Ok(Accepted { nonce: nonce_of(&accepted.request)?, version: Version(accepted.version) })
    });
    Ok(Guard {
        version: Version(record.version),
        nonce: nonce_of(nonce)?,
        recent: accepted.collect::<Result<_, NativeWriteError>>()?,
        before: row(record.before)?,
        image: row(record.image)?,
        stale: stale(record.stale)?,
        tentative: tentative.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_mapping::{TablePlan, TargetConfig, same_shape};
    use tandem_model::{ColumnDef, TableDef, TableName, Value};
    use tandem_wire::TableSchema;
    use tandem_wire::log::ChangeTopic;

    /// A table `(id, note)` in two targets, with or without the second one, and with a type of its note.
    fn table(targets: usize, note: &str) -> NativeTable {
        let column = |name: &str, ty: &str, nullable| ColumnDef {
            name: name.into(),
            ty: ty.parse().unwrap(),
            nullable,
        };
        let source = Arc::new(TableDef {
            name: TableName::new("shop", "orders"),
            columns: vec![column("id", "int", false), column("note", note, true)],
            primary_key: vec![0],
        });
        let mut config = same_shape(&source);
        config.target.push(TargetConfig { table: "copy".into(), ..config.target[0].clone() });
        config.target.truncate(targets);
        let plan = Arc::new(TablePlan::compile(&config, &source).unwrap());
        let schema = Arc::new(TableSchema::new(source, "p"));
        NativeTable::new(plan, ChangeTopic::new("p.changes", 1, schema)).unwrap()
    }

    fn guard() -> Guard {
        let row = |note: Option<&str>| {
            vec![Value::Int(1), note.map_or(Value::Null, |note| Value::Text(note.into()))]
        };
        let stale = |target: usize| vec![(target, vec![vec![0, 0, 0, 1]])];
        Guard {
            version: Version(5),
            nonce: Nonce(u128::MAX),
            recent: [4, 5].map(|v| Accepted { nonce: Nonce(v as u128), version: Version(v) }).to_vec(),
            before: Some(row(None)),
            image: Some(row(Some("é"))),
            stale: stale(1),
            tentative: Some(Tentative { batch: Nonce(1), request: Nonce(2), image: None, stale: stale(0) }),
        }
    }

    #[test]
    fn a_guard_is_read_as_it_was_written() {
        let table = table(2, "varchar(9)");
        let key = table.guard_key(&[Value::Int(1)]).unwrap();
        assert_eq!(GuardKey::of_cql(key.to_cql()), Some(key.clone()));
        let tentative = guard();
        let image = tentative.image.clone();
        let absent = Guard { image: None, before: None, stale: Vec::new(), tentative: None, ..guard() };
        let held = Tentative { image, ..tentative.tentative.clone().unwrap() };
        for guard in [tentative.clone(), absent, Guard { tentative: Some(held), ..tentative }] {
            assert_eq!(decode(&table, &key, &encode(&table, &guard).unwrap()).unwrap(), guard);
        }
    }

    #[test]
    fn a_guard_of_another_definition_or_with_an_unknown_target_is_refused() {
        let written = table(2, "varchar(9)");
        let key = written.guard_key(&[Value::Int(1)]).unwrap();
        let cells = encode(&written, &guard()).unwrap();
        for other in [table(2, "varbinary(9)"), table(1, "varchar(9)")] {
            let refused = decode(&other, &key, &cells).unwrap_err();
            assert!(matches!(refused, NativeWriteError::Guard { .. }), "{refused}");
            assert!(!refused.to_string().contains('é'), "errors hold no values");
        }
    }
}
