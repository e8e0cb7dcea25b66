//! The published events of both captures, as JSON, in the binlog's order.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use rdkafka::Message as _;
use serde_json::Value as Json;

use super::avro::{Column, Schema};
use crate::topic::Topic;

/// A change event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) key: Json,
    pub(super) envelope: Json,
    /// The columns of the key and of the row. Only Tandem's schemas name them with their types.
    pub(super) columns: (Vec<Column>, Vec<Column>),
}

/// The events of Debezium's topic; none if the topic does not exist.
pub(super) fn of_debezium(brokers: &str, topic: &str) -> Result<Vec<Event>> {
    let Ok(topic) = Topic::open(brokers, topic) else { return Ok(Vec::new()) };
    let mut events = Vec::new();
    topic.read_all(|message| {
        let json = |bytes: Option<&[u8]>| -> Result<Json> {
            bytes.map_or(Ok(Json::Null), |bytes| Ok(serde_json::from_slice(bytes)?))
        };
        events.push(Event {
            key: json(message.key()).context("a key is no JSON")?,
            envelope: json(message.payload()).context("an event is no JSON")?,
            columns: (Vec::new(), Vec::new()),
        });
        Ok(())
    })?;
    // A changed primary key is a delete and a create at the same position.
    events.sort_by_cached_key(|event| {
        let source = &event.envelope["source"];
        let file = source["file"].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| source[name].as_u64().unwrap_or_default();
        (file.len(), file, number("pos"), number("row"), event.envelope["op"] != "d")
    });
    Ok(events)
}

/// The events of Tandem's topic. Schemas are fetched by their ids, as any consumer would.
pub(super) fn of_tandem(brokers: &str, topic: &str, schemas: &mut Schemas) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    Topic::open(brokers, topic)?.read_all(|message| {
        let (key, key_columns) = schemas.read(message.key().context("a change has no key")?)?;
        let (envelope, columns) = schemas.read(message.payload().context("a change has no value")?)?;
        events.push(Event { key, envelope, columns: (key_columns, columns) });
        Ok(())
    })?;
    events.sort_by_key(|event| event.envelope["source"]["tandem_version"].as_i64());
    Ok(events)
}

/// The events of each table (`database.table`), in the same order.
pub(super) fn by_table(events: Vec<Event>) -> BTreeMap<String, Vec<Event>> {
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        let source = |name: &str| event.envelope["source"][name].as_str().unwrap_or_default();
        tables.entry(format!("{}.{}", source("db"), source("table"))).or_default().push(event);
    }
    tables
}

/// The schemas that a running Tandem serves.
pub(super) struct Schemas {
    /// `http://host:port`.
    url: String,
    known: HashMap<u32, Schema>,
}

impl Schemas {
    pub(super) fn of(url: String) -> Self {
        Self { url, known: HashMap::new() }
    }

    /// Decodes a framed record, and returns its columns as well.
    fn read(&mut self, bytes: &[u8]) -> Result<(Json, Vec<Column>)> {
        let ([zero, id @ ..], record) = bytes.split_first_chunk::<5>().context("a record has no frame")?;
        ensure!(*zero == 0, "a record's frame begins with {zero}");
        let id = u32::from_be_bytes(*id);
        if !self.known.contains_key(&id) {
            let url = format!("{}/schemas/ids/{id}", self.url);
            let text = ureq::get(&url).call().and_then(|mut a| a.body_mut().read_to_string());
            let answer: Json = serde_json::from_str(&text.with_context(|| format!("ask {url}"))?)?;
            let schema = answer["schema"].as_str().with_context(|| format!("no schema at {url}"))?;
            self.known.insert(id, Schema::parse(schema)?);
        }
        let schema = &self.known[&id];
        Ok((schema.read(record)?, schema.columns()))
    }
}
