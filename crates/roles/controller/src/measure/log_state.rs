//! The state of the migration that follows from the log's records, read one by one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tandem_model::{PhaseRecord, TableName, Watermark};
use tandem_wire::WireError;
use tandem_wire::control::{
    BackfillProgress, DeadLetter, FULL_SCAN_KEY, FoundBy, FullScan, MAPPING_KEY, MappingInUse, Mismatch,
    MismatchState, PHASE_KEY, RESNAPSHOT_KEY, Resnapshot, TableState, copies_from, decode_backfill_progress,
    decode_control, decode_phase, is_progress_key, is_table_state_key, progress_key,
};
use tandem_wire::log::InRecord;

use tandem_protocol::mapping_in_use::is_of_mapping_in_use;
use tandem_protocol::rollout::Measurements;
use tandem_protocol::table_state::is_live;
use tandem_protocol::verified::{found_equal, is_covered};

/// A migrated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedTable {
    /// The name in MySQL.
    pub name: TableName,
    /// The fingerprint of the configured mapping. Only a copy under this mapping counts.
    pub mapping: String,
}

/// The newest record of each kind, and the open mismatches.
#[derive(Debug, Default)]
pub(crate) struct LogState {
    phase: Option<PhaseRecord>,
    /// The watermark and the local time at which it was read. The local time shows its age even if the clock of
    /// another machine is wrong.
    watermark: Option<(Arc<Watermark>, Instant)>,
    /// Progress by record key. It includes copies from before the newest re-snapshot.
    progress: HashMap<Vec<u8>, BackfillProgress>,
    resnapshot: Option<Resnapshot>,
    mapping_in_use: Option<MappingInUse>,
    /// The states of tables, by `database.table`.
    states: HashMap<String, TableState>,
    full_scan: Option<FullScan>,
    open: HashSet<Vec<u8>>,
    /// The open dead letters, by record key.
    dead_letters: HashSet<Vec<u8>>,
    /// When a dead letter was last discarded, in microseconds since the epoch.
    discarded_us: Option<i64>,
    /// The mismatches that reads found, in the order of the log.
    read_mismatches: VecDeque<ReadMismatch>,
    /// The offset after the last mismatch event.
    mismatches_end: i64,
}

/// A mismatch that a read found.
#[derive(Debug)]
struct ReadMismatch {
    found_by: FoundBy,
    offset: i64,
    /// The time in microseconds since the epoch, by the controller's clock if it was running then.
    seen_us: i64,
}

/// The point from which mismatches found by reads are counted.
///
/// They are counted from the log, not from the gateways' counters. The controller therefore sees the mismatches
/// that were confirmed while another controller, or none, was active, and those of gateways that have died since.
/// Each event counts in exactly one stage of the migration: the one in which it became known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    /// The offset in the mismatch topic at which the stage began.
    pub(crate) offset: i64,
    /// Mismatches seen before this time do not count, in microseconds since the epoch.
    pub(crate) seen_us: i64,
}

impl LogState {
    /// Applies a record of the control topic.
    pub(crate) fn take_control(&mut self, record: &InRecord) -> Result<(), WireError> {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { return Ok(()) };
        if key == PHASE_KEY {
            let found = decode_phase(value)?;
            if self.phase.as_ref().is_none_or(|known| found.supersedes(known)) {
                self.phase = Some(found);
            }
        } else if key == FULL_SCAN_KEY {
            self.full_scan = Some(decode_control(value)?);
        } else if key == RESNAPSHOT_KEY {
            self.resnapshot = Some(decode_control(value)?);
        } else if key == MAPPING_KEY {
            self.mapping_in_use = Some(decode_control(value)?);
        } else if is_table_state_key(key) {
            let state: TableState = decode_control(value)?;
            self.states.insert(state.table.clone(), state);
        } else if is_progress_key(key) {
            self.progress.insert(key.clone(), decode_backfill_progress(value)?);
        }
        Ok(())
    }

