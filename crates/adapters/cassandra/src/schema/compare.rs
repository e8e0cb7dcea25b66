//! Compares Cassandra's tables with the required ones.

use tandem_model::{ClusteringOrder, CqlColumn, CqlType, TargetTable};

use crate::error::SchemaError;
use crate::statement::cql;

/// How the problem of a missing column ends.
const MISSING: &str = "` is missing";

/// A difference between a required table and the existing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table; empty for the keyspace itself.
    pub table: String,
    /// The difference.
    pub problem: String,
    /// The CQL statement that fixes it, if there is one.
    pub remedy: Option<String>,
}

impl Finding {
    /// Whether the table or the keyspace does not exist. Tandem creates missing ones and never alters
    /// existing ones.
    pub fn is_absence(&self) -> bool {
        self.remedy.as_ref().is_some_and(|cql| cql.starts_with("CREATE "))
    }

    /// The missing column that the remedy adds.
    pub fn missing_column(&self) -> Option<&str> {
        self.problem.strip_prefix("column `")?.strip_suffix(MISSING)
    }
}

/// A row of `system_schema.columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActualColumn {
    pub(crate) name: String,
    pub(crate) clustering_order: String,
    pub(crate) kind: String,
    pub(crate) position: i32,
    pub(crate) ty: String,
}

/// A table as `system_schema` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActualTable {
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
    pub(crate) default_ttl: i32,
    pub(crate) gc_grace_seconds: i32,
    pub(crate) columns: Vec<ActualColumn>,
}

impl ActualTable {
    fn of_kind(&self, kind: &str) -> Vec<&ActualColumn> {
        let mut columns: Vec<_> = self.columns.iter().filter(|c| c.kind == kind).collect();
        columns.sort_by_key(|c| c.position);
        columns
    }

    /// Converts it to a table that Tandem writes. Fails if Tandem cannot write a column.
    pub(crate) fn to_target(&self) -> Result<TargetTable, SchemaError> {
        let column = |c: &ActualColumn| -> Result<CqlColumn, SchemaError> {
            let ty: CqlType = c.ty.parse().map_err(|cause| self.refused(c, cause))?;
            Ok(CqlColumn { name: c.name.clone(), ty })
        };
        if let Some(c) = self.of_kind("static").first() {
            return Err(self.refused(c, "static columns are shared by a partition's rows".into()));
        }
        let all = |kind| self.of_kind(kind).into_iter().map(column).collect::<Result<Vec<_>, _>>();
        let clustering = self.of_kind("clustering").into_iter().map(|c| Ok((column(c)?, order(c))));
        Ok(TargetTable {
            name: self.name.clone(),
            partition_key: all("partition_key")?,
            clustering: clustering.collect::<Result<_, SchemaError>>()?,
            regular: all("regular")?,
        })
    }

    fn refused(&self, column: &ActualColumn, cause: String) -> SchemaError {
        SchemaError::Column { table: self.name.clone(), column: column.name.clone(), cause }
    }
}

fn order(column: &ActualColumn) -> ClusteringOrder {
    if column.clustering_order == "desc" { ClusteringOrder::Descending } else { ClusteringOrder::Ascending }
}

/// Formats a key column for messages: `name type`, and `desc` if it is descending.
fn spelled(name: &str, ty: &str, order: ClusteringOrder) -> String {
    format!("{name} {ty}{}", if order == ClusteringOrder::Descending { " desc" } else { "" })
}

