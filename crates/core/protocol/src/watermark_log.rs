//! Full and delta records of the watermark topic.
//!
//! A full record has the whole watermark. A delta has only what changed since a full one: added transactions and the
//! offsets of changed topics. A watermark therefore costs what changed, whatever the number of tables, topics and GTID
//! runs.
//!
//! Invariant: a reader that starts at any record of the topic returns each watermark as it was written, or nothing for
//! it. It returns nothing only before the first full record that it reads, or for a delta whose full record compaction
//! has removed. A later full record then follows, because compaction keeps the last one.
//!
//! - Every session of capture begins with a full record. A delta completes a full record of its own session, which is
//!   committed.
//! - Deltas have a key of their own, so that no delta replaces the full record that it completes.

use std::sync::Arc;

use tandem_model::{Disposition, Watermark};
use tandem_wire::control::{WatermarkBase, WatermarkRecord};

/// After so many deltas, a full record follows.
const DELTAS: u32 = 500;

/// A delta with more GTID runs than this must be smaller than half of the full record.
const FEW_RUNS: usize = 64;

/// A full record of the topic.
#[derive(Debug, Clone)]
struct Full {
    offset: i64,
    watermark: Arc<Watermark>,
}

/// The writing side: decides which watermark becomes a full record.
#[derive(Debug, Default)]
pub struct WatermarkWriter {
    full: Option<Full>,
    deltas: u32,
}

impl WatermarkWriter {
    /// The record of the next watermark.
    pub fn record(&self, watermark: &Watermark) -> WatermarkRecord {
        self.delta(watermark).unwrap_or_else(|| WatermarkRecord { base: None, watermark: watermark.clone() })
    }

    /// Notes that a record is committed. `watermark` is the whole watermark, and `offset` that of the record.
    pub fn committed(&mut self, watermark: Watermark, record: &WatermarkRecord, offset: i64) {
        if record.base.is_none() {
            self.full = Some(Full { offset, watermark: Arc::new(watermark) });
            self.deltas = 0;
        } else {
            self.deltas += 1;
        }
    }

    fn delta(&self, watermark: &Watermark) -> Option<WatermarkRecord> {
        let Full { offset, watermark: full } = self.full.as_ref().filter(|_| self.deltas < DELTAS)?;
        let grown = full.tables == watermark.tables
            && full.source == watermark.source
            && full.gtid_set.is_subset(&watermark.gtid_set)
            && full.offsets.keys().all(|topic| watermark.offsets.contains_key(topic));
        if !grown {
            return None;
        }
        let added = watermark.gtid_set.minus(&full.gtid_set);
        if added.run_count() > FEW_RUNS.max(full.gtid_set.run_count() / 2) {
            return None;
        }
        let changed =
            watermark.offsets.iter().filter(|(topic, ends)| full.offsets.get(*topic) != Some(*ends));
        let delta = Watermark {
            source: watermark.source.clone(),
            gtid_set: added,
            position: watermark.position.clone(),
            version: watermark.version,
            tables: Arc::default(),
            offsets: changed.map(|(topic, ends)| (topic.clone(), ends.clone())).collect(),
            partial: watermark.partial.clone(),
            clock_us: watermark.clock_us,
        };
        let base = Some(WatermarkBase { offset: *offset, version: full.version });
        Some(WatermarkRecord { base, watermark: delta })
    }
}

/// A delta completes another record than the one at its full record's offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the watermark at offset {offset} completes the one at offset {}, but another one is there: was the topic written \
     by something else than `capture`?", base.offset
)]
pub struct BaseError {
    /// The offset of the delta.
    pub offset: i64,
    /// The full record that it names.
    pub base: WatermarkBase,
}

impl BaseError {
    /// The topic is damaged.
    pub fn retry(&self) -> Disposition {
        Disposition::Stop
    }
}

/// The reading side: completes deltas.
#[derive(Debug, Clone, Default)]
pub struct WatermarkReader {
    full: Option<Full>,
}

