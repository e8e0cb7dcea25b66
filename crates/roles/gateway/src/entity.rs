//! Entities: the mapped tables as clients see them.

use std::collections::HashMap;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};
use tandem_http_api::Problem;
use tandem_mapping::TablePlan;
use tandem_model::{Row, TableDef, Value};
use tandem_wire::log::Topics;
use tandem_wire::{TableSchema, WireError};

use crate::body::Object;
use crate::entity::json::{from_json, from_text, text_of, to_json};
use crate::problem;

mod datetime;
pub(crate) mod json;

/// The most characters of a column's name in MySQL. An error repeats no more of a name that is unknown.
const MAX_NAME: usize = 64;

/// A mapped table, under the name that clients use.
#[derive(Debug)]
pub(crate) struct Entity {
    /// The name in paths.
    pub name: String,
    /// The mapping.
    pub plan: Arc<TablePlan>,
    /// The change topic.
    pub topic: String,
    /// The target that finds a row by the primary key alone. Without such a target, MySQL serves reads by
    /// key.
    pub by_key: Option<usize>,
    /// The column whose values MySQL generates (AUTO_INCREMENT).
    pub generated: Option<usize>,
    /// The columns that clients see, in the table's order: those of the `by_key` target, or all. An answer
    /// therefore looks the same from either store.
    visible: Vec<usize>,
    /// The index of each column by its name. A body may have thousands of names.
    columns: HashMap<String, usize>,
    schema: TableSchema,
}

/// A row's state. It is equal for equal visible values, whichever store they come from.
pub(crate) type ETag = String;

impl Entity {
    /// Creates the entity of a plan. `generated` is the name of its AUTO_INCREMENT column.
    pub(crate) fn new(
        name: Option<String>,
        plan: Arc<TablePlan>,
        topics: &Topics,
        generated: Option<&str>,
    ) -> Self {
        let table = Arc::clone(plan.source());
        let by_key = plan.target_by_primary_key();
        let mut visible: Vec<usize> = match by_key {
            Some(target) => plan.targets()[target].columns().collect(),
            None => (0..table.columns.len()).collect(),
        };
        visible.sort_unstable();
        Self {
            name: name.unwrap_or_else(|| table.name.table.clone()),
            topic: topics.changes(&table.name),
            by_key,
            generated: generated.and_then(|name| table.column(name)),
            visible,
            columns: table.columns.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect(),
            schema: topics.schema(table),
            plan,
        }
    }

    /// The table in MySQL.
    pub(crate) fn table(&self) -> &Arc<TableDef> {
        self.plan.source()
    }

    /// The indexes of the columns that clients see.
    pub(crate) fn visible(&self) -> &[usize] {
        &self.visible
    }