/// Returns everything that prevents Tandem from writing `wanted` to the existing table. An additional column
/// is no obstacle, unless Cassandra or Tandem refuses the whole table because of it (counters, static
/// columns).
pub(crate) fn compare(keyspace: &str, wanted: &TargetTable, actual: Option<&ActualTable>) -> Vec<Finding> {
    let finding = |problem: String, remedy| Finding { table: wanted.name.clone(), problem, remedy };
    let Some(actual) = actual else {
        return vec![finding("the table does not exist".into(), Some(cql::create_table(keyspace, wanted)))];
    };
    if actual.flags.iter().any(|f| f == "counter") {
        return vec![finding("it is a counter table; counters take no timestamps".into(), None)];
    }
    let mut findings = Vec::new();
    let partition: Vec<_> = wanted.partition_key.iter().map(|c| (c, ClusteringOrder::Ascending)).collect();
    let clustering: Vec<_> = wanted.clustering.iter().map(|(c, o)| (c, *o)).collect();
    for (what, kind, wanted) in
        [("partition key", "partition_key", partition), ("clustering key", "clustering", clustering)]
    {
        let wanted: Vec<_> = wanted.iter().map(|(c, o)| spelled(&c.name, c.ty.name(), *o)).collect();
        let is: Vec<_> =
            actual.of_kind(kind).into_iter().map(|c| spelled(&c.name, &c.ty, order(c))).collect();
        if wanted != is {
            let problem = format!(
                "the {what} is ({}), wanted is ({}); a key cannot be altered: drop the table or name another",
                is.join(", "),
                wanted.join(", ")
            );
            findings.push(finding(problem, None));
        }
    }
    for column in &wanted.regular {
        match actual.columns.iter().find(|c| c.name == column.name) {
            None => findings.push(finding(
                format!("column `{}{MISSING}", column.name),
                Some(cql::add_column(keyspace, &wanted.name, column)),
            )),
            Some(c) if c.kind != "regular" => findings.push(finding(
                format!("column `{}` is a {} column, wanted is a regular one", c.name, c.kind.replace('_', " ")),
                None,
            )),
            Some(c) if c.ty != column.ty.name() => findings.push(finding(
                format!(
                    "column `{}` is of type {}, wanted is {}; a type cannot be altered: drop the table or name \
                     another",
                    c.name, c.ty, column.ty
                ),
                None,
            )),
            Some(_) => {}
        }
    }
    for c in actual.of_kind("static") {
        if !wanted.regular.iter().any(|w| w.name == c.name) {
            let problem = format!("column `{}` is static; a table with static columns is refused", c.name);
            findings.push(finding(problem, None));
        }
    }
    if actual.default_ttl != 0 {
        findings.push(finding(
            format!("rows expire after {} s (default_time_to_live)", actual.default_ttl),
            Some(cql::no_default_ttl(keyspace, &wanted.name)),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actual_column(name: &str, kind: &str, position: i32, ty: &str) -> ActualColumn {
        ActualColumn {
            name: name.into(),
            clustering_order: if kind == "clustering" { "desc" } else { "none" }.into(),
            kind: kind.into(),
            position,
            ty: ty.into(),
        }
    }

    fn actual() -> ActualTable {
        ActualTable {
            name: "T".into(),
            flags: vec!["compound".into()],
            default_ttl: 0,
            gc_grace_seconds: 864_000,
            columns: vec![
                actual_column("a", "clustering", 0, "int"),
                actual_column("b", "partition_key", 1, "text"),
                actual_column("c", "regular", -1, "decimal"),
                actual_column("z", "partition_key", 0, "bigint"),
            ],
        }
    }

    fn wanted() -> TargetTable {
        let column = |name: &str, ty| CqlColumn { name: name.into(), ty };
        TargetTable {
            name: "T".into(),
            partition_key: vec![column("z", CqlType::Bigint), column("b", CqlType::Text)],
            clustering: vec![(column("a", CqlType::Int), ClusteringOrder::Descending)],
            regular: vec![column("c", CqlType::Decimal)],
        }
    }

    fn problems(wanted: &TargetTable, actual: &ActualTable) -> Vec<String> {
        compare("k", wanted, Some(actual)).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn an_equal_table_has_no_findings() {
        assert_eq!(actual().to_target().unwrap(), wanted());
        assert_eq!(problems(&wanted(), &actual()), Vec::<String>::new());
    }

    #[test]
    fn unsupported_columns_are_refused() {
        for (kind, ty) in [("regular", "list<int>"), ("regular", "counter"), ("static", "int")] {
            let mut table = actual();
            table.columns.push(actual_column("x", kind, -1, ty));
            let error = table.to_target().unwrap_err();
            assert!(matches!(error, SchemaError::Column { column, .. } if column == "x"));
        }
    }

    #[test]
    fn differences() {
        let missing = compare("k", &wanted(), None);
        assert!(missing[0].remedy.as_ref().is_some_and(|m| m.starts_with("CREATE TABLE")));
        assert!(missing[0].is_absence());

        let mut table = actual();
        table.columns[0].clustering_order = "asc".into();
        assert!(
            problems(&wanted(), &table)[0]
                .starts_with("the clustering key is (a int), wanted is (a int desc)")
        );

        let mut table = actual();
        table.columns[1].position = 0;
        table.columns[3].position = 1;
        assert!(problems(&wanted(), &table)[0].starts_with("the partition key is (b text, z bigint)"));

        let mut table = actual();
        table.columns.remove(2);
        let altered = compare("k", &wanted(), Some(&table));
        assert!(!altered[0].is_absence() && altered[0].missing_column() == Some("c"));
        assert_eq!(
            altered,
            [Finding {
                table: "T".into(),
                problem: "column `c` is missing".into(),
                remedy: Some(r#"ALTER TABLE "k"."T" ADD "c" decimal"#.into()),
            }]
        );

        let mut table = actual();
        table.columns[2].ty = "double".into();
        assert!(
            problems(&wanted(), &table)[0].starts_with("column `c` is of type double, wanted is decimal")
        );

        let mut table = actual();
        table.columns.push(actual_column("extra", "regular", -1, "frozen<list<int>>"));
        assert_eq!(problems(&wanted(), &table), Vec::<String>::new());

        let mut table = actual();
        table.columns.push(actual_column("s", "static", -1, "int"));
        table.default_ttl = 60;
        assert_eq!(problems(&wanted(), &table).len(), 2);

        let mut table = actual();
        table.flags.push("counter".into());
        assert_eq!(problems(&wanted(), &table).len(), 1);
    }
}
