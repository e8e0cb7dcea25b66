//! Which target tables this migration may write: those that it owns.
//!
//! - A table of another migration is refused. The other one would take what is written here for mismatches, and
//!   reconcile would delete its rows as extra.
//! - An empty table without an owner is claimed by itself: somebody created it from the printed schema.
//! - A table that was dropped and created again stays with the migration that owned it, and is nobody's for others.
//! - A table without an owner that holds rows is claimed only if that is asked for. The full verification finds rows that
//!   MySQL does not have, and reconcile deletes them.

use std::collections::HashSet;

use anyhow::{Result, bail};
use tandem_cassandra::{Owner, SchemaError, Target};
use tandem_model::TargetTable;

use crate::connect::problem::CheckProblem;

/// What the operator allows beyond the rules above.
#[derive(Debug, Default)]
pub(crate) struct Consent {
    /// To claim tables that hold rows and have no owner.
    pub(crate) adopt: bool,
    /// To claim the tables of this migration.
    pub(crate) take_over: Option<String>,
}

/// What may become of a table.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Owned,
    Claimable,
    OfAnother,
    HoldsRows,
}

/// `holds_rows` matters only where there is no owner, or a stale one.
fn judge(owner: Option<&Owner>, holds_rows: bool, migration: &str, consent: &Consent) -> Verdict {
    match owner {
        Some(owner) if owner.migration == migration && owner.stale => Verdict::Claimable,
        Some(owner) if owner.migration == migration => Verdict::Owned,
        Some(owner) if owner.stale => judge(None, holds_rows, migration, consent),
        Some(owner) if consent.take_over.as_ref() == Some(&owner.migration) => Verdict::Claimable,
        Some(_) => Verdict::OfAnother,
        None if holds_rows && !consent.adopt => Verdict::HoldsRows,
        None => Verdict::Claimable,
    }
}

/// A table as it was found.
struct Found {
    owner: Option<Owner>,
    /// Known where there is no owner, or a stale one.
    holds_rows: bool,
}

/// Looks at the tables. Owners are read after the rows: rows without an owner are not those of another process of this
/// migration, which claimed the table before it wrote.
async fn look(target: &Target, tables: &[TargetTable]) -> Result<Vec<Found>, SchemaError> {
    let mut owners = target.owners().await?;
    let mut rows = Vec::with_capacity(tables.len());
    for table in tables {
        let owned = owners.get(&table.name).is_some_and(|owner| !owner.stale);
        rows.push(!owned && target.holds_rows(&table.name).await?);
    }
    if rows.contains(&true) {
        owners = target.owners().await?;
    }
    let found = |(table, holds_rows): (&TargetTable, bool)| Found {
        owner: owners.get(&table.name).cloned(),
        holds_rows,
    };
    Ok(tables.iter().zip(rows).map(found).collect())
}

/// The target tables that this migration may not write, each with its problem. Tables that do not exist are no problem here.
///
/// # Errors
///
/// Cassandra does not answer, or refuses the query.
pub(crate) async fn refused(
    target: &Target,
    tables: &[TargetTable],
    migration: &str,
    consent: &Consent,
) -> Result<Vec<(String, CheckProblem)>, SchemaError> {
    let found = look(target, tables).await?;
    let problem = |(table, Found { owner, holds_rows }): (&TargetTable, &Found)| {
        let verdict = judge(owner.as_ref(), *holds_rows, migration, consent);
        Some((table.name.clone(), problem(&table.name, owner.as_ref(), &verdict)?))
    };
    Ok(tables.iter().zip(&found).filter_map(problem).collect())
}

fn problem(table: &str, owner: Option<&Owner>, verdict: &Verdict) -> Option<CheckProblem> {
    let other = owner.map_or("", |owner| owner.migration.as_str());
    let (cause, remedy) = match verdict {
        Verdict::Owned | Verdict::Claimable => return None,
        Verdict::OfAnother => (
            format!(
                "it belongs to the migration with kafka.prefix {other:?}: two migrations in one table repair and delete \
                 each other's rows"
            ),
            format!(
                "name another table or keyspace. If that migration has ended for good: \
                 `tandem schema create --take-over {other}`"
            ),
        ),
        Verdict::HoldsRows => (
            "it holds rows and belongs to no migration: rows that MySQL does not have would be deleted"
                .to_owned(),
            "empty the table, or name another. If the rows may be overwritten and deleted: \
             `tandem schema create --adopt`"
                .to_owned(),
        ),
    };
    let (part, what) = ("cassandra", format!("table {table}"));
    Some(CheckProblem { part, what, cause, remedy: Some(remedy), fatal: true, table: None })
}

/// Makes this migration the owner of these tables, which exist. Returns those that held rows when they were claimed.
///
/// # Errors
///
/// A table may not be claimed, another migration was quicker, or Cassandra refuses.
pub(crate) async fn claim(
    target: &Target,
    tables: &[TargetTable],
    migration: &str,
    consent: &Consent,
) -> Result<HashSet<String>> {
    let found = look(target, tables).await?;
    let mut held_rows = HashSet::new();
    for (table, Found { owner, holds_rows }) in tables.iter().zip(found) {
        let verdict = judge(owner.as_ref(), holds_rows, migration, consent);
        if let Some(problem) = problem(&table.name, owner.as_ref(), &verdict) {
            bail!("{problem}");
        }
        let owner = match owner {
            Some(owner) if verdict == Verdict::Owned => owner,
            before => {
                let holds_rows = target.holds_rows(&table.name).await?;
                target.claim(&table.name, migration, holds_rows, before.as_ref()).await?
            }
        };
        // Another migration may have been quicker.
        let verdict = judge(Some(&owner), false, migration, &Consent::default());
        if let Some(problem) = problem(&table.name, Some(&owner), &verdict) {
            bail!("{problem}");
        }
        if owner.held_rows {
            held_rows.insert(table.name.clone());
        }
    }
    Ok(held_rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_claimed_only_if_that_is_safe_or_asked_for() {
        let owner =
            |migration: &str, stale| Some(Owner { migration: migration.into(), held_rows: false, stale });
        let (owned_by, stale) = (|migration| owner(migration, false), |migration| owner(migration, true));
        let none = Consent::default;
        let adopt = || Consent { adopt: true, take_over: None };
        let over = |name: &str| Consent { adopt: true, take_over: Some(name.into()) };
        for (owner, holds_rows, consent, expected) in [
            (owned_by("a"), true, none(), Verdict::Owned),
            (owned_by("b"), false, none(), Verdict::OfAnother),
            (owned_by("b"), true, adopt(), Verdict::OfAnother),
            (owned_by("b"), true, over("c"), Verdict::OfAnother),
            (owned_by("b"), true, over("b"), Verdict::Claimable),
            (stale("a"), true, none(), Verdict::Claimable),
            (stale("b"), false, none(), Verdict::Claimable),
            (stale("b"), true, none(), Verdict::HoldsRows),
            (None, false, none(), Verdict::Claimable),
            (None, true, none(), Verdict::HoldsRows),
            (None, true, adopt(), Verdict::Claimable),
        ] {
            assert_eq!(judge(owner.as_ref(), holds_rows, "a", &consent), expected, "{owner:?} {consent:?}");
        }
    }
}
