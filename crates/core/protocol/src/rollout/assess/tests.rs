use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use tandem_model::{Cohort, Phase};

use super::*;
use crate::rollout::measurement::NAMES;

const SECOND: i64 = 1_000_000;

/// Compiled once: parsing takes longer than everything else here.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let soak = Phase::ALL.into_iter().map(|phase| (phase, Duration::from_secs(10))).collect();
    Policy::new(&[1.0, 25.0, 100.0], &soak, &BTreeMap::new(), &BTreeMap::new()).unwrap()
});

fn record(stage: Stage) -> PhaseRecord {
    PhaseRecord {
        generation: 7,
        phase: stage.phase,
        cohort: Cohort { percent: stage.percent, ..Cohort::default() },
        auto: true,
        ..PhaseRecord::default()
    }
}

/// Measurements that meet every default gate.
fn good() -> Measurements {
    let mut all = Measurements::none("x");
    for named in NAMES {
        if named.flag {
            all.set_flag(named.name, Ok(true));
        } else {
            all.set(named.name, Ok(0.0));
        }
    }
    all.set("canary_reads", Ok(50.0));
    all.set("routed_reads", Ok(50.0));
    all.set("cassandra_read_share", Ok(1.0));
    all
}

fn at(record: &PhaseRecord, measured: &Measurements, now_us: i64) -> Outlook {
    assess(&POLICY, Situation { record, measured, watched_since_us: 0, now_us })
}

#[test]
fn with_all_gates_met_the_rollout_advances_to_its_end() {
    let stages = POLICY.plan.stages().to_vec();
    for pair in stages.windows(2) {
        let outlook = at(&record(pair[0]), &good(), 10 * SECOND);
        assert_eq!(outlook.decision, Decision::Forward(pair[1]), "{:?}", outlook.obstacles);
        assert_eq!(outlook.previous.is_none(), pair[0].phase == Phase::Prepare);
    }
    let last = at(&record(stages[stages.len() - 1]), &good(), 10 * SECOND);
    assert_eq!((last.decision, last.obstacles), (Decision::Hold, vec![Obstacle::End]));
}

#[test]
fn an_unmet_gate_is_named_with_its_measurement() {
    let mut measured = good();
    measured.set("open_mismatches", Ok(3.0));
    measured.set("apply_lag_seconds", Err("Kafka does not answer".into()));
    let verify = Stage { phase: Phase::Verify, percent: 0.0 };
    let outlook = at(&record(verify), &measured, 10 * SECOND);
    assert_eq!(outlook.decision, Decision::Hold);
    let said: Vec<String> = outlook.may_advance().unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "apply_keeps_up: apply_lag_seconds < 10.0 (apply_lag_seconds is not measured: Kafka does not answer)",
            "no_mismatch_is_open: open_mismatches == 0.0 (open_mismatches = 3)",
        ]
    );
    let names: Vec<&str> = outlook.may_advance().unwrap_err().iter().map(Obstacle::name).collect();
    assert_eq!(names, ["apply_keeps_up", "no_mismatch_is_open"]);
    assert_eq!([Obstacle::End, Obstacle::Paused].each_ref().map(Obstacle::name), ["end", "paused"]);
}

#[test]
fn a_failing_canary_rolls_back_even_without_auto() {
    let mut measured = good();
    measured.set("canary_mismatches", Ok(1.0));
    let stages = POLICY.plan.stages().to_vec();
    for pair in stages.windows(2).filter(|pair| pair[1].phase >= Phase::Canary) {
        for auto in [true, false] {
            let record = PhaseRecord { auto, ..record(pair[1]) };
            // At once: a rollback needs no soak time.
            assert_eq!(at(&record, &measured, 0).decision, Decision::Back(pair[0]));
        }
        let paused = PhaseRecord { paused: true, ..record(pair[1]) };
        assert_eq!(at(&paused, &measured, 0).decision, Decision::Hold);
    }
}

