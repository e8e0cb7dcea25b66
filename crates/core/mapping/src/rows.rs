//! Converts rows to mutations, and target keys back to primary keys.

use std::sync::Arc;

use tandem_model::{Cell, Change, ColumnType, Mutation, Op, Row, TableDef, TargetKey, Value, Version, Write};

use crate::config::ZeroDates;
use crate::convert::{Unfit, from_cql, to_cql};
use crate::error::RowError;
use crate::plan::{TablePlan, TargetPlan};

/// Cassandra's limit in bytes for the serialised partition key, and for all clustering values together.
const KEY_MAX: usize = 65_535;

/// The row that a target must hold for a MySQL row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRow {
    /// The target's index in the plan.
    pub target: usize,
    /// The row's key in the target.
    pub key: TargetKey,
    /// The row's cells, with explicit NULLs.
    pub cells: Vec<Cell>,
}

impl TablePlan {
    /// Appends the mutations of a change, target by target. All have the change's version.
    ///
    /// - **Create, snapshot:** the full row, with its NULLs unset.
    /// - **Re-snapshot:** what [`TablePlan::repair`] writes, because older cells may exist.
    /// - **Update:** the full row, with NULL only where a column changed to NULL. If the row moves to another
    ///   key of a target, the old key is deleted and the new one is written as for a create.
    /// - **Delete:** a row tombstone.
    /// - **Any change that Cassandra decided:** what [`TablePlan::repair`] writes, with the keys of the row before. A
    ///   gateway that made only a part of the write may have left older cells.
    ///
    /// For a target with a filter, a row outside the filter does not exist. An update that moves a row out of
    /// the filter is a delete. One that moves it in is a create. One that keeps it outside under the same key
    /// writes nothing.
    ///
    /// A delete or a move to another key writes its row tombstone even if the row was outside the filter. A
    /// DDL statement, or a change that became a dead letter, may have moved the row out. Then no row change
    /// has deleted it, and a reader of MySQL can no longer see its key.
    ///
    /// # Errors
    ///
    /// The change does not match the plan, or a row cannot be converted. `out` is unchanged then.
    pub fn mutations(&self, change: &Change, out: &mut Vec<Mutation>) -> Result<(), RowError> {
        let start = out.len();
        let result = self.push_mutations(change, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn push_mutations(&self, change: &Change, out: &mut Vec<Mutation>) -> Result<(), RowError> {
        if !Arc::ptr_eq(&change.table, &self.source) && change.table != self.source {
            return Err(RowError::OtherSchema { table: change.table.name.clone() });
        }
        if change.source.native.is_some() {
            let former = change.before.as_ref().map_or(Vec::new(), |row| self.possible_keys(row));
            out.extend(self.repair(change.after.as_ref(), &former, change.version)?);
            return Ok(());
        }
        let before = || self.image(change.before.as_ref(), "before");
        let after = || self.image(change.after.as_ref(), "after");
        match change.op {
            Op::Resnapshot => out.extend(self.repair(Some(after()?), &[], change.version)?),
            Op::Create | Op::Snapshot => {
                let after = after()?;
                for target in &self.targets {
                    if self.admits(target, after)? {
                        let key = self.target_key(target, after)?;
                        let cells = self.cells(target, after, |_| Cell::Unset)?;
                        out.push(target.mutation(key, change.version, Write::Upsert(cells)));
                    }
                }
            }
            Op::Update => {
                let (before, after) = (before()?, after()?);
                if !self.source.same_key(before, after) {
                    return Err(RowError::PrimaryKeyChanged { table: self.source.name.clone() });
                }
                for target in &self.targets {
                    let (was_in, is_in) = (self.admits(target, before)?, self.admits(target, after)?);
                    let moved = target.key.iter().any(|&i| before[i] != after[i]);
                    let stays = was_in && is_in && !moved;
                    if (moved || was_in && !is_in)
                        && let Some(old) = self.key_to_delete(target, before, was_in)?
                    {
                        out.push(target.mutation(old, change.version, Write::DeleteRow));
                    }
                    if !is_in {
                        continue;
                    }
                    let key = self.target_key(target, after)?;
                    let became_null = |i: usize| stays && !before[i].is_null();
                    let cells =
                        self.cells(target, after, |i| if became_null(i) { Cell::Null } else { Cell::Unset })?;
                    out.push(target.mutation(key, change.version, Write::Upsert(cells)));
                }
            }
            Op::Delete => {
                let before = before()?;
                for target in &self.targets {
                    let was_in = self.admits(target, before)?;
                    if let Some(key) = self.key_to_delete(target, before, was_in)? {
                        out.push(target.mutation(key, change.version, Write::DeleteRow));
                    }
                }
            }
        }
        Ok(())
    }

    /// The key of a row to delete. `None` if the row is outside the filter and its key is not possible in
    /// Cassandra: then nothing is stored there.
    fn key_to_delete(
        &self,
        target: &TargetPlan,
        row: &Row,
        is_in: bool,
    ) -> Result<Option<TargetKey>, RowError> {
        match self.target_key(target, row) {
            Err(error) if is_in => Err(error),
            key => Ok(key.ok()),
        }
    }

    /// The rows that the targets must hold for `row`, in the order of the targets. A target whose filter does
    /// not admit the row must hold nothing.
    ///
    /// # Errors
    ///
    /// The row does not match the plan or cannot be converted.
    pub fn expected(&self, row: &Row) -> Result<Vec<ExpectedRow>, RowError> {
        self.check_shape(row)?;
        let mut expected = Vec::with_capacity(self.targets.len());
        for (i, target) in self.targets.iter().enumerate() {
            if self.admits(target, row)? {
                expected.push(ExpectedRow {
                    target: i,
                    key: self.target_key(target, row)?,
                    cells: self.cells(target, row, |_| Cell::Null)?,
                });
            }
        }
        Ok(expected)
    }

    /// The keys under which a check must look for `row`, each with its target's index.
    ///
    /// These are the row's keys in all targets, even where it is outside the filter. Only a key that is
    /// outside the filter and not possible in Cassandra is left out.
    ///
    /// # Errors
    ///
    /// The row does not match the plan or cannot be converted.
    pub fn target_keys(&self, row: &Row) -> Result<Vec<(usize, TargetKey)>, RowError> {
        self.check_shape(row)?;
        let mut keys = Vec::with_capacity(self.targets.len());
        for (i, target) in self.targets.iter().enumerate() {
            let is_in = self.admits(target, row)?;
            keys.extend(self.key_to_delete(target, row, is_in)?.map(|key| (i, key)));
        }
        Ok(keys)
    }

    /// The row's keys in the targets, each with its target's index, as far as they are possible in Cassandra. Filters
    /// are not asked.
    ///
    /// Under these keys earlier writes of the row may stand, even if the row as a whole cannot be converted.
    pub fn possible_keys(&self, row: &Row) -> Vec<(usize, TargetKey)> {
        self.possible_keys_under(&self.source, row)
    }

    /// The same, for a row under another definition of the table, for example from before an ALTER. Columns are found by
    /// name. A target one of whose key columns was not there then has no key.
    pub fn possible_keys_under(&self, table: &TableDef, row: &Row) -> Vec<(usize, TargetKey)> {
        if row.len() != table.columns.len() {
            return Vec::new();
        }
        let key_of = |target: &TargetPlan| -> Option<TargetKey> {
            let values = target.key.iter().map(|&i| {
                let column = table.column(&self.source.columns[i].name)?;
                to_cql(&table.columns[column].ty, &row[column]).ok()
            });
            let key: TargetKey = values.collect::<Option<_>>()?;
            self.check_key(target, &key).ok()?;
            Some(key)
        };
        let targets = self.targets.iter().enumerate();
        targets.filter_map(|(i, target)| Some((i, key_of(target)?))).collect()
    }

    /// The primary key, in its present order, of a row under another definition of the table. `None` if the primary key
    /// had other columns then.
    pub fn source_key_under(&self, table: &TableDef, row: &Row) -> Option<Vec<Value>> {
        let name = |table: &TableDef, i: usize| table.columns[i].name.clone();
        if row.len() != table.columns.len() || table.primary_key.len() != self.source.primary_key.len() {
            return None;
        }
        let values = self.source.primary_key.iter().map(|&i| {
            let wanted = name(&self.source, i);
            let then = table.primary_key.iter().find(|&&then| name(table, then) == wanted)?;
            Some(row[*then].clone())
        });
        values.collect()
    }

    /// Whether target `target` must hold `row` under `key`: the filter admits the row, and the row has that
    /// key.
    ///
    /// # Errors
    ///
    /// There is no such target, or the row does not match the plan or cannot be converted.
    pub fn stands_at(&self, target: usize, key: &TargetKey, row: &Row) -> Result<bool, RowError> {
        self.check_shape(row)?;
        let target = self.target(target)?;
        Ok(self.admits(target, row)? && self.target_key(target, row)? == *key)
    }

    /// The primary key in MySQL, in its own order, of the row with `key` in target `target`.
    ///
    /// This is the inverse of [`TablePlan::target_keys`]. It exists because a target's key contains the
    /// source's primary key.
    ///
    /// # Errors
    ///
    /// There is no such target, or the bytes are not a key of it.
    pub fn source_key(&self, target: usize, key: &TargetKey) -> Result<Vec<Value>, RowError> {
        let target = self.target(target)?;
        let bad_key = || RowError::BadKey { target: target.table.name.clone() };
        if key.len() != target.key.len() {
            return Err(bad_key());
        }
        let values = target.source_key.iter().map(|&place| {
            from_cql(&self.source.columns[target.key[place]].ty, &key[place]).ok_or_else(bad_key)
        });
        values.collect()
    }

    /// The mutations that repair Cassandra for a row read from MySQL, at `version`.
    ///
    /// They write the row with explicit NULLs, if it exists, and row tombstones for the keys that must not
    /// exist. These are the keys in `also_delete`, each with its target's index, and the row's own keys in
    /// targets whose filter does not admit it. A key under which a target must hold the row is not deleted.
    ///
    /// # Errors
    ///
    /// There is no such target, a key is not one of its target, or the row does not match the plan or cannot
    /// be converted.
    pub fn repair(
        &self,
        row: Option<&Row>,
        also_delete: &[(usize, TargetKey)],
        version: Version,
    ) -> Result<Vec<Mutation>, RowError> {
        let expected = row.map_or(Ok(Vec::new()), |row| self.expected(row))?;
        let own = row.map_or(Ok(Vec::new()), |row| self.target_keys(row))?;
        let mut out = Vec::with_capacity(own.len() + also_delete.len());
        let new = own.iter().filter(|key| !also_delete.contains(key));
        for (number, key) in also_delete.iter().chain(new) {
            let target = self.target(*number)?;
            if key.len() != target.key.len() {
                return Err(RowError::BadKey { target: target.table.name.clone() });
            }
            if !expected.iter().any(|e| e.target == *number && e.key == *key) {
                out.push(target.mutation(key.clone(), version, Write::DeleteRow));
            }
        }
        for ExpectedRow { target, key, cells } in expected {
            out.push(self.targets[target].mutation(key, version, Write::Upsert(cells)));
        }
        Ok(out)
    }

    pub(crate) fn target(&self, number: usize) -> Result<&TargetPlan, RowError> {
        let no_such = || RowError::NoSuchTarget { table: self.source.name.clone(), target: number };
        self.targets.get(number).ok_or_else(no_such)
    }

    fn image<'a>(&self, image: Option<&'a Row>, name: &'static str) -> Result<&'a Row, RowError> {
        let row =
            image.ok_or_else(|| RowError::MissingImage { table: self.source.name.clone(), image: name })?;
        self.check_shape(row)?;
        Ok(row)
    }

    fn check_shape(&self, row: &Row) -> Result<(), RowError> {
        if row.len() == self.source.columns.len() {
            Ok(())
        } else {
            Err(RowError::OtherSchema { table: self.source.name.clone() })
        }
    }

    /// Whether the target must hold the row. The caller has checked the row's shape.
    fn admits(&self, target: &TargetPlan, row: &Row) -> Result<bool, RowError> {
        let Some(filter) = &target.filter else { return Ok(true) };
        filter.admits(row).map_err(|reason| RowError::Filter {
            table: self.source.name.clone(),
            target: target.table.name.clone(),
            expression: filter.text().to_owned(),
            reason,
        })
    }

    pub(crate) fn target_key(&self, target: &TargetPlan, row: &Row) -> Result<TargetKey, RowError> {
        let mut key = Vec::with_capacity(target.key.len());
        for &i in &target.key {
            key.push(self.value(i, row)?);
        }
        self.check_key(target, &key)?;
        Ok(key)
    }

    /// Whether Cassandra allows the key.
    fn check_key(&self, target: &TargetPlan, key: &TargetKey) -> Result<(), RowError> {
        let (partition, clustering) = key.split_at(target.table.partition_key.len());
        let (part, bytes) = match partition {
            [only] => {
                if only.is_empty() {
                    let column = &self.source.columns[target.key[0]];
                    return Err(RowError::EmptyPartitionKey {
                        table: self.source.name.clone(),
                        column: column.name.clone(),
                        target: target.table.name.clone(),
                    });
                }
                ("partition", only.len())
            }
            // Each value of a composite key has two bytes of length before it and one byte after it.
            several => ("partition", several.iter().map(|value| value.len() + 3).sum()),
        };
        let clustering_bytes = clustering.iter().map(Vec::len).sum();
        for (part, bytes) in [(part, bytes), ("clustering", clustering_bytes)] {
            if bytes > KEY_MAX {
                return Err(RowError::KeyTooLong { target: target.table.name.clone(), part, bytes });
            }
        }
        Ok(())
    }

    /// A value as the targets hold it: what `zero_dates` makes of a zero or partial date, and any other value itself.
    pub fn as_stored<'a>(&'a self, column: usize, value: &'a Value) -> &'a Value {
        match (value, self.zero_dates) {
            (Value::InvalidDate(_), ZeroDates::Null) => &Value::Null,
            (Value::InvalidDate(_), ZeroDates::Epoch) => epoch(&self.source.columns[column].ty),
            (value, _) => value,
        }
    }

    fn cells(
        &self,
        target: &TargetPlan,
        row: &Row,
        null: impl Fn(usize) -> Cell,
    ) -> Result<Vec<Cell>, RowError> {
        let mut cells = Vec::with_capacity(target.regular.len());
        for &i in &target.regular {
            let value = self.as_stored(i, &row[i]);
            cells.push(if value.is_null() { null(i) } else { Cell::Value(self.stored(i, value)?) });
        }
        Ok(cells)
    }

    fn value(&self, column: usize, row: &Row) -> Result<Vec<u8>, RowError> {
        self.stored(column, &row[column])
    }

    /// A value of a source column in the serialised form of the targets.
    ///
    /// # Errors
    ///
    /// The value does not match the column's type or cannot be stored.
    pub fn stored(&self, column: usize, value: &Value) -> Result<Vec<u8>, RowError> {
        let def = &self.source.columns[column];
        to_cql(&def.ty, value).map_err(|unfit| {
            let (table, name) = (self.source.name.clone(), def.name.clone());
            match unfit {
                Unfit::InvalidDate => RowError::InvalidDate { table, column: name },
                Unfit::Kind => {
                    RowError::Kind { table, column: name, ty: def.ty.clone(), found: value.kind() }
                }
                Unfit::Range => RowError::Range { table, column: name, ty: def.ty.clone() },
            }
        })
    }
}

/// The epoch as a value of this type. Only dates and times can be invalid, so the other types have none.
fn epoch(ty: &ColumnType) -> &'static Value {
    match ty {
        ColumnType::Date => &Value::Date(0),
        ColumnType::DateTime { .. } => &Value::DateTime(0),
        ColumnType::Timestamp { .. } => &Value::Timestamp(0),
        _ => &Value::Null,
    }
}

impl TargetPlan {
    fn mutation(&self, key: TargetKey, version: Version, write: Write) -> Mutation {
        Mutation { target: Arc::clone(&self.name), key, version, write }
    }
}
