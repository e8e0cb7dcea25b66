//! Valid configurations, and every problem with which one is refused.

#![allow(clippy::unwrap_used)] // the helpers of a test fail it by panicking

use std::sync::Arc;

use tandem_mapping::{PlanProblemKind, TableConfig, TablePlan, compile_all, create_table, same_shape};
use tandem_model::{ColumnDef, TableDef, TableName};

/// A table `d.<name>` from lines such as `id bigint`, `note text null`.
fn table(name: &str, columns: &[&str], primary_key: &[usize]) -> Arc<TableDef> {
    let columns = columns.iter().map(|line| {
        let (line, nullable) = line.strip_suffix(" null").map_or((*line, false), |line| (line, true));
        let (name, ty) = line.split_once(' ').unwrap();
        ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable }
    });
    Arc::new(TableDef {
        name: TableName::new("d", name),
        columns: columns.collect(),
        primary_key: primary_key.to_vec(),
    })
}

fn t() -> Arc<TableDef> {
    let columns = [
        "id bigint",
        "part int",
        "at datetime(3)",
        "note text null",
        "price decimal(10,2) null",
        "ratio double",
    ];
    table("t", &columns, &[0, 1])
}

fn config(body: &str) -> TableConfig {
    toml::from_str(body).unwrap()
}

/// A configuration with one target, given the lines of its section.
fn one(target: &str) -> TableConfig {
    config(&format!("source = 'd.t'\n[[target]]\n{target}"))
}

const FINE: &str = "table = 'x'\npartition_key = ['id']\nclustering_key = ['part']\n";

fn problems(config: &TableConfig, table: &Arc<TableDef>) -> Vec<PlanProblemKind> {
    TablePlan::compile(config, table)
        .map_or_else(|e| e.problems.into_iter().map(|p| p.kind).collect(), |_| vec![])
}

#[test]
fn a_full_configuration_compiles_to_its_table() {
    let config = config(
        "source = 'd.t'
         entity = 'thing'
         on_new_column = 'ignore'
         [[target]]
         table = 'T_by_time'
         partition_key = ['part']
         clustering_key = ['at  DESC', 'id asc']
         rename = { price = 'cost', id = 'Id' }
         exclude_from_target = ['ratio']
         [[target]]
         table = 't'
         partition_key = ['id', 'part']",
    );
    let plan = TablePlan::compile(&config, &t()).unwrap();
    let ddl: Vec<String> = plan.targets().iter().map(|t| create_table("k", t.table(), 9)).collect();
    assert_eq!(
        ddl,
        [
            r#"CREATE TABLE IF NOT EXISTS "k"."T_by_time" (
    "part" int,
    "at" timestamp,
    "Id" bigint,
    "note" text,
    "cost" decimal,
    PRIMARY KEY (("part"), "at", "Id")
) WITH CLUSTERING ORDER BY ("at" DESC, "Id" ASC)
  AND gc_grace_seconds = 9;"#,
            r#"CREATE TABLE IF NOT EXISTS "k"."t" (
    "id" bigint,
    "part" int,
    "at" timestamp,
    "note" text,
    "price" decimal,
    "ratio" double,
    PRIMARY KEY (("id", "part"))
) WITH gc_grace_seconds = 9;"#,
        ]
    );
}

#[test]
fn the_first_configuration_of_a_table_compiles() {
    let config = same_shape(&t());
    let text = toml::to_string(&config).unwrap();
    assert_eq!(
        text,
        "source = \"d.t\"\non_new_column = \"halt\"\n\n[[target]]\ntable = \"t\"\npartition_key = [\"id\"]\nclustering_key = [\"part\"]\n"
    );
    assert_eq!(toml::from_str::<TableConfig>(&text).unwrap(), config);
    assert_eq!(problems(&config, &t()), []);
}

#[test]
fn unknown_keys_are_refused() {
    for body in [
        "source = 'd.t'\ntargets = []",
        "source = 'd.t'\n[[target]]\ntable = 'x'\npartition_key = []\nfilter = ''",
        "source = 'd.t'\n[[target]]\ntable = 'x'\npartition_key = []\nderive.month = 'month(at)'",
    ] {
        let error = toml::from_str::<TableConfig>(body).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{body}: {error}");
    }
}

