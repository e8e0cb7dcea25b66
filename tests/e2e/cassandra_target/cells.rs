//! The rules that decide which of two writes is visible.

use tandem_model::{Cell, Mutation};

use super::{config, delete, drop_keyspace, key, plain, shown, target, text, upsert};

/// Both orders of arrival have the same result, one after the other and next to each other in one batch.
#[tokio::test]
async fn rules_of_cells() -> anyhow::Result<()> {
    let config = config("cells");
    let target = target(&config, &[plain("t")]).await?;
    let unset = || vec![Cell::Unset, Cell::Unset];
    let a = |value: &str| vec![text(value), Cell::Unset];
    let b = |value: &str| vec![Cell::Unset, text(value)];
    let up = |version, cells| upsert("t", 0, version, cells);
    let del = |version| delete("t", 0, version);
    let cases: Vec<(&str, Vec<Mutation>, &str)> = vec![
        ("a row tombstone beats a value of its own timestamp", vec![up(5, a("x")), del(5)], "no row"),
        (
            "a cell tombstone beats a value of its own timestamp",
            vec![up(5, a("x")), up(5, vec![Cell::Null, Cell::Unset])],
            "- -",
        ),
        ("the larger of two values of one timestamp wins", vec![up(5, a("x")), up(5, a("y"))], "y@5 -"),
        ("a value above a row tombstone stays", vec![del(10), up(11, a("x"))], "x@11 -"),
        ("a value below a row tombstone does not come back", vec![del(10), up(9, a("x"))], "no row"),
        ("unset leaves what is there", vec![up(1, vec![text("x"), text("y")]), up(2, a("z"))], "z@2 y@1"),
        (
            "NULL deletes",
            vec![up(1, vec![text("x"), text("y")]), up(2, vec![Cell::Null, text("z")])],
            "- z@2",
        ),
        ("an older NULL deletes nothing", vec![up(3, a("x")), up(2, vec![Cell::Null, text("y")])], "x@3 y@2"),
        ("cells that are all unset make a row", vec![up(1, unset())], "- -"),
        ("a row of NULLs is a row", vec![del(1), up(2, vec![Cell::Null, Cell::Null])], "- -"),
        ("each cell has its own writetime", vec![up(1, a("x")), up(2, b("y"))], "x@1 y@2"),
        ("REPLACE", vec![up(1, vec![text("x"), text("y")]), del(2), up(3, a("z"))], "z@3 -"),
        ("an update before an older delete", vec![up(1, a("x")), up(3, b("y")), del(2)], "- y@3"),
        (
            "a partial row over a deleted one",
            vec![up(1, a("x")), del(2), up(3, b("y")), up(4, b("z"))],
            "- z@4",
        ),
    ];
    let mut id = 0;
    for (rule, mutations, expected) in cases {
        let orders = [mutations.clone(), mutations.into_iter().rev().collect()];
        for (mut mutations, one_batch) in orders.into_iter().flat_map(|m| [(m.clone(), true), (m, false)]) {
            id += 1;
            for mutation in &mut mutations {
                mutation.key = key(id);
            }
            if one_batch {
                target.write(mutations).await?;
            } else {
                for mutation in mutations {
                    target.write(vec![mutation]).await?;
                }
            }
            let rows = target.read("t", &[key(id)]).await?;
            assert_eq!(shown(rows[0].as_ref()), expected, "{rule} (one batch: {one_batch})");
        }
    }
    // Only INSERT leaves a row marker. An UPDATE to NULL makes no row, and its row disappears with its cells.
    let update = |id: i64, at: i64, value: &str| {
        format!("UPDATE \"{}\".t USING TIMESTAMP {at} SET a = {value} WHERE id = {id}", config.keyspace)
    };
    target.write(vec![up(1, a("x")), del(2)]).await?;
    target.execute_ddl(&update(0, 3, "null")).await?;
    assert_eq!(shown(target.read("t", &[key(0)]).await?[0].as_ref()), "no row");
    target.execute_ddl(&update(0, 4, "'y'")).await?;
    assert_eq!(shown(target.read("t", &[key(0)]).await?[0].as_ref()), "y@4 -");
    drop_keyspace(&target).await
}

/// Many changes of one row exceed the size of one batch. With large rows it takes fewer changes.
#[tokio::test]
async fn one_row_changed_many_times_in_one_write() -> anyhow::Result<()> {
    let config = config("hot");
    let target = target(&config, &[plain("t")]).await?;
    let changes =
        (1..=2_000).map(|v| upsert("t", 1, v, vec![text(&format!("{v}")), text(&"x".repeat(3_000))]));
    let mut mutations: Vec<_> = changes.collect();
    mutations.push(upsert("t", 1, 2_001, vec![Cell::Unset, Cell::Null]));
    target.write(mutations).await?;
    assert_eq!(shown(target.read("t", &[key(1)]).await?[0].as_ref()), "2000@2000 -");
    drop_keyspace(&target).await
}
