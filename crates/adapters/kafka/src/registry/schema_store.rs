//! The schemas of a log: in a topic of it, or in a registry that others use as well.

use std::sync::Arc;

use tandem_wire::{ReadSchema, TableSchema, value_subject};

use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;
use crate::registry::confluent::{HeldSubject, Registry};
use crate::registry::schema_topic::SchemaTopic;
use tandem_wire::log::OutRecord;

/// Where the schemas of a log are kept. Every process agrees about what an id stands for. Cheap to
/// clone.
#[derive(Clone)]
pub struct SchemaStore {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Topic(SchemaTopic),
    Registry(Registry),
}

impl SchemaStore {
    /// The registry that the configuration names, which is asked when it is needed; otherwise the log's
    /// own topic of schemas, which is created if it is not there, and followed from then on.
    pub async fn open(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let place = match &config.registry {
            None => Place::Topic(SchemaTopic::open(config).await?),
            Some(registry) => Place::Registry(Registry::open(registry, config)?),
        };
        Ok(Self { place })
    }

    /// Whether the registry, where the configuration names one, answers and takes our account. Names
    /// those of the topics' subjects of values whose compatibility level makes it refuse some changes.
    pub async fn check(config: &KafkaConfig, topics: &[String]) -> Result<Vec<HeldSubject>, ConsumeError> {
        let Some(registry) = &config.registry else { return Ok(Vec::new()) };
        let subjects: Vec<String> = topics.iter().map(|topic| value_subject(topic)).collect();
        Registry::open(registry, config)?.check(&subjects).await
    }

    /// Registers the schemas of a table's keys and envelopes on a topic, unless they are there. Returns
    /// when every process can find them. A registry gives them ids of its own, see [`Self::reframe`].
    pub async fn register(&self, topic: &str, schema: &TableSchema) -> Result<(), ConsumeError> {
        let (key, value) = (schema.key_subject(topic), schema.value_subject(topic));
        for (subject, id, json) in
            [(key, schema.key_id(), schema.key_json()), (value, schema.value_id(), schema.value_json())]
        {
            match &self.place {
                Place::Topic(store) => store.register(&subject, id, json).await?,
                Place::Registry(registry) => registry.register(topic, &subject, id, json).await?,
            }
        }
        Ok(())
    }

    /// Registers the schemas of a table's keys and envelopes on a topic. Where an id already
    /// belongs to another schema the table's schemas get a salt, and with it other ids: the result
    /// is what records must be written with.
    pub async fn register_table(
        &self,
        topic: &str,
        schema: &TableSchema,
    ) -> Result<TableSchema, ConsumeError> {
        let mut schema = schema.clone();
        loop {
            match self.register(topic, &schema).await {
                Ok(()) => return Ok(schema),
                Err(ConsumeError::SchemaCollision { .. }) => schema = schema.with_salt(schema.salt() + 1),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the registry's ids into the frames of records made with schemas that were registered here.
    /// Other records, and all where the log keeps its own schemas, stay as they are. An error is that of
    /// a registry that no longer has its schemas.
    pub fn reframe(&self, records: &mut [OutRecord]) -> Result<(), ConsumeError> {
        match &self.place {
            Place::Topic(_) => Ok(()),
            Place::Registry(registry) => registry.reframe(records),
        }
    }

    /// The reader of the envelopes with this schema id. An unknown id is waited for: its schema may
    /// be on its way.
    pub async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        match &self.place {
            Place::Topic(topic) => topic.get(id).await,
            Place::Registry(registry) => registry.get(id).await,
        }
    }

    /// The JSON of a schema, of whatever kind of record, if it is known here now.
    pub fn json(&self, id: u32) -> Option<Arc<str>> {
        match &self.place {
            Place::Topic(topic) => topic.json(id),
            Place::Registry(registry) => registry.json(id),
        }
    }
}