#[test]
fn an_unknown_value_of_on_new_column_is_refused_with_the_allowed_ones() {
    let error =
        toml::from_str::<TableConfig>("source = 'd.t'\non_new_column = 'drop'").unwrap_err().to_string();
    assert!(error.contains("unknown variant `drop`, expected one of `halt`, `ignore`, `add`"), "{error}");
}

#[test]
fn each_problem_is_reported() {
    let column = |column: &str| column.to_owned();
    let unknown = |option, name: &str| PlanProblemKind::UnknownColumn { option, column: name.into() };
    for (target, expected) in [
        ("table = 'x'\npartition_key = ['id', 'part']", vec![]),
        (
            "table = 'x'\npartition_key = ['idd']\nclustering_key = ['id', 'part']",
            vec![unknown("partition_key", "idd")],
        ),
        (
            "table = 'x'\npartition_key = ['id']\nclustering_key = ['part', 'no desc']",
            vec![unknown("clustering_key", "no")],
        ),
        (&format!("{FINE}rename = {{ no = 'x' }}"), vec![unknown("rename", "no")]),
        (&format!("{FINE}exclude_from_target = ['no']"), vec![unknown("exclude_from_target", "no")]),
        (
            &format!("{FINE}exclude_from_target = ['part']"),
            vec![PlanProblemKind::OmittedKey { column: column("part") }],
        ),
        (
            &format!("{FINE}exclude_from_target = ['note']\nrename = {{ note = 'n' }}"),
            vec![PlanProblemKind::RenamedAndOmitted { column: column("note") }],
        ),
        (
            &format!("{FINE}rename = {{ note = 'id' }}"),
            vec![PlanProblemKind::SameName {
                name: column("id"),
                first: column("id"),
                second: column("note"),
            }],
        ),
        (&format!("{FINE}rename = {{ note = 'id', id = 'note' }}"), vec![]),
        (&format!("{FINE}rename = {{ note = 'price' }}\nexclude_from_target = ['price']"), vec![]),
        (
            &format!("{FINE}rename = {{ note = '' }}"),
            vec![PlanProblemKind::EmptyName { column: column("note") }],
        ),
        (
            "table = 'x'\npartition_key = ['at']",
            vec![PlanProblemKind::KeyLacksSourceKey { missing: vec![column("id"), column("part")] }],
        ),
        (
            "table = 'x'\npartition_key = ['part']",
            vec![PlanProblemKind::KeyLacksSourceKey { missing: vec![column("id")] }],
        ),
        (
            "table = 'x'\npartition_key = ['note']\nclustering_key = ['id', 'part']",
            vec![PlanProblemKind::NullableKey { column: column("note") }],
        ),
        (
            "table = 'x'\npartition_key = ['ratio']\nclustering_key = ['id', 'part']",
            vec![PlanProblemKind::FloatKey { column: column("ratio") }],
        ),
        (
            "table = 'x'\npartition_key = []\nclustering_key = ['id', 'part']",
            vec![PlanProblemKind::EmptyPartitionKey],
        ),
        (
            "table = 'x'\npartition_key = ['id', 'id']\nclustering_key = ['part', 'part desc']",
            vec![
                PlanProblemKind::KeyTwice { column: column("id") },
                PlanProblemKind::KeyTwice { column: column("part") },
            ],
        ),
        (
            "table = 'x'\npartition_key = ['id', 'part']\nclustering_key = ['at sideways']",
            vec![PlanProblemKind::BadOrder { entry: "at sideways".into() }],
        ),
        ("table = 'x-y'\npartition_key = ['id', 'part']", vec![PlanProblemKind::TableName]),
        ("table = ''\npartition_key = ['id', 'part']", vec![PlanProblemKind::TableName]),
        (
            &format!("table = '{}'\npartition_key = ['id', 'part']", "n".repeat(49)),
            vec![PlanProblemKind::TableName],
        ),
        (&format!("table = '{}'\npartition_key = ['id', 'part']", "n".repeat(48)), vec![]),
        (&format!("{FINE}[[target]]\n{FINE}"), vec![PlanProblemKind::TargetTwice { other: "d.t".into() }]),
    ] {
        assert_eq!(problems(&one(target), &t()), expected, "{target}");
    }
    for (body, expected) in [
        ("source = 'd.t'", vec![PlanProblemKind::NoTarget]),
        (&format!("source = 't'\n[[target]]\n{FINE}"), vec![PlanProblemKind::BadSource]),
        (
            &format!("source = 'd.u'\n[[target]]\n{FINE}"),
            vec![PlanProblemKind::OtherTable { found: TableName::new("d", "t") }],
        ),
    ] {
        assert_eq!(problems(&config(body), &t()), expected, "{body}");
    }
    assert_eq!(
        problems(&one(FINE), &table("t", &["id int", "part int"], &[])),
        [PlanProblemKind::NoPrimaryKey]
    );
    let spaced = table("t", &["id int"], &[0]);
    let mut spaced = TableDef::clone(&spaced);
    spaced.columns[0].name = "the desc".into();
    assert_eq!(problems(&same_shape(&spaced), &Arc::new(spaced)), []);
}

