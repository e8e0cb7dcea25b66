//! The control records, by which Tandem's roles communicate, on the log and in Cassandra.
//!
//! Their schemas are in the project's `schemas/` folder. Each record starts with its `format`. A reader
//! refuses a record of a later format.

mod announcement;
mod audit;
mod dead_letter;
mod mapping_in_use;
mod native;
mod phase;
mod process;
mod record;
mod records;
mod table_state;
mod watermark;

use crate::WireError;

pub use announcement::{Announcement, GATEWAY_ROLE, announcement_key, counter, no_longer_announced};
pub use audit::{Audit, AuditGate, AuditMeasurement};
pub use dead_letter::{BadPlace, DeadLetter, Discarded, RecordPlace, settled};
pub use mapping_in_use::{MAPPING_KEY, MappingInUse, TableInUse};
pub use native::{AcceptedWrite, BatchRow, GuardRecord, NativeBatch, StaleKey, TentativeWrite};
pub use phase::PHASE_KEY;
pub use process::{ProcessReport, ProcessRole, ProcessWait, is_process_key, process_has_ended};
pub use record::{ControlRecord, ControlSchema, decode_control, encode_control};
pub use records::{
    BackfillProgress, Ddl, DualWriteFailure, FULL_SCAN_KEY, FoundBy, FullScan, Mismatch, MismatchKind,
    MismatchState, RESNAPSHOT_KEY, Resnapshot, is_progress_key, progress_key,
};
pub use table_state::{TableCondition, TableState, copies_from, is_table_state_key};
pub use watermark::{WatermarkBase, WatermarkRecord};