impl WatermarkReader {
    /// The watermark of the next record, whose offset is `offset`. Feed the records in the order of the topic.
    ///
    /// Returns `None` for a delta whose full record was not read. A full record follows it.
    ///
    /// # Errors
    ///
    /// Another record than the delta names is at its full record's offset.
    pub fn complete(
        &mut self,
        offset: i64,
        record: WatermarkRecord,
    ) -> Result<Option<Arc<Watermark>>, BaseError> {
        let WatermarkRecord { base, watermark: delta } = record;
        let Some(base) = base else {
            let watermark = Arc::new(delta);
            self.full = Some(Full { offset, watermark: Arc::clone(&watermark) });
            return Ok(Some(watermark));
        };
        let Some(full) = self.full.as_ref().filter(|full| full.offset >= base.offset) else {
            return Ok(None);
        };
        if (full.offset, full.watermark.version) != (base.offset, base.version) {
            return Err(BaseError { offset, base });
        }
        let full = &full.watermark;
        let (mut gtid_set, mut offsets) = (full.gtid_set.clone(), full.offsets.clone());
        gtid_set.extend(&delta.gtid_set);
        offsets.extend(delta.offsets);
        Ok(Some(Arc::new(Watermark { gtid_set, offsets, tables: Arc::clone(&full.tables), ..delta })))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use tandem_model::{BinlogPosition, CapturedTables, GtidSet, PartialTransaction, TableName, Version};
    use tandem_wire::control::{decode_watermark, encode_watermark};

    use super::*;

    const SERVERS: [&str; 2] =
        ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"];

    fn start() -> Watermark {
        let captured = (0..3).map(|n| (TableName::new("d", format!("t{n}")), "p.changes".into()));
        Watermark {
            source: "s".into(),
            gtid_set: GtidSet::default(),
            position: BinlogPosition::default(),
            version: Version(0),
            tables: Arc::new(CapturedTables { captured: captured.collect(), retired: BTreeSet::new() }),
            offsets: BTreeMap::from([("p.changes".into(), vec![0, 0]), ("p.d.own".into(), vec![0])]),
            partial: None,
            clock_us: 0,
        }
    }

    /// What happens between two watermarks.
    #[derive(Debug, Clone)]
    enum Step {
        /// A transaction of a server is published to a partition.
        Publish { server: usize, number: u64, partition: usize },
        /// Only the clock goes on.
        Idle,
        /// The transaction aborts, and capture goes on in another session.
        Abort,
        /// Capture starts again, perhaps with another table.
        Restart { table: u8 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0usize..2, 1u64..400, 0usize..2).prop_map(|(server, number, partition)| Step::Publish { server, number, partition }),
            2 => Just(Step::Idle),
            1 => Just(Step::Abort),
            1 => (0u8..6).prop_map(|table| Step::Restart { table }),
        ]
    }

    /// Writes the watermarks of these steps. Returns the committed records by offset, with their keys and watermarks.
    fn written(steps: &[Step]) -> Vec<(i64, Vec<u8>, Vec<u8>, Watermark)> {
        let (mut log, mut offset, mut writer, mut last) =
            (Vec::new(), 0, WatermarkWriter::default(), start());
        for step in steps {
            let mut next = Watermark { version: Version(last.version.0 + 1), ..last.clone() };
            match step {
                Step::Publish { server, number, partition } => {
                    let gtid = format!("{}:{number}", SERVERS[*server]).parse().unwrap();
                    next.gtid_set.insert(&gtid);
                    next.partial = (number % 5 == 0).then_some(PartialTransaction { gtid, rows: 3 });
                    next.offsets.get_mut("p.changes").unwrap()[*partition] += 2;
                }
                Step::Idle => next.clock_us += 1,
                Step::Abort => {
                    // The record is never visible, but it has taken an offset.
                    offset += 2;
                    writer = WatermarkWriter::default();
                    continue;
                }
                Step::Restart { table } => {
                    writer = WatermarkWriter::default();
                    let tables = Arc::make_mut(&mut next.tables);
                    tables.captured.insert(TableName::new("d", format!("t{table}")), "p.changes".into());
                }
            }
            let record = writer.record(&next);
            log.push((offset, record.key(), encode_watermark(&record), next.clone()));
            writer.committed(next.clone(), &record, offset);
            // A marker follows each transaction.
            offset += 2;
            last = next;
        }
        log
    }

