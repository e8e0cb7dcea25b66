//! An accepted filter is true or false for every row.

use proptest::prelude::*;
use tandem_model::{Decimal, Row, Value};

use crate::{admits, compile, table};

/// Random expressions. Some of them are refused.
fn expression() -> impl Strategy<Value = String> {
    let atoms = [
        "n == null",
        "n != null",
        "s == null",
        "u != null",
        "r != null",
        "b != null",
        "at != null",
        "day == null",
        "n < 5",
        "n == 3",
        "n != -128",
        "n in [1, 2, 3]",
        "n in [null, 1]",
        "n % 3 == 1",
        "u % 2u == 0u",
        "u > n",
        "u >= 18446744073709551615u",
        "n <= u",
        "u == 5",
        "s > 'b'",
        "s != 'a'",
        "s.contains('a')",
        "size(s) > 1",
        "r > 0.5",
        "r == 0.5",
        "b > b'a'",
        "b.size() == 0",
        "at > timestamp('2000-01-01T00:00:00Z')",
        "at == day",
        "day < seen",
        "seen != at",
        "e == 'new'",
        "e < s",
        "id > n",
        "s in ['a', e]",
        "true",
    ];
    let atom = proptest::sample::select(atoms.to_vec()).prop_map(str::to_owned);
    atom.prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            3 => pair.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            3 => pair.clone().prop_map(|(a, b)| format!("({a} || {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => (inner.clone(), pair.clone()).prop_map(|(a, (b, c))| format!("({a} ? {b} : {c})")),
            1 => pair.prop_map(|(a, b)| format!("(({a}) == ({b}))")),
        ]
    })
}

/// Any row of `d.t`.
fn any_row() -> impl Strategy<Value = Row> {
    let or_null = |value: BoxedStrategy<Value>| prop_oneof![2 => value, 1 => Just(Value::Null)].boxed();
    let tiny = any::<i8>().prop_map(|v| Value::Int(v.into())).boxed();
    let unsigned = prop_oneof![Just(0), Just(5), Just(u64::MAX), any::<u64>()].prop_map(Value::UInt).boxed();
    let text = || "[ab]{0,2}".prop_map(Value::Text).boxed();
    let float = any::<f32>().prop_filter("MySQL has no NaN", |v| !v.is_nan()).prop_map(Value::Float).boxed();
    let blob = proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::Bytes).boxed();
    // The years 0 to 9999.
    let us = || -62_167_219_200_000_000..253_402_300_800_000_000i64;
    let at = us().prop_map(Value::DateTime).boxed();
    let seen = us().prop_map(Value::Timestamp).boxed();
    let day = (-719_528..2_932_897).prop_map(Value::Date).boxed();
    let numbers = (any::<i64>().prop_map(Value::Int), or_null(tiny), or_null(unsigned), or_null(float));
    let times = (or_null(at), seen, or_null(day));
    (numbers, or_null(text()), text(), or_null(blob), times).prop_map(
        |((id, tiny, unsigned, float), text, member, blob, (at, seen, day))| {
            let rest = [Value::Decimal(Decimal::parse("1.50", 2).unwrap()), Value::Time(1)];
            [vec![id, tiny, unsigned, text, member, float, blob, at, seen, day], rest.into()].concat()
        },
    )
}

/// This many cases, unless `PROPTEST_CASES` is set.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..cases(400) })]

    /// An accepted filter is true or false for every row.
    #[test]
    fn filters_are_total(filter in expression(), rows in proptest::collection::vec(any_row(), 20)) {
        let plan = compile(&filter, table());
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        for row in rows {
            prop_assert!(admits(&plan, &row).is_ok(), "{:?}", row);
        }
    }
}