#[test]
fn fallbacks_roll_back_once_there_are_enough_reads() {
    let canary = record(Stage { phase: Phase::Canary, percent: 25.0 });
    for (reads, back) in [(19.0, false), (20.0, true)] {
        let mut measured = good();
        measured.set("canary_reads", Ok(reads));
        measured.set("fallback_rate", Ok(0.06));
        let decision = at(&canary, &measured, 100 * SECOND).decision;
        assert_eq!(matches!(decision, Decision::Back(_)), back, "{decision:?}");
        assert!(!matches!(decision, Decision::Forward(_)));
    }
}

#[test]
fn the_soak_time_counts_from_when_measuring_began() {
    let (record, measured) = (record(Stage { phase: Phase::Verify, percent: 0.0 }), good());
    let held = |watched_since_us, now_us| {
        assess(&POLICY, Situation { record: &record, measured: &measured, watched_since_us, now_us }).held
    };
    assert_eq!(held(0, 9 * SECOND), Duration::from_secs(9));
    assert_eq!(held(4 * SECOND, 9 * SECOND), Duration::from_secs(5));
    // The clock was set back.
    assert_eq!(held(9 * SECOND, 4 * SECOND), Duration::ZERO);
}

/// Any numbers, measured or not.
fn measurements() -> impl Strategy<Value = Measurements> {
    let value =
        prop_oneof![Just(Some(0.0)), Just(Some(1.0)), (0.0f64..1000.0).prop_map(Some), Just(None::<f64>),];
    proptest::collection::vec(value, NAMES.len()).prop_map(|values| {
        let mut all = Measurements::none("x");
        for (named, value) in NAMES.iter().zip(values) {
            let value = value.ok_or_else(|| "not there".to_owned());
            if named.flag {
                all.set_flag(named.name, value.map(|v| v > 0.0));
            } else {
                all.set(named.name, value);
            }
        }
        all
    })
}

/// Mostly good, so that transitions happen.
fn mostly_good() -> impl Strategy<Value = Measurements> {
    prop_oneof![2 => Just(good()), 1 => measurements()]
}

fn stages() -> impl Strategy<Value = Stage> {
    proptest::sample::select(POLICY.plan.stages().to_vec())
}

/// This many cases, unless `PROPTEST_CASES` is set.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn never_skips_and_never_advances_past_a_failing_gate(
        stage in stages(), measured in mostly_good(), held in 0i64..20, auto: bool, paused: bool,
    ) {
        let record = PhaseRecord { auto, paused, ..record(stage) };
        let outlook = at(&record, &measured, held * SECOND);
        // The same input gives the same outlook.
        prop_assert_eq!(&outlook, &at(&record, &measured, held * SECOND));
        // A rollback is possible from every stage but the first.
        prop_assert_eq!(outlook.previous, POLICY.plan.previous(stage));
        prop_assert_eq!(outlook.previous.is_none(), stage.phase == Phase::Prepare);
        let well = POLICY.gates(stage.phase).iter().all(|gate| gate.judge(&measured).met)
            && !POLICY.rollback(stage.phase).iter().any(|gate| gate.judge(&measured).met);
        match outlook.decision {
            Decision::Forward(to) => {
                prop_assert!(auto && !paused && well && held >= 10);
                prop_assert_eq!(Some(to), POLICY.plan.next(stage));
                prop_assert_eq!(outlook.may_advance(), Ok(to));
            }
            Decision::Back(to) => {
                prop_assert!(!paused && !well && stage.phase >= Phase::Canary);
                prop_assert_eq!(Some(to), POLICY.plan.previous(stage));
                prop_assert!(outlook.may_advance().is_err());
            }
            Decision::Hold => {}
        }
        if outlook.may_advance().is_ok() {
            prop_assert!(!paused && well && held >= 10);
        } else {
            prop_assert!(!outlook.obstacles.is_empty());
        }
        if paused {
            prop_assert_eq!(outlook.decision, Decision::Hold);
        }
    }
}