    proptest! {
        #[test]
        fn readers_return_what_was_written(
            steps in proptest::collection::vec(step(), 1..120),
            compacted in 0usize..120,
            removed in proptest::collection::vec(any::<bool>(), 120),
            from in 0usize..120,
        ) {
            let mut log = written(&steps);
            // Compaction removes any record of the first part if a later one has its key.
            let keys: Vec<Vec<u8>> = log.iter().map(|(_, key, ..)| key.clone()).collect();
            let mut place = 0;
            log.retain(|(_, key, ..)| {
                let here = place;
                place += 1;
                !(here < compacted && removed[here] && keys[here + 1..].contains(key))
            });
            let mut reader = WatermarkReader::default();
            let (mut returned, mut full) = (0, false);
            for (offset, _, bytes, written) in &log[from.min(log.len())..] {
                let record = decode_watermark(bytes).unwrap();
                full |= record.base.is_none();
                match reader.complete(*offset, record).unwrap() {
                    Some(read) => {
                        prop_assert_eq!(&*read, written);
                        returned += 1;
                    }
                    // Nothing is lost behind a full record of what compaction left alone.
                    None => prop_assert!(!full || compacted > 0),
                }
            }
            prop_assert!(returned > 0 || !full);
            // A reader that starts at the full record of the last record returns that one.
            // Without one, every step was an aborted transaction.
            let Some((offset, _, bytes, last)) = log.last() else { return Ok(()) };
            let record = decode_watermark(bytes).unwrap();
            let mut reader = WatermarkReader::default();
            if let Some(base) = record.base {
                let full = log.iter().find(|(offset, ..)| *offset == base.offset).expect("the last full record");
                reader.complete(base.offset, decode_watermark(&full.2).unwrap()).unwrap();
            }
            prop_assert_eq!(&*reader.complete(*offset, record).unwrap().unwrap(), last);
        }
    }

    #[test]
    fn a_delta_costs_what_changed() {
        let mut watermark = start();
        watermark.gtid_set = (1..5000)
            .map(|n| format!("{}:{}", SERVERS[0], n * 2))
            .collect::<Vec<_>>()
            .join(",")
            .parse()
            .unwrap();
        let mut writer = WatermarkWriter::default();
        let mut sizes = Vec::new();
        for n in 0..=(DELTAS + 1) {
            watermark.gtid_set.insert(&format!("{}:{}", SERVERS[0], 20_000 + n).parse().unwrap());
            let record = writer.record(&watermark);
            sizes.push(encode_watermark(&record).len());
            writer.committed(watermark.clone(), &record, i64::from(n));
        }
        let full = sizes[0];
        assert!(full > 20_000 && sizes[DELTAS as usize + 1] >= full, "{sizes:?}");
        assert!(sizes[1..=DELTAS as usize].iter().all(|size| *size < 300), "{sizes:?}");
    }

    #[test]
    fn a_delta_of_another_record_is_refused() {
        let (mut writer, first) = (WatermarkWriter::default(), start());
        let full = writer.record(&first);
        writer.committed(first.clone(), &full, 5);
        let delta = writer.record(&Watermark { version: Version(9), ..first.clone() });
        let mut reader = WatermarkReader::default();
        let other = WatermarkRecord { base: None, watermark: Watermark { version: Version(1), ..first } };
        reader.complete(5, other).unwrap();
        let base = WatermarkBase { offset: 5, version: Version(0) };
        assert_eq!(reader.complete(7, delta), Err(BaseError { offset: 7, base }));
    }
}