    /// Applies a mismatch event. A new event is seen at `now_us`; an older one has the time of its own clock.
    pub(crate) fn take_mismatch(&mut self, record: &InRecord, now_us: Option<i64>) -> Result<(), WireError> {
        self.mismatches_end = record.offset + 1;
        let (Some(key), Some(value)) = (&record.key, &record.value) else { return Ok(()) };
        let event: Mismatch = decode_control(value)?;
        if event.state == MismatchState::Found && event.found_by != FoundBy::Verification {
            self.read_mismatches.push_back(ReadMismatch {
                found_by: event.found_by,
                offset: record.offset,
                seen_us: now_us.unwrap_or(event.detected_at_us),
            });
        }
        if event.state == MismatchState::Resolved {
            self.open.remove(key);
        } else {
            self.open.insert(key.clone());
        }
        Ok(())
    }

    /// Applies a record of the dead-letter topic.
    pub(crate) fn take_dead_letter(&mut self, record: &InRecord) -> Result<(), WireError> {
        let Some(key) = &record.key else { return Ok(()) };
        let letter = record.value.as_deref().map(decode_control::<DeadLetter>).transpose()?;
        match letter {
            Some(letter) => match letter.discarded {
                None => drop(self.dead_letters.insert(key.clone())),
                Some(discarded) => {
                    self.dead_letters.remove(key);
                    self.discarded_us = self.discarded_us.max(Some(discarded.at_us));
                }
            },
            None => drop(self.dead_letters.remove(key)),
        }
        Ok(())
    }

    /// The offset after the last mismatch event applied.
    pub(crate) fn mismatches_end(&self) -> i64 {
        self.mismatches_end
    }

    /// Applies a watermark.
    pub(crate) fn take_watermark(&mut self, watermark: Arc<Watermark>) {
        self.watermark = Some((watermark, Instant::now()));
    }

    /// The newest phase record. `None` before the first.
    pub(crate) fn phase(&self) -> Option<&PhaseRecord> {
        self.phase.as_ref()
    }

    /// Seconds since the newest watermark's clock, or since it was read if that is longer. `None` before the
    /// first.
    pub(crate) fn capture_age(&self, now_us: i64) -> Option<f64> {
        let (watermark, taken_in) = self.watermark.as_ref()?;
        Some(seconds(watermark.clock_us, now_us).max(taken_in.elapsed().as_secs_f64()))
    }

    /// The progress of a table's copy under the current mapping, which must also be the one in use. After a change of the
    /// mapping there is none until the backfill has begun again, even if the mapping is one from before.
    fn progress_of(&self, table: &MappedTable) -> Option<&BackfillProgress> {
        let name = table.name.to_string();
        let from = copies_from(self.resnapshot.as_ref().map(|r| r.version), self.states.get(&name));
        let key = progress_key(&name, from);
        let counts = |progress: &&BackfillProgress| {
            progress.configured == table.mapping
                && is_of_mapping_in_use(self.mapping_in_use.as_ref(), progress)
        };
        self.progress.get(&key).filter(counts)
    }

    /// Whether every row of a table is copied and applied. `applied` is the applied offset in each partition of its
    /// backfill topic.
    pub(crate) fn is_copied(&self, table: &MappedTable, applied: &[i64]) -> bool {
        self.progress_of(table).is_some_and(|progress| {
            progress.done
                && progress
                    .end_offsets
                    .iter()
                    .enumerate()
                    .all(|(partition, end)| applied.get(partition).is_some_and(|applied| applied >= end))
        })
    }

    /// Sets the measurements that follow from these records alone.
    pub(crate) fn measure(
        &mut self,
        tables: &[MappedTable],
        now_us: i64,
        since: Since,
        into: &mut Measurements,
    ) {
        into.set("open_mismatches", Ok(self.open.len() as f64));
        into.set("open_dead_letters", Ok(self.dead_letters.len() as f64));
        let not_live =
            tables.iter().filter(|table| !is_live(self.states.get(&table.name.to_string()))).count();
        into.set("tables_not_live", Ok(not_live as f64));
        self.read_mismatches.retain(|met| met.offset >= since.offset && met.seen_us >= since.seen_us);
        for (name, found_by) in
            [("canary_mismatches", FoundBy::CanaryRead), ("shadow_mismatches", FoundBy::ShadowRead)]
        {
            let met = self.read_mismatches.iter().filter(|met| met.found_by == found_by).count();
            into.set(name, Ok(met as f64));
        }
        let age = self.capture_age(now_us);
        into.set("capture_age_seconds", age.ok_or_else(|| "capture has not begun".to_owned()));
        let left = tables.iter().map(|table| match self.progress_of(table) {
            Some(progress) if progress.done => Ok(0),
            Some(progress) => Ok((progress.estimated_rows - progress.rows).max(1)),
            None => Err(format!("the backfill of {} under its current mapping has not begun", table.name)),
        });
        let left: Result<i64, String> = left.sum();
        into.set("backfill_rows_left", left.map(|rows| rows as f64));

        let none = || "no full verification has ended yet".to_owned();
        let scan = self.full_scan.as_ref().ok_or_else(none);
        into.set("full_scan_age_seconds", scan.clone().map(|scan| seconds(scan.ended_at_us, now_us)));
        into.set_flag("full_scan_clean", scan.map(|scan| self.is_clean(scan, tables)));
    }

