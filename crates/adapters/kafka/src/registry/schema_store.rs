//! The schemas of a log: in one of its topics, or in a schema registry that other applications may share.

use std::sync::Arc;

use tandem_wire::{ReadSchema, TableSchema};

use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;
use crate::registry::confluent::{HeldSubject, Registry};
use crate::registry::schema_topic::SchemaTopic;
use tandem_wire::log::OutRecord;

/// The schema store of a log. All processes have the same schema for an id. Cheap to clone.
#[derive(Clone)]
pub struct SchemaStore {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Topic(SchemaTopic),
    Registry(Registry),
}

impl SchemaStore {
    /// Opens the configured registry, or else the log's schema topic. A registry is first contacted when it
    /// is needed. The schema topic is created if it does not exist, read to its end, and followed from then
    /// on.
    ///
    /// # Errors
    /// The configuration is wrong, or the schema topic cannot be created or read.
    pub async fn open(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let backend = match &config.registry {
            None => Backend::Topic(SchemaTopic::open(config).await?),
            Some(registry) => Backend::Registry(Registry::open(registry, config)?),
        };
        Ok(Self { backend })
    }

    /// Checks that the configured registry answers and accepts the account. Returns those of the subjects whose
    /// compatibility level lets the registry refuse a schema change.
    ///
    /// # Errors
    /// The registry cannot be reached within 5 s, or refuses the account.
    pub async fn check(config: &KafkaConfig, subjects: &[String]) -> Result<Vec<HeldSubject>, ConsumeError> {
        let Some(registry) = &config.registry else { return Ok(Vec::new()) };
        Registry::open(registry, config)?.check(subjects).await
    }

    /// Registers the key and envelope schemas of a table for a topic, unless they are registered already.
    /// Returns once every process can find them. A registry assigns its own ids, see [`Self::reframe`].
    ///
    /// # Errors
    /// [`ConsumeError::SchemaCollision`] if an id belongs to another schema; otherwise the store refuses a
    /// schema, has lost schemas, or cannot be reached.
    pub async fn register(&self, topic: &str, schema: &TableSchema) -> Result<(), ConsumeError> {
        let (key, value) = (schema.key_subject(topic), schema.value_subject(topic));
        for (subject, id, json) in
            [(key, schema.key_id(), schema.key_json()), (value, schema.value_id(), schema.value_json())]
        {
            match &self.backend {
                Backend::Topic(store) => store.register(&subject, id, json).await?,
                Backend::Registry(registry) => registry.register(topic, &subject, id, json).await?,
            }
        }
        Ok(())
    }

    /// Registers the key and envelope schemas of a table for a topic, and returns the schemas to write with.
    ///
    /// Where an id already belongs to another schema, the returned schemas have another salt, and so other
    /// ids.
    ///
    /// # Errors
    /// As for [`Self::register`], without collisions.
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

    /// Replaces Tandem's schema ids in the frames of records by the registry's ids, for schemas that were
    /// registered here. Does not change other records. Does nothing where the log's topic holds the schemas.
    ///
    /// # Errors
    /// The registry has lost schemas.
    pub fn reframe(&self, records: &mut [OutRecord]) -> Result<(), ConsumeError> {
        match &self.backend {
            Backend::Topic(_) => Ok(()),
            Backend::Registry(registry) => registry.reframe(records),
        }
    }

    /// Returns the reader of the envelopes with this schema id. Waits up to 30 s for an unknown id, because
    /// its schema may still arrive.
    ///
    /// # Errors
    /// [`ConsumeError::UnknownSchema`] if the id stays unknown; otherwise the schema cannot be parsed, or the
    /// store fails.
    pub async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        match &self.backend {
            Backend::Topic(topic) => topic.get(id).await,
            Backend::Registry(registry) => registry.get(id).await,
        }
    }

    /// Returns the JSON of any known schema, without waiting.
    pub fn json(&self, id: u32) -> Option<Arc<str>> {
        match &self.backend {
            Backend::Topic(topic) => topic.json(id),
            Backend::Registry(registry) => registry.json(id),
        }
    }
}