macro_rules! named {
    ($(#[$encode_doc:meta] $encode:ident, #[$decode_doc:meta] $decode:ident, $record:ty;)*) => {
        $(
            #[$encode_doc]
            pub fn $encode(record: &$record) -> Vec<u8> {
                encode_control(record).expect("its fields are those of its schema; a test writes each kind")
            }

            #[$decode_doc]
            ///
            /// # Errors
            ///
            /// The record is corrupt, is of another kind, or has another format.
            pub fn $decode(record: &[u8]) -> Result<$record, WireError> {
                decode_control(record)
            }
        )*
    };
}

named! {
    /// Encodes a framed watermark.
    encode_watermark,
    /// Decodes a framed watermark.
    decode_watermark, WatermarkRecord;
    /// Encodes a framed progress record.
    encode_backfill_progress,
    /// Decodes a framed progress record.
    decode_backfill_progress, BackfillProgress;
    /// Encodes a framed DDL record.
    encode_ddl,
    /// Decodes a framed DDL record.
    decode_ddl, Ddl;
    /// Encodes a framed phase record.
    encode_phase,
    /// Decodes a framed phase record.
    decode_phase, tandem_model::PhaseRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::put_long;
    use crate::schema_id::{id_of, schema_id};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use tandem_model::{
        BinlogPosition, CapturedTables, Cohort, CohortAttribute, DualWriteMode, PartialTransaction, Phase,
        PhaseRecord, TableName, Version, Watermark,
    };

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn watermark() -> Watermark {
        Watermark {
            source: "shop".into(),
            gtid_set: format!("{SERVER}:1-7:9").parse().unwrap(),
            position: BinlogPosition { file: "binlog.000003".into(), pos: 1 << 40 },
            version: Version(1_700_000_000_000_000),
            tables: Arc::new(CapturedTables {
                captured: BTreeMap::from([
                    (TableName::new("a", "b"), "t.a.b".into()),
                    (TableName::new("a", "d.é"), "t.changes".into()),
                ]),
                retired: BTreeSet::from([TableName::new("a", "e")]),
            }),
            offsets: BTreeMap::from([("t.a.b".into(), vec![0, 17]), ("t.changes".into(), vec![])]),
            partial: None,
            clock_us: -3,
        }
    }

    fn mismatch() -> Mismatch {
        Mismatch {
            table: "shop.orders".into(),
            target: "orders".into(),
            source_key: vec![0, 1, 255],
            target_key: vec!["1".into(), "é".into()],
            kind: MismatchKind::Different,
            columns: vec!["amount".into()],
            state: MismatchState::Unrepairable,
            lower: 1,
            upper: 2,
            writetimes: vec![i64::MIN, 3],
            detected_at_us: 4,
            raw_target_key: vec![vec![], vec![0, 255]],
            found_by: FoundBy::ShadowRead,
        }
    }

    fn progress() -> BackfillProgress {
        BackfillProgress {
            mapping: "0badcafe".into(),
            configured: "600dcafe".into(),
            table: "shop.orders".into(),
            last_key: None,
            upto_key: Some(vec![0, 1]),
            rows: 1,
            estimated_rows: 2,
            done: true,
            version: 3,
            started_at_us: 4,
            updated_at_us: 5,
            end_offsets: vec![6, 7],
        }
    }

    fn ddl() -> Ddl {
        Ddl {
            gtid: format!("{SERVER}:5"),
            database: "shop".into(),
            statement: "ALTER TABLE orders ADD x INT".into(),
            kind: "other".into(),
            tables: vec!["shop.orders".into()],
            version: 1,
            file: "binlog.000001".into(),
            pos: 2,
            ts_us: 3,
        }
    }

    fn phase() -> PhaseRecord {
        PhaseRecord {
            generation: 7,
            phase: Phase::Canary,
            cohort: Cohort {
                by: CohortAttribute::Column("customer".into()),
                percent: 2.5,
                values: vec![(CohortAttribute::Header("tandem-country".into()), "PT".into())],
            },
            validate: 0.5,
            shadow: 0.25,
            fallback: true,
            dual_write: DualWriteMode::Behind,
            auto: true,
            paused: true,
            by: "me".into(),
            reason: "é".into(),
            since_us: 8,
            mismatches_from: 10,
            at_us: 9,
        }
    }

    fn dead_letter() -> DeadLetter {
        DeadLetter {
            table: "shop.orders".into(),
            topic: "t.changes".into(),
            partition: 2,
            offset: 1 << 40,
            record_key: vec![0, 1],
            record_value: vec![0, 2, 255],
            version: 3,
            reason: "invalid-date".into(),
            cause: "é".into(),
            at_us: 4,
            discarded: None,
        }
    }

    fn failure() -> DualWriteFailure {
        DualWriteFailure {
            table: "shop.orders".into(),
            source_key: vec![0, 1],
            gtid: format!("{SERVER}:5"),
            version: 8,
            reason: "late".into(),
            at_us: 9,
        }
    }

    fn full_scan() -> FullScan {
        FullScan { started_at_us: 1, ended_at_us: 2, rows: 3, mismatches: 4, undecided: 5 }
    }

    fn resnapshot() -> Resnapshot {
        Resnapshot {
            version: 1,
            from_gtid_set: format!("{SERVER}:1-5"),
            to_gtid_set: String::new(),
            reason: "é".into(),
            at_us: 2,
        }
    }

    fn mapping_in_use() -> MappingInUse {
        let table = |table: &str, since| TableInUse { table: table.into(), layout: "0badcafe".into(), since };
        MappingInUse {
            generation: 2,
            layout: "600dcafe".into(),
            configured: "0cafe".into(),
            tables: vec![table("shop.orders", None), table("`a.b`.c", Some(3))],
            at_us: 4,
        }
    }

    fn audit() -> Audit {
        Audit {
            generation: 7,
            action: "advance".into(),
            from_phase: "verify".into(),
            from_percent: 0.0,
            phase: "canary".into(),
            percent: 2.5,
            auto: true,
            paused: false,
            by: "me".into(),
            reason: "é".into(),
            at_us: 9,
            measurements: vec![
                AuditMeasurement { name: "a".into(), value: Some(0.5), unmeasured: String::new() },
                AuditMeasurement { name: "b".into(), value: None, unmeasured: "not reached".into() },
            ],
            gates: vec![AuditGate { name: "g".into(), expression: "a < 1".into(), met: true }],
        }
    }

    fn guard() -> GuardRecord {
        let stale = |key: u8| StaleKey { target: "t".into(), key: vec![vec![], vec![key]] };
        GuardRecord {
            version: 7,
            schema_id: i64::from(u32::MAX),
            before: None,
            image: Some(vec![0, 255]),
            stale: vec![stale(1), stale(2)],
            recent: vec![AcceptedWrite { request: vec![1], version: 7 }],
            tentative: Some(TentativeWrite {
                batch: vec![2],
                request: vec![],
                image: Some(vec![]),
                stale: vec![stale(3)],
            }),
        }
    }

    fn batch() -> NativeBatch {
        let row = BatchRow { table: "shop.orders".into(), key: vec![0, 255] };
        NativeBatch { deadline_us: 1, version: Some(2), rows: vec![row] }
    }

    fn announcement() -> Announcement {
        Announcement {
            role: GATEWAY_ROLE.into(),
            name: "a:80".into(),
            address: "127.0.0.1:80".into(),
            version: "1.0.0".into(),
            started_at_us: 1,
            generation: Some(2),
            counters: BTreeMap::from([
                (counter::DUAL_WRITES.into(), 3),
                (counter::FALLBACKS.into(), 1 << 40),
            ]),
            at_us: 4,
        }
    }

    fn process() -> ProcessReport {
        let role = |state: &str, next_try_us| ProcessRole {
            role: "apply".into(),
            state: state.into(),
            since_us: 2,
            cause: "é".into(),
            next_try_us,
        };
        let wait =
            ProcessWait { what: "capture".into(), since_us: 3, cause: "é".into(), next_try_us: Some(4) };
        ProcessReport {
            name: "a:80".into(),
            version: "1.0.0".into(),
            started_at_us: 1,
            roles: vec![role("down", Some(5)), role("running", None)],
            waits: vec![ProcessWait { next_try_us: None, ..wait.clone() }, wait],
            at_us: 6,
        }
    }

    fn table_state() -> TableState {
        TableState {
            table: "shop.orders".into(),
            incarnation: 3,
            condition: TableCondition::Halted,
            captured: true,
            replayable: false,
            from: BTreeMap::from([("t.backfill".into(), vec![]), ("t.changes".into(), vec![0, 1 << 40])]),
            copy_from: None,
            reason: "plan".into(),
            cause: "é".into(),
            by: "apply".into(),
            since_us: 4,
            at_us: 5,
        }
    }

    /// Checks that a record round-trips, and that truncated records and other formats are refused.
    fn check<R: ControlRecord + PartialEq + std::fmt::Debug>(record: &R) {
        let bytes = encode_control(record).unwrap();
        assert_eq!(schema_id(&bytes).unwrap(), R::schema().id());
        assert_eq!(&decode_control::<R>(&bytes).unwrap(), record);
        for len in 0..bytes.len() {
            assert!(decode_control::<R>(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode_control::<R>(&longer).is_err());
        // A record of a later release: it has another schema, and its format comes first.
        let mut later = vec![0, 0, 0, 0, 1];
        let known = R::schema().format();
        put_long(&mut later, i64::from(known) + 1);
        later.extend_from_slice(b"whatever comes then");
        let error = decode_control::<R>(&later).unwrap_err();
        assert!(matches!(error, WireError::LaterFormat { .. }), "{error}");
        // A record of an earlier release. A format is encoded as its double.
        later[5] = 2 * known as u8 - 2;
        let error = decode_control::<R>(&later).unwrap_err();
        assert!(matches!(error, WireError::EarlierFormat { .. }), "{error}");
        // A record of another kind.
        later[5] = 2 * known as u8;
        assert!(matches!(decode_control::<R>(&later), Err(WireError::OtherSchema { .. })));
    }

    #[test]
    fn records_round_trip() {
        let full = |watermark| WatermarkRecord { base: None, watermark };
        check(&full(watermark()));
        let gtid = format!("{SERVER}:blue:8").parse().unwrap();
        check(&full(Watermark { partial: Some(PartialTransaction { gtid, rows: 12 }), ..watermark() }));
        let base = Some(WatermarkBase { offset: 7, version: Version(8) });
        let empty = Watermark {
            gtid_set: "".parse().unwrap(),
            tables: Arc::default(),
            offsets: BTreeMap::new(),
            ..watermark()
        };
        check(&WatermarkRecord { base, watermark: empty });
        check(&mismatch());
        check(&progress());
        check(&BackfillProgress { last_key: Some(vec![]), upto_key: None, ..progress() });
        check(&ddl());
        check(&phase());
        check(&PhaseRecord::default());
        check(&failure());
        check(&dead_letter());
        let discarded = Some(Discarded { at_us: 5, reason: "é".into() });
        check(&DeadLetter { record_value: vec![], discarded, ..dead_letter() });
        check(&full_scan());
        check(&resnapshot());
        check(&mapping_in_use());
        check(&audit());
        check(&guard());
        check(&GuardRecord { before: Some(vec![1]), image: None, tentative: None, ..guard() });
        check(&batch());
        check(&NativeBatch { version: None, rows: vec![], ..batch() });
        check(&announcement());
        check(&process());
        check(&ProcessReport { roles: vec![], waits: vec![], ..process() });
        check(&table_state());
        for condition in [TableCondition::Live, TableCondition::Replaying, TableCondition::Verifying] {
            check(&TableState { condition, copy_from: Some(6), captured: false, ..table_state() });
        }
        check(&Announcement { generation: None, counters: BTreeMap::new(), ..announcement() });
        assert_eq!(decode_phase(&encode_phase(&phase())).unwrap(), phase());
        assert_eq!(decode_watermark(&encode_watermark(&full(watermark()))).unwrap(), full(watermark()));
        let bytes = encode_backfill_progress(&progress());
        assert_eq!(decode_backfill_progress(&bytes).unwrap(), progress());
        assert_eq!(decode_ddl(&encode_ddl(&ddl())).unwrap(), ddl());
    }

    /// The ids of the schemas in `schemas/`. They change only with a new format.
    #[test]
    fn ids_are_stable() {
        let ids = [
            WatermarkRecord::schema(),
            Mismatch::schema(),
            BackfillProgress::schema(),
            Ddl::schema(),
            PhaseRecord::schema(),
            DualWriteFailure::schema(),
            FullScan::schema(),
            Resnapshot::schema(),
            Audit::schema(),
            DeadLetter::schema(),
            Announcement::schema(),
            TableState::schema(),
            MappingInUse::schema(),
            GuardRecord::schema(),
            NativeBatch::schema(),
            ProcessReport::schema(),
        ]
        .map(|schema| {
            let json: serde_json::Value = serde_json::from_str(schema.json()).unwrap();
            assert_eq!(json["fields"][0]["name"], "format", "{}", schema.name());
            assert_eq!(id_of(schema.json()), schema.id(), "{}", schema.name());
            (schema.name(), schema.id())
        });
        assert_eq!(
            ids,
            [
                ("Watermark", 2_128_886_021),
                ("Mismatch", 822_622_756),
                ("BackfillProgress", 1_471_167_412),
                ("Ddl", 752_239_750),
                ("Phase", 1_394_092_303),
                ("DualWriteFailure", 18_886_685),
                ("FullScan", 1_901_654_515),
                ("Resnapshot", 1_621_096_297),
                ("Audit", 534_078_992),
                ("DeadLetter", 1_999_199_211),
                ("Announcement", 1_599_010_247),
                ("TableState", 462_740_483),
                ("MappingInUse", 770_320_515),
                ("GuardRecord", 728_445_167),
                ("NativeBatch", 551_701_083),
                ("Process", 1_600_280_695)
            ]
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let percent = |percent| Cohort { percent, ..Cohort::default() };
        for bad in [
            PhaseRecord { cohort: percent(100.5), ..phase() },
            PhaseRecord { cohort: percent(f64::NAN), ..phase() },
            PhaseRecord { validate: -0.1, ..phase() },
            PhaseRecord { shadow: 2.0, ..phase() },
            PhaseRecord { generation: u64::MAX, ..phase() },
        ] {
            assert!(decode_phase(&encode_phase(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_huge_length_allocates_nothing() {
        let mut bytes = encode_control(&ddl()).unwrap();
        let tail = bytes.len().min(6);
        bytes.truncate(tail);
        put_long(&mut bytes, 1 << 50);
        assert!(decode_control::<Ddl>(&bytes).is_err());
    }
}
