//! The language of filters: their results, and what is refused.

use tandem_mapping::{FilterProblem, PlanProblemKind};

use crate::{admits, compile, nulls, plan, row, table};

#[test]
fn filters_admit_the_expected_rows() {
    for (filter, of_row, of_nulls) in [
        // In CEL, null is a value that differs from every text. In SQL, the comparison would be NULL.
        ("s != 'Paid'", false, true),
        ("s == 'Paid'", true, false),
        ("s == 'paid'", false, false),
        ("s == null", false, true),
        ("null != s", true, false),
        ("s in ['a', 'Paid']", true, false),
        ("s in ['a', null]", false, true),
        ("!(s in ['a', 'b'])", true, true),
        ("e != 'paid'", true, true),
        ("n == -5", true, false),
        ("n != null && n < 0", true, false),
        ("n == null || n > -5", false, true),
        ("!(n == null) && n <= -5", true, false),
        ("!(n != null && n >= -5)", false, true),
        ("n != null ? n < 0 : s == null", true, true),
        ("n == -5 && n < 0", true, false),
        ("n in [-5, 3] && n < 0", true, false),
        ("(n == -5 || n == 4) && n < 0", true, false),
        ("s != null && (n == null || n < 0)", true, false),
        ("n != null && u != null && u > n", true, false),
        ("u != null && u > 9223372036854775807", true, false),
        ("u == 18446744073709551615u", true, false),
        ("r == 0.5", true, false),
        ("r != null && r < 0.25", false, false),
        ("b == b'\\x01\\xff'", true, false),
        ("b != null && size(b) == 2", true, false),
        ("at != null && at > timestamp('2023-11-14T22:13:20Z')", true, false),
        ("at != null && at < timestamp('2023-11-14T23:13:20.000002+01:00')", true, false),
        ("seen == timestamp('1970-01-01T00:00:00Z')", true, true),
        ("day == timestamp('2022-01-08T00:00:00Z')", true, false),
        ("e.startsWith('n') && e.endsWith('w') && e.contains('e') && e.size() == 3", true, true),
        ("id % 2 == 1", true, true),
        ("u != null && u % 2u == 1u", true, false),
        ("(n != null && n != null) && n < 0", true, false),
        ("(id > 0) == (e == 'new')", true, true),
        ("true", true, true),
        ("false", false, false),
    ] {
        let plan = plan(filter);
        assert_eq!((admits(&plan, &row()), admits(&plan, &nulls())), (Ok(of_row), Ok(of_nulls)), "{filter}");
    }
}

