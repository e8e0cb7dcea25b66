//! Decodes Avro records to JSON by their schema, without a crate of Tandem or of Avro. So it finds what any
//! reader would find (Avro specification, "Binary Encoding").

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

/// A schema, with the records that it defines.
#[derive(Debug)]
pub(super) struct Schema {
    root: Json,
    named: HashMap<String, Json>,
}

/// A column, from the fields of a row's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name in MySQL.
    pub(super) name: String,
    /// Its name in the record.
    pub(super) field: String,
    /// Its MySQL type, without lengths and character sets.
    pub(super) ty: String,
}

impl Schema {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let root: Json = serde_json::from_str(text).context("a schema is no JSON")?;
        let mut named = HashMap::new();
        name_records(&root, "", &mut named);
        Ok(Self { root, named })
    }

    /// The columns of a key's record, or of the rows in an envelope.
    pub(super) fn columns(&self) -> Vec<Column> {
        let before = &self.root["fields"][0];
        let record = if before["name"] == "before" { &before["type"][1] } else { &self.root };
        let fields = record["fields"].as_array().map_or(&[][..], Vec::as_slice);
        fields
            .iter()
            .filter_map(|field| {
                let text = |name: &str| field[name].as_str().map(str::to_owned);
                let name = text("name")?;
                Some(Column {
                    name: text("tandem.name").unwrap_or_else(|| name.clone()),
                    field: name,
                    ty: text("tandem.type")?,
                })
            })
            .collect()
    }

    /// Decodes a record without its frame. Bytes become base64, as in Kafka's JSON converter.
    pub(super) fn read(&self, mut bytes: &[u8]) -> Result<Json> {
        let value = self.value(&self.root, &mut bytes)?;
        ensure!(bytes.is_empty(), "{} bytes follow the record", bytes.len());
        Ok(value)
    }

    fn value(&self, schema: &Json, bytes: &mut &[u8]) -> Result<Json> {
        Ok(match schema {
            Json::String(name) => match name.as_str() {
                "null" => Json::Null,
                "int" | "long" => long(bytes)?.into(),
                "float" => f64::from(f32::from_le_bytes(array(bytes)?)).into(),
                "double" => f64::from_le_bytes(array(bytes)?).into(),
                "bytes" => STANDARD.encode(counted(bytes)?).into(),
                "string" => String::from_utf8(counted(bytes)?.to_vec()).context("a text is no UTF-8")?.into(),
                name => {
                    self.value(self.named.get(name).with_context(|| format!("no type {name}"))?, bytes)?
                }
            },
            Json::Array(branches) => {
                let branch = long(bytes)?;
                let branch = usize::try_from(branch).ok().and_then(|i| branches.get(i));
                self.value(branch.context("a union has no such branch")?, bytes)?
            }
            Json::Object(object) => match object.get("fields").and_then(Json::as_array) {
                Some(fields) => {
                    let mut record = Map::new();
                    for field in fields {
                        let name = field["name"].as_str().context("a field has no name")?;
                        let value =
                            self.value(&field["type"], bytes).with_context(|| format!("field {name}"))?;
                        record.insert(name.to_owned(), value);
                    }
                    Json::Object(record)
                }
                None => self.value(&schema["type"], bytes)?,
            },
            other => bail!("no schema: {other}"),
        })
    }
}

/// Collects the records inside a schema by their full names.
fn name_records(schema: &Json, namespace: &str, named: &mut HashMap<String, Json>) {
    match schema {
        Json::Array(branches) => branches.iter().for_each(|branch| name_records(branch, namespace, named)),
        Json::Object(object) => {
            let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
            if let (Some(fields), Some(name)) =
                (object.get("fields").and_then(Json::as_array), object.get("name").and_then(Json::as_str))
            {
                named.insert(format!("{namespace}.{name}"), schema.clone());
                for field in fields {
                    name_records(&field["type"], namespace, named);
                }
            }
        }
        _ => {}
    }
}

fn long(bytes: &mut &[u8]) -> Result<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let [byte] = array(bytes)?;
        ensure!(shift < 64, "a number is too long");
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
}

fn counted<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(long(bytes)?).context("a length is negative")?;
    let (found, rest) = bytes.split_at_checked(length).context("the record ends early")?;
    *bytes = rest;
    Ok(found)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (found, rest) = bytes.split_first_chunk().context("the record ends early")?;
    *bytes = rest;
    Ok(*found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_with_a_union_and_a_name_used_again() {
        let row = json!({"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "int", "tandem.type": "int"},
            {"name": "_x", "type": ["null", {"type": "bytes", "logicalType": "decimal"}],
             "tandem.type": "decimal(4,2)", "tandem.name": "ü x"}]});
        let schema = json!({"type": "record", "name": "Envelope", "namespace": "a.b", "fields": [
            {"name": "before", "type": ["null", row]}, {"name": "after", "type": ["null", "a.b.Value"]},
            {"name": "op", "type": "string"}]});
        let schema = Schema::parse(&schema.to_string()).unwrap();
        let bytes = [0, 2, 5, 2, 4, 1, 200, 2, b'c'];
        assert_eq!(
            schema.read(&bytes).unwrap(),
            json!({"before": null, "after": {"id": -3, "_x": "Acg="}, "op": "c"})
        );
        assert!(schema.read(&bytes[..8]).is_err());
        assert!(schema.read(&[&bytes[..], &[0]].concat()).is_err());
        let columns = schema.columns();
        assert_eq!((columns[1].name.as_str(), columns[1].field.as_str()), ("ü x", "_x"));
    }
}
