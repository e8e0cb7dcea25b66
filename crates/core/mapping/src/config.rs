//! What the operator writes about a table: the `[[table]]` sections of the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tandem_model::TableDef;

/// `[[table]]`: one MySQL table and the Cassandra tables that it fills.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The MySQL table, as `database.table`.
    pub source: String,
    /// Its name in the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Which topics hold its changes and its copy.
    #[serde(default, skip_serializing_if = "TopicChoice::is_default")]
    pub topic: TopicChoice,
    /// What to do when MySQL gets a column that the plan does not know.
    #[serde(default)]
    pub on_new_column: OnNewColumn,
    /// What to do when rows vanish or appear by TRUNCATE or by partition DDL.
    #[serde(default, skip_serializing_if = "OnTruncate::is_default")]
    pub on_truncate: OnTruncate,
    /// What to do with a row that the mapping cannot convert or that Cassandra refuses.
    #[serde(default, skip_serializing_if = "OnBadRow::is_default")]
    pub on_bad_row: OnBadRow,
    /// What a zero or partial date becomes in Cassandra.
    #[serde(default, skip_serializing_if = "ZeroDates::is_default")]
    pub zero_dates: ZeroDates,
    /// Columns that are not looked at: they are on no topic, in no target and not in the gateway. Without
    /// regard to case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_from_capture: Vec<String>,
    /// The Cassandra tables.
    #[serde(default)]
    pub target: Vec<TargetConfig>,
}

impl TableConfig {
    /// What is written about the target tables, as a text. It changes with every change of them, and also
    /// with some that change nothing: what there really is depends on MySQL's definition too, see
    /// [`TablePlan::layout`](crate::TablePlan::layout).
    pub fn spelling(&self) -> String {
        let mut targets = self.target.clone();
        for target in &mut targets {
            target.exclude_from_target.sort_unstable();
        }
        let zero_dates = if self.zero_dates.is_default() { "" } else { self.zero_dates.name() };
        format!("{targets:?}{zero_dates}")
    }
}

/// Which topics hold a table's changes and its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicChoice {
    /// The change topic and the backfill topic that tables share.
    #[default]
    Shared,
    /// A change topic and a backfill topic of its own.
    Own,
}

impl TopicChoice {
    /// Whether this is the choice where none is written.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What to do with a row that the mapping cannot convert or that Cassandra refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRow {
    /// Put the record on the dead-letter topic, and go on.
    #[default]
    DeadLetter,
    /// Stop apply at the record.
    Halt,
}

impl OnBadRow {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a zero or partial date (`0000-00-00`, `2024-00-00`) becomes in Cassandra, which has no such dates.
///
/// The policy holds for regular columns. In a key such a date is always a bad row: as NULL it could not be stored, and as
/// the epoch two rows could meet in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroDates {
    /// The row is a bad row: see [`OnBadRow`].
    #[default]
    DeadLetter,
    /// NULL.
    Null,
    /// 1970-01-01 00:00:00.
    Epoch,
}

impl ZeroDates {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead-letter",
            Self::Null => "null",
            Self::Epoch => "epoch",
        }
    }
}

/// What to do when rows vanish or appear by TRUNCATE or by partition DDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTruncate {
    /// Halt the table.
    #[default]
    Halt,
    /// Verify the table, and bring Cassandra to what MySQL holds.
    Apply,
}

impl OnTruncate {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What to do when MySQL gets a column that the plan does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNewColumn {
    /// Stop at the first change that has it.
    #[default]
    Halt,
    /// Go on without it.
    Ignore,
    /// Add it to the targets, and copy the table again.
    Add,
}

/// `[[table.target]]`: one Cassandra table. All columns are named as MySQL names them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The table's name within the keyspace, case kept.
    pub table: String,
    /// The columns of the partition key.
    pub partition_key: Vec<String>,
    /// The clustering columns, each with an optional order: `issued_at desc`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clustering_key: Vec<String>,
    /// Columns that are not copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_from_target: Vec<String>,
    /// Which rows the table takes: a CEL expression over the MySQL columns, true for those rows.
    /// Without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#where: Option<String>,
    /// New names: MySQL column to Cassandra column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
}

/// A first configuration for `table`: one target of the same name, partitioned by the first column
/// of the primary key and clustered by its other columns.
pub fn same_shape(table: &TableDef) -> TableConfig {
    let mut key = table.primary_key.iter().map(|&i| table.columns[i].name.clone());
    let partition_key = key.by_ref().take(1).collect();
    TableConfig {
        source: table.name.to_string(),
        entity: None,
        topic: TopicChoice::Shared,
        on_new_column: OnNewColumn::Halt,
        on_truncate: OnTruncate::default(),
        on_bad_row: OnBadRow::default(),
        zero_dates: ZeroDates::default(),
        exclude_from_capture: Vec::new(),
        target: vec![TargetConfig {
            table: table.name.table.clone(),
            partition_key,
            clustering_key: key.collect(),
            ..TargetConfig::default()
        }],
    }
}
