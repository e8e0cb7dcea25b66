//! The schemas of a log: in a topic of it, or in a registry that others use as well.

use std::sync::Arc;

use tandem_wire::{ReadSchema, TableSchema};

use crate::registry::Registry;
use crate::schema_topic::SchemaTopic;
use crate::{ConsumeError, KafkaConfig, OutRecord};

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
    /// Opens the registry that the configuration names, otherwise the log's own topic of schemas,
    /// which is created if it is not there, and followed from then on.
    pub async fn open(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let place = match &config.registry {
            None => Place::Topic(SchemaTopic::open(config).await?),
            Some(registry) => Place::Registry(Registry::open(registry, &config.refusals).await?),
        };
        Ok(Self { place })
    }

    /// Registers a schema under a subject, unless it is there. Returns when every process can find
    /// it. `json` must be normalised, `id` must be its id; a registry gives it another one, see
    /// [`Self::reframe`].
    pub async fn register(&self, subject: &str, id: u32, json: &str) -> Result<(), ConsumeError> {
        match &self.place {
            Place::Topic(topic) => topic.register(subject, id, json).await,
            Place::Registry(registry) => registry.register(subject, id, json).await,
        }
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
            let both = async {
                self.register(&schema.key_subject(topic), schema.key_id(), schema.key_json()).await?;
                self.register(&schema.value_subject(topic), schema.value_id(), schema.value_json()).await
            };
            match both.await {
                Ok(()) => return Ok(schema),
                Err(ConsumeError::SchemaCollision { .. }) => schema = schema.with_salt(schema.salt() + 1),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the registry's ids into the frames of records made with schemas that were registered here.
    /// Other records, and all where the log keeps its own schemas, stay as they are.
    pub fn reframe(&self, records: &mut [OutRecord]) {
        if let Place::Registry(registry) = &self.place {
            registry.reframe(records);
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