#[test]
fn all_problems_are_reported_with_location_and_remedy() {
    let error =
        TablePlan::compile(&one("table = 'a b'\npartition_key = ['at']\nwhere = 'nope'"), &t()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `d.t`, target `a b`: Cassandra allows no table of that name; use 1 to 48 of A-Z, a-z, 0-9 and _\n\
         table `d.t`, target `a b`: `where = \"nope\"`, at 1:1: MySQL's table has no column `nope`; it has `id`, `part`, `at`, `note`, `price`, `ratio`\n\
         table `d.t`, target `a b`: the key lacks `id`, `part` of MySQL's primary key, so two rows could have the same key; add to `clustering_key`"
    );
}

#[test]
fn tables_are_checked_together() {
    let u = table("u", &["id int"], &[0]);
    let other = |source: &str, target: &str| {
        config(&format!("source = '{source}'\n[[target]]\ntable = '{target}'\npartition_key = ['id']"))
    };
    let all = |configs: &[TableConfig]| match compile_all(configs, &[t(), Arc::clone(&u)]) {
        Ok(plans) => Ok(plans.iter().map(|p| p.source().name.table.clone()).collect::<Vec<_>>()),
        Err(error) => Err(error.problems.into_iter().map(|p| p.kind).collect::<Vec<_>>()),
    };
    for (configs, expected) in [
        (vec![one(FINE), other("d.u", "u")], Ok(vec!["t".into(), "u".into()])),
        (vec![one(FINE), other("d.u", "x")], Err(vec![PlanProblemKind::TargetTwice { other: "d.t".into() }])),
        (vec![one(FINE), one(FINE)], Err(vec![PlanProblemKind::SourceTwice])),
        (
            vec![other("d.none", "none"), other("u", "u"), one("table = 'x'\npartition_key = ['id']")],
            Err(vec![
                PlanProblemKind::NoSuchTable,
                PlanProblemKind::BadSource,
                PlanProblemKind::KeyLacksSourceKey { missing: vec!["part".into()] },
            ]),
        ),
    ] {
        assert_eq!(all(&configs), expected);
    }
}