    /// Parses a key from the parts of a path, which are still percent-encoded.
    pub(crate) fn parse_key<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Vec<Value>, Problem> {
        let table = self.table();
        let parts: Vec<&str> = parts.collect();
        if parts.len() != table.primary_key.len() {
            let names: Vec<&str> =
                table.primary_key.iter().map(|&i| table.columns[i].name.as_str()).collect();
            return Err(Problem::not_found(format!(
                "the key of {} is {}, in this order",
                self.name,
                names.join("/")
            )));
        }
        let values = parts.into_iter().zip(&table.primary_key).map(|(part, &column)| {
            let column = &table.columns[column];
            let text = percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| problem::invalid(&column.name, "it is not valid UTF-8"))?;
            from_text(column, &text)
        });
        values.collect()
    }

    /// The path of a row.
    pub(crate) fn path(&self, key: &[Value]) -> String {
        let table = self.table();
        let mut path = format!("/v1/{}", utf8_percent_encode(&self.name, NON_ALPHANUMERIC));
        for (value, &column) in key.iter().zip(&table.primary_key) {
            let text = text_of(&table.columns[column].ty, value);
            path.push('/');
            path.extend(utf8_percent_encode(&text, NON_ALPHANUMERIC));
        }
        path
    }

    /// Parses the columns and values of a body.
    pub(crate) fn parse_values(&self, object: &Object) -> Result<Vec<(usize, Value)>, Problem> {
        let table = self.table();
        let values = object.0.iter().map(|(name, raw)| {
            let unknown = || {
                let name: String = name.chars().take(MAX_NAME).collect();
                problem::invalid(&name, format!("{} has no such column", self.name))
            };
            let column = *self.columns.get(name).ok_or_else(unknown)?;
            Ok((column, from_json(&table.columns[column], raw.get())?))
        });
        values.collect()
    }

    /// The columns of `shown` as a JSON object, with the values that either store has for them.
    pub(crate) fn json_of(&self, row: &Row, shown: &[usize]) -> Json {
        let table = self.table();
        let member = |&i: &usize| {
            let column = &table.columns[i];
            (column.name.clone(), to_json(&column.ty, self.plan.as_stored(i, &row[i])))
        };
        Json::Object(shown.iter().map(member).collect::<Map<_, _>>())
    }

    /// A row as clients see it.
    pub(crate) fn json(&self, row: &Row) -> Json {
        self.json_of(row, &self.visible)
    }

    /// The state of a row, in quotes: half of a SHA-256 over the visible values.
    pub(crate) fn etag(&self, row: &Row) -> ETag {
        let table = self.table();
        let mut hasher = Sha256::new();
        for &i in &self.visible {
            let value = self.plan.as_stored(i, &row[i]);
            let text = text_of(&table.columns[i].ty, value);
            hasher.update([u8::from(value.is_null())]);
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hasher.finalize()[..16]);
        format!("\"{:032x}\"", u128::from_be_bytes(half))
    }

    /// A key in the encoding of the change topic's records.
    pub(crate) fn framed_key(&self, key: &[Value]) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        self.schema.encode_key_values(key, &mut out)?;
        Ok(out)
    }

    /// A key in its canonical text form.
    pub(crate) fn key_text(&self, key: &[Value]) -> String {
        self.path(key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::problem::OfField as _;
    use tandem_mapping::{TargetConfig, same_shape};
    use tandem_model::{ColumnDef, TableName};

    /// `shop.orders (id bigint, region varchar, total decimal null, legacy int null)` by `(id, region)`,
    /// without `legacy`, and by region.
    pub(crate) fn orders() -> Entity {
        let column = |name: &str, ty: &str, nullable| ColumnDef {
            name: name.into(),
            ty: ty.parse().unwrap(),
            nullable,
        };
        let table = TableDef {
            name: TableName::new("shop", "orders"),
            columns: vec![
                column("id", "bigint", false),
                column("region", "varchar(9)", false),
                column("total", "decimal(9,2)", true),
                column("legacy", "int", true),
            ],
            primary_key: vec![0, 1],
        };
        let mut config = same_shape(&table);
        config.target[0].exclude_from_target = vec!["legacy".into()];
        config.target.push(TargetConfig {
            table: "by_total".into(),
            partition_key: vec!["region".into()],
            clustering_key: vec!["id desc".into()],
            ..TargetConfig::default()
        });
        let plan = TablePlan::compile(&config, &Arc::new(table)).unwrap();
        Entity::new(None, Arc::new(plan), &Topics::new("t"), Some("id"))
    }

    fn row(total: Value, legacy: i64) -> Row {
        vec![Value::Int(7), Value::Text("a/é".into()), total, Value::Int(legacy)]
    }

    #[test]
    fn a_path_parses_to_its_key() {
        let orders = orders();
        let key = vec![Value::Int(7), Value::Text("a/é".into())];
        let path = orders.path(&key);
        assert_eq!(path, "/v1/orders/7/a%2F%C3%A9");
        assert_eq!(orders.parse_key(path.split('/').skip(3)), Ok(key));
        for bad in ["7", "7/a/b", "x/a", "7/%ff"] {
            assert!(orders.parse_key(bad.split('/')).is_err(), "{bad}");
        }
    }

    #[test]
    fn columns_excluded_from_the_target_are_not_visible() {
        let orders = orders();
        assert_eq!(orders.by_key, Some(0));
        let json = orders.json(&row(Value::Null, 5));
        assert_eq!(json.to_string(), r#"{"id":7,"region":"a/é","total":null}"#);
        assert_eq!(orders.etag(&row(Value::Null, 5)), orders.etag(&row(Value::Null, 6)));
        let priced = Value::Decimal(tandem_model::Decimal::parse("0.00", 2).unwrap());
        assert_ne!(orders.etag(&row(Value::Null, 5)), orders.etag(&row(priced, 5)));
    }

    #[test]
    fn unknown_columns_are_named() {
        let object: Object = crate::body::parse(br#"{"total":"1.5","nope":1}"#).unwrap();
        assert_eq!(orders().parse_values(&object).unwrap_err().field(), Some("nope"));
        let long = format!(r#"{{"{}":1}}"#, "n".repeat(1000));
        let object: Object = crate::body::parse(long.as_bytes()).unwrap();
        assert_eq!(orders().parse_values(&object).unwrap_err().field(), Some(&*"n".repeat(MAX_NAME)));
    }
}
