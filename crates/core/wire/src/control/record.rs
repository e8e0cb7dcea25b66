//! The common parts of all control records: schema, format and encoding.

use std::cmp::Ordering;
use std::sync::OnceLock;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value, to_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WireError;
use crate::primitive::Reader;
use crate::schema_id::{id_of, normalise, put_frame, schema_id};

/// The schema of one kind of control record.
#[derive(Debug)]
pub struct ControlSchema {
    name: &'static str,
    format: i32,
    text: &'static str,
    parsed: OnceLock<(Schema, String, u32)>,
}

impl ControlSchema {
    pub(super) const fn new(name: &'static str, text: &'static str) -> Self {
        Self::of_format(1, name, text)
    }

    pub(super) const fn of_format(format: i32, name: &'static str, text: &'static str) -> Self {
        Self { name, format, text, parsed: OnceLock::new() }
    }

    /// The format that this release writes and reads.
    pub fn format(&self) -> i32 {
        self.format
    }

    /// The record's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The normalised schema, which the schema store registers.
    pub fn json(&self) -> &str {
        &self.parsed().1
    }

    /// The schema's id.
    pub fn id(&self) -> u32 {
        self.parsed().2
    }

    /// The error for a record of another format.
    fn other_format(&self, found: i64) -> Option<WireError> {
        let (record, known) = (self.name, i64::from(self.format));
        match found.cmp(&known) {
            Ordering::Equal => None,
            Ordering::Greater => Some(WireError::LaterFormat { record, found, known }),
            Ordering::Less => Some(WireError::EarlierFormat { record, found, known }),
        }
    }

    fn parsed(&self) -> &(Schema, String, u32) {
        self.parsed.get_or_init(|| {
            let json = normalise(self.text).expect("the built-in schemas are JSON; a test parses them");
            let schema = Schema::parse_str(&json).expect("the built-in schemas are Avro; a test parses them");
            let id = id_of(&json);
            (schema, json, id)
        })
    }
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// A control record: a [`WatermarkRecord`](super::WatermarkRecord), a [`tandem_model::PhaseRecord`], or one of
/// this module's own records.
pub trait ControlRecord: Sized + sealed::Sealed {
    /// The record's fields in Avro.
    #[doc(hidden)]
    type Fields: Serialize + DeserializeOwned;

    /// The record's schema.
    fn schema() -> &'static ControlSchema;

    #[doc(hidden)]
    fn to_fields(&self) -> Self::Fields;

    #[doc(hidden)]
    fn from_fields(fields: Self::Fields) -> Result<Self, String>;
}

/// Encodes a framed control record.
///
/// # Errors
///
/// The fields do not match the schema.
pub fn encode_control<R: ControlRecord>(record: &R) -> Result<Vec<u8>, WireError> {
    let schema = R::schema();
    let failed = |cause: String| WireError::Control { record: schema.name, action: "written", cause };
    let Avro::Record(mut fields) = to_value(record.to_fields()).map_err(|e| failed(e.to_string()))? else {
        return Err(failed("it is not a record".into()));
    };
    fields.insert(0, ("format".into(), Avro::Int(schema.format)));
    let (avro, _, id) = schema.parsed();
    let value = Avro::Record(fields).resolve(avro).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    put_frame(&mut out, *id);
    GenericDatumWriter::builder(avro)
        .build()
        .and_then(|writer| writer.write_value_ref(&mut out, &value))
        .map_err(|e| failed(e.to_string()))?;
    Ok(out)
}

/// Decodes a framed control record.
///
/// # Errors
///
/// The record is corrupt, is of another kind, or has another format.
pub fn decode_control<R: ControlRecord>(record: &[u8]) -> Result<R, WireError> {
    let schema = R::schema();
    let failed = |cause: String| WireError::Control { record: schema.name, action: "read", cause };
    let (avro, _, id) = schema.parsed();
    let found = schema_id(record)?;
    let bytes = &record[5..];
    if found != *id {
        // In every format, `format` is the first field. So a later format can be reported.
        let format = Reader::new(bytes).long()?;
        return Err(schema.other_format(format).unwrap_or(WireError::OtherSchema { expected: *id, found }));
    }
    let mut rest = bytes;
    let value = GenericDatumReader::builder(avro)
        .build()
        .and_then(|reader| reader.read_value(&mut rest))
        .map_err(|e| failed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(WireError::Corrupt("bytes follow its last field"));
    }
    let Avro::Record(mut fields) = value else { return Err(failed("it is not a record".into())) };
    match fields.first() {
        Some((_, Avro::Int(format))) => {
            if let Some(error) = schema.other_format(i64::from(*format)) {
                return Err(error);
            }
        }
        _ => return Err(failed("it has no format".into())),
    }
    fields.remove(0);
    let fields = from_value::<R::Fields>(&Avro::Record(fields)).map_err(|e| failed(e.to_string()))?;
    R::from_fields(fields).map_err(failed)
}