#[test]
fn a_plan_adapts_to_an_altered_table() {
    let changed = |column: &str, was: &str, now: &str| PlanProblemKind::Changed {
        column: column.into(),
        was: was.parse().unwrap(),
        now: now.parse().unwrap(),
    };
    let all =
        ["id bigint", "part int", "at datetime(3)", "note text null", "price decimal(10,2)", "ratio double"];
    let with = |i: usize, column: &'static str| {
        let mut columns = all;
        columns[i] = column;
        table("t", &columns, &[0, 1])
    };
    let extended = table("t", &[&all[..], &["extra int"]].concat(), &[0, 1]);
    let ignoring =
        |target: &str| TableConfig { on_new_column: tandem_mapping::OnNewColumn::Ignore, ..one(target) };
    let omitting = format!("{FINE}exclude_from_target = ['ratio']");
    for (config, new, expected) in [
        (one(FINE), t(), vec![]),
        // Another order of columns, and types that are stored in the same form.
        (one(FINE), table("t", &[all[5], all[4], all[3], all[2], all[1], all[0]], &[5, 4]), vec![]),
        (one(FINE), with(2, "at datetime"), vec![]),
        (one(FINE), with(3, "note enum('a')"), vec![]),
        (one(FINE), with(4, "price decimal(12,2)"), vec![]),
        (one(FINE), with(2, "at datetime(6)"), vec![changed("at", "datetime(3)", "datetime(6)")]),
        (one(FINE), with(2, "at timestamp(3)"), vec![changed("at", "datetime(3)", "timestamp(3)")]),
        (one(FINE), with(4, "price decimal(10,3)"), vec![changed("price", "decimal(10,2)", "decimal(10,3)")]),
        (one(FINE), with(0, "id bigint unsigned"), vec![changed("id", "bigint", "bigint unsigned")]),
        (one(FINE), with(0, "id bigint null"), vec![PlanProblemKind::NullableKey { column: "id".into() }]),
        (
            one(FINE),
            table("t", &all, &[0, 1, 2]),
            vec![PlanProblemKind::KeyLacksSourceKey { missing: vec!["at".into()] }],
        ),
        (
            one(FINE),
            with(3, "memo text null"),
            vec![
                PlanProblemKind::Vanished { column: "note".into() },
                PlanProblemKind::NewColumn { column: "memo".into() },
            ],
        ),
        (
            ignoring(FINE),
            with(3, "memo text null"),
            vec![PlanProblemKind::Vanished { column: "note".into() }],
        ),
        (one(FINE), Arc::clone(&extended), vec![PlanProblemKind::NewColumn { column: "extra".into() }]),
        (ignoring(FINE), extended, vec![]),
        (one(&omitting), table("t", &all[..5], &[0, 1]), vec![]),
        (one(&omitting), with(5, "ratio int"), vec![]),
        (
            one(FINE),
            table("u", &all, &[0, 1]),
            vec![PlanProblemKind::OtherTable { found: TableName::new("d", "u") }],
        ),
    ] {
        let plan = TablePlan::compile(&config, &t()).unwrap();
        match plan.adapt(&new) {
            Ok(adapted) => {
                assert_eq!(expected, [], "{new:?}");
                assert_eq!(adapted.source(), &new);
                assert_eq!(adapted.targets()[0].table(), plan.targets()[0].table());
            }
            Err(error) => {
                assert_eq!(
                    error.problems.into_iter().map(|p| p.kind).collect::<Vec<_>>(),
                    expected,
                    "{new:?}"
                );
            }
        }
    }
}

#[test]
fn a_layout_holds_every_target_and_column_and_nothing_else() {
    let layout = |target: &str| TablePlan::compile(&one(target), &t()).unwrap().layout();
    let known = layout(FINE);
    // The entity does not change the layout.
    let mut same = one(FINE);
    same.entity = Some("thing".into());
    assert_eq!(TablePlan::compile(&same, &t()).unwrap().layout(), known);
    for other in [
        FINE.replace("'x'", "'y'"),
        FINE.replace("['part']", "['part desc']"),
        FINE.replace("['part']", "['at', 'part']"),
        // Where the partition key ends is part of the layout, whichever column follows it.
        FINE.replace("['id']", "['id', 'at']"),
        format!("{FINE}exclude_from_target = ['note']\n"),
        format!("{FINE}where = 'part > 1'\n"),
        format!("{FINE}rename = {{ note = 'text' }}\n"),
        format!("{FINE}[[target]]\n{}", FINE.replace("'x'", "'y'")),
    ] {
        assert_ne!(layout(&other), known, "{other}");
    }
}

#[test]
fn a_spelling_changes_with_the_configuration_of_the_targets() {
    let of = |text: &str| {
        let config: TableConfig = toml::from_str(&format!("source = 'd.t'\n{text}")).unwrap();
        config.spelling()
    };
    let target = "[[target]]\ntable = 't'\npartition_key = ['a']\nexclude_from_target = ['b', 'c']\n";
    assert_eq!(of(target), of(&target.replace("'b', 'c'", "'c', 'b'")));
    assert_eq!(of(target), of(&format!("entity = 'e'\non_new_column = 'ignore'\n{target}")));
    for other in [
        target.replace("'t'", "'u'"),
        target.replace("['a']", "['a', 'd']"),
        target.replace("'b', 'c'", "'b'"),
        format!("{target}where = 'a > 1'\n"),
        format!("{target}rename = {{ d = 'e' }}\n"),
        format!("{target}clustering_key = ['d']\n"),
        format!("{target}{}", target.replace("'t'", "'u'")),
    ] {
        assert_ne!(of(target), of(&other), "{other}");
    }
}
