//! The schemas of a table, and the writer of its records.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tandem_model::{Change, ColumnDef, TableDef, TableName, Value};

use crate::envelope::EncodedChange;
use crate::images::Images;
use crate::primitive::{Reader, put_bytes};
use crate::schema_id::{id_of, put_frame, unframe};
use crate::{Image, WireError, column, envelope, names};

/// The field by which the key of a record in a shared topic names its table. It is the name that Debezium's topic
/// router (`ByLogicalTableRouter`) gives it, with the same content: the name of the topic that the table would have
/// alone.
pub const TABLE_IDENTIFIER: &str = "__dbz__physicalTableIdentifier";

/// The version of the envelope's structure. Each schema holds it as `tandem.format`.
pub(crate) const FORMAT: u32 = 1;

/// The subject of a table's envelopes on a topic, which other tables share or not.
pub(crate) fn value_subject(table: &TableName, prefix: &str, topic: &str, shared: bool) -> String {
    if shared { format!("{topic}-{}.Envelope", namespace(table, prefix)) } else { format!("{topic}-value") }
}

/// The schemas of one table definition for keys and envelopes, with their ids and the encoder of records.
#[derive(Debug, Clone)]
pub struct TableSchema {
    table: Arc<TableDef>,
    prefix: String,
    /// The table's identifier in the keys of a shared topic, and its Avro bytes.
    identifier: Option<(String, Vec<u8>)>,
    salt: u32,
    key_json: String,
    value_json: String,
    key_id: u32,
    value_id: u32,
}

impl TableSchema {
    /// Creates the schemas of a table with a topic of its own, on the log with this topic prefix.
    pub fn new(table: Arc<TableDef>, prefix: &str) -> Self {
        Self::salted(table, prefix, None, 0)
    }

    /// Creates the schemas of a table in a shared topic, on the log with this topic prefix.
    ///
    /// The last field of a key is then `identifier`, in the field [`TABLE_IDENTIFIER`], so that keys of different
    /// tables differ.
    pub fn in_shared_topic(table: Arc<TableDef>, prefix: &str, identifier: &str) -> Self {
        Self::salted(table, prefix, Some(identifier), 0)
    }

    /// The same schemas with a salt, a number that changes only their ids.
    ///
    /// The schema store uses it if another schema already has the same id. Salt 0 is the same as
    /// [`Self::new`].
    #[must_use]
    pub fn with_salt(&self, salt: u32) -> Self {
        let identifier = self.identifier.as_ref().map(|(identifier, _)| identifier.as_str());
        Self::salted(Arc::clone(&self.table), &self.prefix, identifier, salt)
    }

