//! Reads the records that [`TableSchema`](crate::TableSchema) wrote, given the schema's JSON.

use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value as Json;
use tandem_model::{Change, ColumnDef, ColumnType, TableDef, TableName, Value};

use crate::schema::{TABLE_IDENTIFIER, get_key, key_schema, value_schema};
use crate::schema_id::{id_of, unframe};
use crate::{WireError, envelope};

/// The reader of the envelopes of one schema.
#[derive(Debug, Clone)]
pub struct ReadSchema {
    table: Arc<TableDef>,
    id: u32,
}

/// The reader of the record keys of one schema.
#[derive(Debug, Clone)]
pub struct ReadKeySchema {
    table: TableName,
    columns: Vec<ColumnDef>,
    /// Whether the table's identifier follows the columns.
    identified: bool,
    id: u32,
}

impl ReadSchema {
    /// Compiles a reader from the table definition in an envelope's schema.
    ///
    /// Apart from its form, the schema must be exactly the one that Tandem writes for that definition,
    /// because the reader is compiled from the definition. Its form may differ, because registries print
    /// schemas differently: any white space, any order of keys, and names without a namespace that is
    /// implied.
    ///
    /// # Errors
    ///
    /// [`WireError::ForeignSchema`]: the text is not a schema that this release writes.
    pub fn parse(json: &str) -> Result<Self, WireError> {
        let (schema, record) = parse(json)?;
        let row = &schema["fields"][0]["type"][1];
        let columns = columns(&row["fields"])?;
        let primary_key = row["tandem.primary_key"]
            .as_array()
            .ok_or_else(|| foreign("it has no primary key"))?
            .iter()
            .map(|name| columns.iter().position(|c| Some(c.name.as_str()) == name.as_str()))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| foreign("its primary key has an unknown column"))?;
        let table = TableDef { name: record.table, columns, primary_key };
        let ours = value_schema(&table, &record.prefix, record.salt);
        if qualified(&ours) != qualified(&schema) {
            return Err(foreign("its fields differ"));
        }
        Ok(Self { table: Arc::new(table), id: id_of(&ours.to_string()) })
    }

    /// The table definition with which the records of this schema were written.
    pub fn table(&self) -> &Arc<TableDef> {
        &self.table
    }

    /// The schema's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The same schema under another id, which a registry assigned.
    #[must_use]
    pub fn under(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// Reads a framed record of this schema.
    ///
    /// # Errors
    ///
    /// The record has another schema id, is truncated or is corrupt.
    pub fn decode(&self, record: &[u8]) -> Result<Change, WireError> {
        envelope::get(unframe(record, self.id)?, &self.table)
    }
}

impl ReadKeySchema {
    /// Compiles a reader from a key's schema, under the rules of [`ReadSchema::parse`].
    ///
    /// # Errors
    ///
    /// [`WireError::ForeignSchema`]: the text is not a key schema that this release writes.
    pub fn parse(json: &str) -> Result<Self, WireError> {
        let (schema, record) = parse(json)?;
        let mut fields = schema["fields"].clone();
        let identifier = match fields.as_array_mut() {
            Some(fields) => fields
                .pop_if(|field| field["name"] == TABLE_IDENTIFIER && field["tandem.type"].is_null())
                .map(|field| field["tandem.identifier"].as_str().unwrap_or_default().to_owned()),
            None => None,
        };
        let columns = columns(&fields)?;
        let all: Vec<&ColumnDef> = columns.iter().collect();
        let ours = key_schema(&record.table, &record.prefix, &all, identifier.as_deref(), record.salt);
        if qualified(&ours) != qualified(&schema) {
            return Err(foreign("its fields differ"));
        }
        let id = id_of(&ours.to_string());
        Ok(Self { table: record.table, columns, identified: identifier.is_some(), id })
    }

    /// The table.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The primary key's columns in the key's order.
    pub fn columns(&self) -> &[ColumnDef] {
        &self.columns
    }

    /// The schema's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The same schema under another id, which a registry assigned.
    #[must_use]
    pub fn under(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// Reads a framed record key: the values of the primary key in the key's order.
    ///
    /// # Errors
    ///
    /// The key has another schema id, is truncated or is corrupt.
    pub fn decode(&self, key: &[u8]) -> Result<Vec<Value>, WireError> {
        get_key(self.columns.iter(), self.identified, unframe(key, self.id)?)
    }
}

fn foreign(what: &str) -> WireError {
    WireError::ForeignSchema(what.to_owned())
}

/// Tandem's properties of the outermost record.
struct Properties {
    table: TableName,
    prefix: String,
    salt: u32,
}

fn parse(json: &str) -> Result<(Json, Properties), WireError> {
    let schema: Json = serde_json::from_str(json).map_err(|e| foreign(&e.to_string()))?;
    let text = |name: &str| {
        schema[name].as_str().map(str::to_owned).ok_or_else(|| foreign(&format!("it lacks `{name}`")))
    };
    let table = TableName::new(text("tandem.database")?, text("tandem.table")?);
    let prefix = text("tandem.prefix")?;
    let salt = match &schema["tandem.salt"] {
        Json::Null => 0,
        number => number
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| foreign("its salt is not a number"))?,
    };
    Ok((schema, Properties { table, prefix, salt }))
}

/// The schema with all names fully qualified.
fn qualified(schema: &Json) -> Json {
    let mut schema = schema.clone();
    qualify(&mut schema, "");
    schema
}

/// Qualifies the names in a type that lack a namespace (Avro specification, "Names").
fn qualify(ty: &mut Json, namespace: &str) {
    const PRIMITIVE: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let full = |name: &str, namespace: &str| {
        if name.contains('.') || namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{namespace}.{name}")
        }
    };
    match ty {
        Json::String(name) if !PRIMITIVE.contains(&name.as_str()) => *name = full(name, namespace),
        Json::Array(branches) => branches.iter_mut().for_each(|branch| qualify(branch, namespace)),
        Json::Object(record) => {
            let Some(name) = record.get("name").and_then(Json::as_str).map(str::to_owned) else { return };
            let own = record.remove("namespace");
            let name = full(&name, own.as_ref().and_then(Json::as_str).unwrap_or(namespace));
            let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
            for field in record.get_mut("fields").and_then(Json::as_array_mut).into_iter().flatten() {
                if let Some(ty) = field.get_mut("type") {
                    qualify(ty, namespace);
                }
            }
            record.insert("name".into(), name.into());
        }
        _ => {}
    }
}

/// The columns that a record's fields describe.
fn columns(fields: &Json) -> Result<Vec<ColumnDef>, WireError> {
    fields
        .as_array()
        .ok_or_else(|| foreign("it has no row record"))?
        .iter()
        .map(|field| {
            let name = field["tandem.name"].as_str().or(field["name"].as_str());
            let name = name.ok_or_else(|| foreign("a field has no name"))?;
            let ty = field["tandem.type"]
                .as_str()
                .ok_or_else(|| foreign(&format!("field `{name}` lacks `tandem.type`")))?;
            let ty = ColumnType::from_str(ty).map_err(|e| foreign(&format!("field `{name}`: {e}")))?;
            let nullable = field["type"][0].as_str() == Some("null");
            Ok(ColumnDef { name: name.to_owned(), ty, nullable })
        })
        .collect()
}