    /// Whether the scan found no mismatch, and every table was verified after its copy.
    fn is_clean(&self, scan: &FullScan, tables: &[MappedTable]) -> bool {
        let covered = |table: &MappedTable| {
            is_covered(scan, self.states.get(&table.name.to_string()), self.progress_of(table))
        };
        found_equal(scan, self.discarded_us) && tables.iter().all(covered)
    }
}

fn seconds(then_us: i64, now_us: i64) -> f64 {
    (now_us - then_us).max(0) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_wire::control::{
        MismatchKind, TableCondition, TableInUse, encode_backfill_progress, encode_control, encode_phase,
    };

    fn record(key: &[u8], value: Vec<u8>) -> InRecord {
        InRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            key: Some(key.to_vec()),
            value: Some(value),
            version: None,
            timestamp_ms: None,
        }
    }

    fn mismatch(key: &[u8], state: MismatchState) -> InRecord {
        let event = Mismatch {
            table: "d.t".into(),
            target: "t".into(),
            source_key: vec![],
            target_key: vec![],
            kind: MismatchKind::Missing,
            columns: vec![],
            state,
            lower: 0,
            upper: 0,
            writetimes: vec![],
            detected_at_us: 0,
            raw_target_key: vec![],
            found_by: FoundBy::Verification,
        };
        record(key, encode_control(&event).unwrap())
    }

    fn met(found_by: FoundBy, offset: i64, detected_at_us: i64, state: MismatchState) -> InRecord {
        let found = mismatch(b"k", state);
        let event: Mismatch = decode_control(&found.value.unwrap()).unwrap();
        let event = Mismatch { found_by, detected_at_us, ..event };
        InRecord { offset, ..record(b"k", encode_control(&event).unwrap()) }
    }

    fn progress(done: bool, updated_at_us: i64) -> InRecord {
        let progress = BackfillProgress {
            table: "d.t".into(),
            mapping: String::new(),
            configured: "now".into(),
            last_key: None,
            upto_key: None,
            rows: 30,
            estimated_rows: 100,
            done,
            version: 0,
            started_at_us: 0,
            updated_at_us,
            end_offsets: vec![5, 7],
        };
        record(b"backfill/d.t", encode_backfill_progress(&progress))
    }

    fn scan(started_at_us: i64, mismatches: i64) -> InRecord {
        let scan = FullScan { started_at_us, ended_at_us: 20, rows: 9, mismatches, undecided: 0 };
        record(FULL_SCAN_KEY, encode_control(&scan).unwrap())
    }

    fn table() -> MappedTable {
        MappedTable { name: TableName::new("d", "t"), mapping: "now".into() }
    }

    fn measured(state: &mut LogState) -> Measurements {
        let mut all = Measurements::none("x");
        state.measure(&[table()], 1_000_020, Since { offset: 0, seen_us: 0 }, &mut all);
        all
    }

    #[test]
    fn a_mismatch_is_open_until_it_is_resolved() {
        let mut state = LogState::default();
        let open = |state: &mut LogState| measured(state).get("open_mismatches").unwrap().as_number() as u64;
        for (key, event, left) in [
            (b"a", MismatchState::Found, 1),
            (b"a", MismatchState::Found, 1),
            (b"b", MismatchState::Found, 2),
            (b"a", MismatchState::Resolved, 1),
            (b"b", MismatchState::Unrepairable, 1),
        ] {
            state.take_mismatch(&mismatch(key, event), None).unwrap();
            assert_eq!(open(&mut state), left);
        }
    }

    #[test]
    fn read_mismatches_count_from_the_stages_offset_until_they_are_old() {
        use FoundBy::{CanaryRead, ShadowRead, Verification};
        use MismatchState::{Found, Resolved};
        let mut state = LogState::default();
        for (found_by, offset, detected_at_us, event, now_us) in [
            (CanaryRead, 3, 100, Found, None),
            (CanaryRead, 4, 100, Found, None),
            (CanaryRead, 5, 100, Resolved, None),
            (Verification, 6, 100, Found, None),
            // A gateway whose clock is behind.
            (CanaryRead, 7, 1, Found, Some(90)),
            (ShadowRead, 8, 1, Found, Some(95)),
        ] {
            state.take_mismatch(&met(found_by, offset, detected_at_us, event), now_us).unwrap();
        }
        assert_eq!(state.mismatches_end(), 9);
        let mut counted = |offset, seen_us| {
            let mut all = Measurements::none("x");
            state.measure(&[table()], 1_000_020, Since { offset, seen_us }, &mut all);
            let number = |name| all.get(name).unwrap().as_number() as i64;
            (number("canary_mismatches"), number("shadow_mismatches"))
        };
        assert_eq!(counted(0, 0), (3, 1));
        assert_eq!(counted(4, 90), (2, 1));
        assert_eq!(counted(4, 91), (1, 1));
        assert_eq!(counted(9, 0), (0, 0));
    }

    #[test]
    fn a_table_is_copied_once_its_rows_are_applied() {
        let mut state = LogState::default();
        assert!(!state.is_copied(&table(), &[9, 9]));
        assert!(measured(&mut state).get("backfill_rows_left").is_err());
        state.take_control(&progress(false, 1)).unwrap();
        assert!(!state.is_copied(&table(), &[9, 9]));
        assert_eq!(measured(&mut state).get("backfill_rows_left").unwrap().as_number() as i64, 70);
        state.take_control(&progress(true, 2)).unwrap();
        assert!(!state.is_copied(&table(), &[5, 6]) && !state.is_copied(&table(), &[5]));
        assert!(state.is_copied(&table(), &[5, 7]));
        assert_eq!(measured(&mut state).get("backfill_rows_left").unwrap().as_number() as i64, 0);
    }

    #[test]
    fn a_copy_under_another_mapping_does_not_count() {
        let mut state = LogState::default();
        state.take_control(&progress(true, 2)).unwrap();
        state.take_control(&scan(10, 0)).unwrap();
        let of = |state: &mut LogState, mapping: &str| {
            let table = MappedTable { mapping: mapping.into(), ..table() };
            let mut all = Measurements::none("x");
            let since = Since { offset: 0, seen_us: 0 };
            state.measure(std::slice::from_ref(&table), 1_000_020, since, &mut all);
            let clean = all.get("full_scan_clean").unwrap().as_number() > 0.0;
            (state.is_copied(&table, &[5, 7]), clean, all.get("backfill_rows_left").map_err(str::to_owned))
        };
        assert!(matches!(of(&mut state, "now"), (true, true, Ok(_))));
        let begun = |since| MappingInUse {
            generation: 1,
            layout: "l".into(),
            configured: "now".into(),
            tables: vec![TableInUse { table: "d.t".into(), layout: String::new(), since }],
            at_us: 0,
        };
        let begins = |since| record(MAPPING_KEY, encode_control(&begun(since)).unwrap());
        state.take_control(&begins(None)).unwrap();
        assert!(matches!(of(&mut state, "now"), (true, true, Ok(_))));
        // Another one was in use meanwhile.
        let mut back = LogState::default();
        for record in [progress(true, 2), scan(10, 0), begins(Some(7))] {
            back.take_control(&record).unwrap();
        }
        assert!(matches!(of(&mut back, "now"), (false, false, Err(_))));
        let (copied, clean, left) = of(&mut state, "later");
        assert!(!copied && !clean);
        assert_eq!(left.unwrap_err(), "the backfill of d.t under its current mapping has not begun");
    }

    #[test]
    fn a_copy_from_before_a_resnapshot_does_not_count() {
        let mut state = LogState::default();
        let resnapshot = |version| Resnapshot {
            version,
            from_gtid_set: String::new(),
            to_gtid_set: String::new(),
            reason: String::new(),
            at_us: 0,
        };
        let ordered = |version| record(RESNAPSHOT_KEY, encode_control(&resnapshot(version)).unwrap());
        let copied = |version| {
            let key = progress_key("d.t", Some(version));
            InRecord { key: Some(key), ..progress(true, 12) }
        };
        state.take_control(&progress(true, 2)).unwrap();
        state.take_control(&scan(10, 0)).unwrap();
        state.take_control(&ordered(7)).unwrap();
        // A backfill that does not know of the re-snapshot continues.
        state.take_control(&progress(true, 11)).unwrap();
        let clean = |state: &mut LogState| measured(state).get("full_scan_clean").unwrap().as_number() > 0.0;
        assert!(!state.is_copied(&table(), &[5, 7]) && !clean(&mut state));
        assert!(measured(&mut state).get("backfill_rows_left").is_err());
        state.take_control(&copied(7)).unwrap();
        assert!(state.is_copied(&table(), &[5, 7]));
        assert!(!clean(&mut state), "the verification is older than the copy");
        state.take_control(&scan(12, 0)).unwrap();
        assert!(clean(&mut state));
        state.take_control(&ordered(8)).unwrap();
        assert!(!state.is_copied(&table(), &[5, 7]) && !clean(&mut state));
    }

    #[test]
    fn a_scan_counts_if_it_began_after_the_backfill() {
        let mut state = LogState::default();
        let clean =
            |state: &mut LogState| measured(state).get("full_scan_clean").map(|v| v.as_number() > 0.0).ok();
        state.take_control(&progress(true, 10)).unwrap();
        assert_eq!(clean(&mut state), None);
        for (started, mismatches, expected) in [(9, 0, false), (10, 1, false), (10, 0, true)] {
            state.take_control(&scan(started, mismatches)).unwrap();
            assert_eq!(clean(&mut state), Some(expected), "{started} {mismatches}");
        }
        // The table is copied again.
        state.take_control(&progress(true, 30)).unwrap();
        assert_eq!(clean(&mut state), Some(false));
        let age = measured(&mut state).get("full_scan_age_seconds").unwrap().as_number();
        assert!((age - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_table_that_is_not_live_is_counted_and_its_own_verification_counts() {
        let mut state = LogState::default();
        state.take_control(&progress(true, 2)).unwrap();
        state.take_control(&scan(10, 0)).unwrap();
        let seen = |state: &mut LogState| {
            let all = measured(state);
            let clean = all.get("full_scan_clean").unwrap().as_number() > 0.0;
            (all.get("tables_not_live").unwrap().as_number() as i64, clean)
        };
        assert_eq!(seen(&mut state), (0, true));
        let ordered = |condition, since_us| TableState {
            table: "d.t".into(),
            incarnation: 1,
            condition,
            captured: true,
            replayable: true,
            from: std::collections::BTreeMap::new(),
            copy_from: Some(7),
            reason: String::new(),
            cause: String::new(),
            by: String::new(),
            since_us,
            at_us: since_us,
        };
        for (condition, expected) in [
            (TableCondition::Halted, (1, false)),
            (TableCondition::Verifying, (1, false)),
            // The new copy has not begun.
            (TableCondition::Live, (0, false)),
        ] {
            let ordered = ordered(condition, 20).record("t").unwrap();
            state.take_control(&record(&ordered.key, ordered.value.unwrap())).unwrap();
            assert_eq!(seen(&mut state), expected, "{condition}");
        }
        let copied = InRecord { key: Some(progress_key("d.t", Some(7))), ..progress(true, 15) };
        state.take_control(&copied).unwrap();
        assert_eq!(seen(&mut state), (0, true));
    }

    #[test]
    fn an_older_phase_is_ignored() {
        let mut state = LogState::default();
        for generation in [2, 1] {
            let phase = PhaseRecord { generation, ..PhaseRecord::default() };
            state.take_control(&record(PHASE_KEY, encode_phase(&phase))).unwrap();
        }
        assert_eq!(state.phase().map(|phase| phase.generation), Some(2));
        assert!(state.take_control(&record(PHASE_KEY, vec![1])).is_err());
    }
}