    fn salted(table: Arc<TableDef>, prefix: &str, identifier: Option<&str>, salt: u32) -> Self {
        let key_columns: Vec<&ColumnDef> = table.primary_key.iter().map(|&i| &table.columns[i]).collect();
        let key_json = key_schema(&table.name, prefix, &key_columns, identifier, salt).to_string();
        let value_json = value_schema(&table, prefix, salt).to_string();
        let (key_id, value_id) = (id_of(&key_json), id_of(&value_json));
        let identifier = identifier.map(|identifier| {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, identifier.as_bytes());
            (identifier.to_owned(), bytes)
        });
        Self { table, prefix: prefix.to_owned(), identifier, salt, key_json, value_json, key_id, value_id }
    }

    /// The table.
    pub fn table(&self) -> &Arc<TableDef> {
        &self.table
    }

    /// The salt of the schemas.
    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// The id of the key's schema.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The id of the envelope's schema.
    pub fn value_id(&self) -> u32 {
        self.value_id
    }

    /// The key's schema, normalised.
    pub fn key_json(&self) -> &str {
        &self.key_json
    }

    /// The envelope's schema, normalised.
    pub fn value_json(&self) -> &str {
        &self.value_json
    }

    /// The subject of this schema's envelopes on a topic, see [`Self::key_subject`].
    pub fn value_subject(&self, topic: &str) -> String {
        value_subject(&self.table.name, &self.prefix, topic, self.identifier.is_some())
    }

    /// The subject of this schema's keys on a topic, as Confluent's serializers name it.
    ///
    /// A topic of its own follows the strategy `TopicNameStrategy`, for example `p.shop.orders-key`. A shared topic
    /// follows `TopicRecordNameStrategy`, for example `p.changes-p.shop.orders.Key`, because it has many schemas.
    pub fn key_subject(&self, topic: &str) -> String {
        if self.identifier.is_some() {
            format!("{topic}-{}.Key", namespace(&self.table.name, &self.prefix))
        } else {
            format!("{topic}-key")
        }
    }

    /// Appends the framed record key of a row of this table.
    pub fn put_key(&self, image: Image<'_>, out: &mut Vec<u8>) {
        put_frame(out, self.key_id);
        out.extend_from_slice(image.key);
        self.put_identifier(out);
    }

    fn put_identifier(&self, out: &mut Vec<u8>) {
        if let Some((_, bytes)) = &self.identifier {
            out.extend_from_slice(bytes);
        }
    }

    /// Appends the framed envelope of a change of this table.
    ///
    /// # Errors
    ///
    /// The change lacks an image that its operation needs. `out` is unchanged then.
    pub fn put_value(&self, change: &EncodedChange<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
        let start = out.len();
        put_frame(out, self.value_id);
        let result = envelope::put(out, &self.table, &self.prefix, change);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// The images of a change of this table: the image before and the image after, as far as they exist.
    ///
    /// The change's own `table` is ignored. Its rows must be rows of this table.
    ///
    /// # Errors
    ///
    /// A row does not fit this table.
    pub fn images(&self, change: &Change) -> Result<Images, WireError> {
        let mut images = Images::default();
        for row in [&change.before, &change.after].into_iter().flatten() {
            images.push(&self.table, row)?;
        }
        Ok(images)
    }

    /// Appends the framed record key for the values of a primary key, in the key's order.
    ///
    /// # Errors
    ///
    /// The values do not fit the primary key. `out` is unchanged then.
    pub fn encode_key_values(&self, key: &[Value], out: &mut Vec<u8>) -> Result<(), WireError> {
        if key.len() != self.table.primary_key.len() {
            return Err(WireError::CellCount {
                table: format!("the primary key of {}", self.table.name),
                cells: key.len(),
                columns: self.table.primary_key.len(),
            });
        }
        let start = out.len();
        put_frame(out, self.key_id);
        let result = self.key_columns().zip(key).try_for_each(|(c, value)| column::put(out, c, value));
        match result {
            Ok(()) => self.put_identifier(out),
            Err(_) => out.truncate(start),
        }
        result
    }

    /// Reads a framed record key of this schema: the values of the primary key in the key's order.
    ///
    /// # Errors
    ///
    /// The key has another schema id, is truncated or is corrupt.
    pub fn decode_key(&self, key: &[u8]) -> Result<Vec<Value>, WireError> {
        get_key(self.key_columns(), self.identifier.is_some(), unframe(key, self.key_id)?)
    }

    fn key_columns(&self) -> impl Iterator<Item = &ColumnDef> {
        self.table.primary_key.iter().map(|&i| &self.table.columns[i])
    }
}

/// Reads a key without its frame, with or without a table's identifier at its end.
pub(crate) fn get_key<'a>(
    columns: impl Iterator<Item = &'a ColumnDef>,
    identified: bool,
    bytes: &[u8],
) -> Result<Vec<Value>, WireError> {
    let mut reader = Reader::new(bytes);
    let values = columns.map(|c| column::get(&mut reader, c)).collect::<Result<_, _>>()?;
    if identified {
        reader.bytes()?;
    }
    reader.end()?;
    Ok(values)
}