#[test]
fn invalid_filters_are_refused_when_the_plan_is_compiled() {
    let unsupported = |what: &str| {
        format!(
            "filters do not support {what}; they support && || ! ? : == != < <= > >= in, `%` by a number, startsWith, endsWith, contains, size and timestamp"
        )
    };
    let null = |operator: &str, column: &str| {
        format!(
            "`{operator}` is not defined for NULL, and this is column {column}, which may be NULL; guard it with `… != null && …` or `… == null || …`"
        )
    };
    let chosen = "`<` is not defined for NULL, and this is a value of type int, which may be NULL; guard it with `… != null && …` or `… == null || …`";
    let ordered = "int, uint, double, string, bytes, timestamp";
    for (filter, at, message) in [
        (
            "status != 'x'",
            "1:1",
            "MySQL's table has no column `status`; it has `id`, `n`, `u`, `s`, `e`, `r`, `b`, `at`, `seen`, `day`, `amount`, `took`".to_owned(),
        ),
        ("s == 1", "1:3", "`==` has operands of two types, column `s` (text, string in CEL) and a value of type int; use one type for both".into()),
        ("e == 'a' &&\n 1.5 != id", "2:6", "`!=` has operands of two types, a value of type double and column `id` (bigint, int in CEL); use one type for both".into()),
        ("s in ['a', 1]", "1:12", "`in` has operands of two types, column `s` (text, string in CEL) and a value of type int; use one type for both".into()),
        ("id ? e : id == 1", "1:1", "`?` must be given bool, and this is column `id` (bigint, int in CEL)".into()),
        ("(id > 1 ? e : id) == 'x'", "1:9", "`? :` has operands of two types, column `e` (enum('new','paid'), string in CEL) and column `id` (bigint, int in CEL); use one type for both".into()),
        ("id", "1:1", "`where` must be given bool, and this is column `id` (bigint, int in CEL)".into()),
        ("e && id > 1", "1:1", "`&&` must be given bool, and this is column `e` (enum('new','paid'), string in CEL)".into()),
        ("!id", "1:2", "`!` must be given bool, and this is column `id` (bigint, int in CEL)".into()),
        ("id < true", "1:6", format!("`<` must be given {ordered}, and this is a value of type bool")),
        ("id < null", "1:6", format!("`<` must be given {ordered}, and this is null")),
        ("n < 5", "1:1", null("<", "`n` (tinyint, int in CEL)")),
        ("n == null && n < 5", "1:14", null("<", "`n` (tinyint, int in CEL)")),
        ("n != null || n < 5", "1:14", null("<", "`n` (tinyint, int in CEL)")),
        ("(n != null || id == 1) && n < 5", "1:27", null("<", "`n` (tinyint, int in CEL)")),
        ("n != null ? id == 1 : n < 5", "1:23", null("<", "`n` (tinyint, int in CEL)")),
        ("n != 5 && n < 5", "1:11", null("<", "`n` (tinyint, int in CEL)")),
        ("!(n in [1, 2]) && n < 5", "1:19", null("<", "`n` (tinyint, int in CEL)")),
        ("n in [1, null] && n < 5", "1:19", null("<", "`n` (tinyint, int in CEL)")),
        ("s.startsWith('a')", "1:1", null("startsWith", "`s` (text, string in CEL)")),
        ("e.startsWith(s)", "1:14", null("startsWith", "`s` (text, string in CEL)")),
        ("size(s) > 1", "1:6", null("size", "`s` (text, string in CEL)")),
        ("n % 2 == 0", "1:1", null("%", "`n` (tinyint, int in CEL)")),
        ("amount == 1.0", "1:1", "column `amount` is decimal(10,2), which has no exact form in CEL; filter by other columns".into()),
        ("took == 1", "1:1", "column `took` is time, which has no exact form in CEL; filter by other columns".into()),
        ("seen > timestamp('yesterday')", "1:18", "this is not a time; write it as in RFC 3339, such as timestamp('2024-05-31T00:00:00Z')".into()),
        ("seen > timestamp(e)", "1:17", unsupported("`timestamp` of anything but a text literal")),
        ("seen > now()", "1:11", unsupported("`now`")),
        ("random() < 0.5", "1:7", unsupported("`random`")),
        ("e.matches('a')", "1:10", unsupported("`matches`")),
        ("id + 1 > 2", "1:4", unsupported("arithmetic, which can overflow")),
        ("-id > 2", "1:1", unsupported("arithmetic, which can overflow")),
        ("id % 0 == 0", "1:6", unsupported("`%` by anything but a positive number")),
        ("u != null && u % 0u == 0u", "1:18", unsupported("`%` by anything but a positive number")),
        ("(id == 1 ? n : id) < 5", "1:10", chosen.into()),
        ("(id == 1 ? id : n) < 5", "1:10", chosen.into()),
        ("id % 2u == 0u", "1:4", "`%` has operands of two types, column `id` (bigint, int in CEL) and a value of type uint; use one type for both".into()),
        ("e in s", "1:3", unsupported("`in` without a list in brackets")),
        ("d.e == 'a'", "1:2", unsupported("a field of a value")),
        ("['a'] == e", "1:1", unsupported("a list except after `in`")),
        ("{'a': 1} == null", "1:1", unsupported("a map or message")),
        ("[1].exists(x, x == id)", "1:11", unsupported("`exists`")),
        ("e == 'é…' && e == 1", "1:16", "`==` has operands of two types, column `e` (enum('new','paid'), string in CEL) and a value of type int; use one type for both".into()),
        ("has(s.x)", "1:4", unsupported("`has`")),
    ] {
        assert_eq!(
            compile(filter, table()).unwrap_err().to_string(),
            format!("table `d.t`, target `x`: `where = {filter:?}`, at {at}: {message}")
        );
    }
    // Both sides of an operator are checked.
    assert_eq!(compile("s > 1 && took == f()", table()).unwrap_err().problems.len(), 3);
}

#[test]
fn syntax_errors_are_refused_with_their_position() {
    for (filter, position) in [("id ==", "1:6"), ("id = 1", "1:4"), ("id == 1 &&\n& 2", "2:1"), ("", "1:1")] {
        let error = compile(filter, table()).unwrap_err();
        let PlanProblemKind::Filter { expression, at, problem } = &error.problems[0].kind else {
            panic!("{error}");
        };
        assert_eq!((expression.as_str(), at.as_str()), (filter, position));
        assert!(matches!(problem, FilterProblem::Syntax { .. }), "{error}");
        assert!(error.to_string().contains("this is not a CEL expression: "), "{error}");
    }
}