/// The namespace of a table's records.
fn namespace(name: &TableName, prefix: &str) -> String {
    let mut out = String::new();
    for part in prefix.split('.').filter(|p| !p.is_empty()) {
        let _ = write!(out, "{}.", names::of_namespace(part));
    }
    let _ = write!(out, "{}.{}", names::of_namespace(&name.database), names::of_namespace(&name.table));
    out
}

/// The Avro fields of columns.
fn fields(columns: &[&ColumnDef]) -> Json {
    let names = names::of_columns(columns.iter().map(|c| c.name.as_str()));
    Json::Array(
        columns
            .iter()
            .zip(names)
            .map(|(column, name)| {
                let mut field = Map::new();
                field.insert("name".into(), name.clone().into());
                field.insert("type".into(), column::avro_type(column));
                if column.nullable {
                    field.insert("default".into(), Json::Null);
                }
                field.insert("tandem.type".into(), column.ty.to_string().into());
                if name != column.name {
                    field.insert("tandem.name".into(), column.name.clone().into());
                }
                Json::Object(field)
            })
            .collect(),
    )
}

/// Adds the properties from which a reader reconstructs the table definition.
fn put_properties(record: &mut Map<String, Json>, name: &TableName, prefix: &str, salt: u32) {
    record.insert("tandem.format".into(), FORMAT.into());
    record.insert("tandem.prefix".into(), prefix.into());
    record.insert("tandem.database".into(), name.database.clone().into());
    record.insert("tandem.table".into(), name.table.clone().into());
    if salt != 0 {
        record.insert("tandem.salt".into(), salt.into());
    }
}

/// The schema of a record key: the primary key's columns in the key's order, and the table's identifier if the topic
/// is shared.
pub(crate) fn key_schema(
    name: &TableName,
    prefix: &str,
    columns: &[&ColumnDef],
    identifier: Option<&str>,
    salt: u32,
) -> Json {
    let mut record = Map::new();
    record.insert("type".into(), "record".into());
    record.insert("name".into(), "Key".into());
    record.insert("namespace".into(), namespace(name, prefix).into());
    put_properties(&mut record, name, prefix, salt);
    let mut fields = fields(columns);
    if let (Some(identifier), Json::Array(fields)) = (identifier, &mut fields) {
        fields.push(json!({"name": TABLE_IDENTIFIER, "type": "string", "tandem.identifier": identifier}));
    }
    record.insert("fields".into(), fields);
    Json::Object(record)
}

/// The schema of the envelope.
pub(crate) fn value_schema(table: &TableDef, prefix: &str, salt: u32) -> Json {
    let namespace = namespace(&table.name, prefix);
    let columns: Vec<&ColumnDef> = table.columns.iter().collect();
    let key: Vec<Json> = table.primary_key.iter().map(|&i| table.columns[i].name.clone().into()).collect();
    let mut row = Map::new();
    row.insert("type".into(), "record".into());
    row.insert("name".into(), "Value".into());
    row.insert("tandem.primary_key".into(), Json::Array(key));
    row.insert("fields".into(), fields(&columns));

    let mut record = Map::new();
    record.insert("type".into(), "record".into());
    record.insert("name".into(), "Envelope".into());
    record.insert("namespace".into(), namespace.clone().into());
    put_properties(&mut record, &table.name, prefix, salt);
    record.insert(
        "fields".into(),
        json!([
            {"name": "before", "type": ["null", Json::Object(row)], "default": null},
            {"name": "after", "type": ["null", format!("{namespace}.Value")], "default": null},
            {"name": "source", "type": envelope::source_schema()},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": "long"},
            {"name": "ts_us", "type": "long"},
            {"name": "ts_ns", "type": "long"},
            {"name": "transaction", "type": ["null", envelope::transaction_schema()], "default": null},
        ]),
    );
    Json::Object(record)
}
