//! The schemas of a log, stored in one of its topics.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_model::Disposition;
use tandem_wire::ReadSchema;
use tokio::sync::watch;

use crate::admin::client::Admin;
use crate::admin::schemas_spec;
use crate::connect::config::KafkaConfig;
use crate::consume::tail::TailReader;
use crate::error::ConsumeError;
use crate::produce::producer::Producer;
use tandem_wire::log::{InRecord, OutRecord};

/// How long a reader waits for an unknown id, and a writer for its own record.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The schemas in `<prefix>.schemas`. All processes have the same schema for an id, because all follow this
/// topic and the first record with an id defines it.
///
/// The topic is compacted. Its keys are `{"subject":…,"id":…}`, its values the schemas' JSON. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SchemaTopic {
    inner: Arc<Inner>,
}

struct Inner {
    topic: Arc<str>,
    producer: Producer,
    cache: Mutex<HashMap<u32, Entry>>,
    /// The offset up to which the topic has been read; `None` once it is no longer followed.
    followed: watch::Receiver<Option<i64>>,
}

struct Entry {
    json: Arc<str>,
    subjects: HashSet<String>,
    parsed: Arc<OnceLock<Arc<ReadSchema>>>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    subject: String,
    id: u32,
}

impl SchemaTopic {
    /// Creates the topic if it does not exist, reads it to its end, and follows it from then on.
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let spec = schemas_spec(&config.topics());
        let topic: Arc<str> = spec.name.as_str().into();
        let admin = Admin::connect(config).await?;
        admin.ensure_topics(&[spec]).await?;
        let first = admin.first_offsets(&topic, 1).await?[0];
        let end = admin.end_offsets(&topic, 1).await?[0];
        let mut tail = TailReader::start(config, vec![(topic.to_string(), 0, first)]).await?;
        let producer = Producer::start(config).await?;
        let (progress, followed) = watch::channel(Some(first));
        let inner = Arc::new(Inner { topic, producer, cache: Mutex::default(), followed });
        let of = Arc::downgrade(&inner);
        tokio::spawn(async move {
            if let Err(error) = follow(&of, &mut tail, &progress).await {
                tracing::error!(%error, "the schema store is no longer followed");
                progress.send_replace(None);
            }
        });
        let store = Self { inner };
        store.wait_until(end).await?;
        Ok(store)
    }

    /// Registers a schema under a subject, unless it is registered already. Returns once every process can
    /// find it. `json` must be normalised, and `id` must be its id.
    pub(crate) async fn register(&self, subject: &str, id: u32, json: &str) -> Result<(), ConsumeError> {
        if self.inner.has(subject, id, json)? {
            return Ok(());
        }
        let key = serde_json::to_vec(&Key { subject: subject.to_owned(), id });
        let key = key.map_err(|e| ConsumeError::Config(format!("a subject cannot be encoded: {e}")))?;
        let record = OutRecord::control(Arc::clone(&self.inner.topic), key, json.as_bytes().to_vec());
        let offsets = self.inner.producer.send(vec![record]).await?;
        // Another process may have registered the id at the same time. The order of the topic decides, so
        // the check follows once this process has read its own record back.
        self.wait_until(offsets.last().map_or(0, |o| o + 1)).await?;
        self.inner.has(subject, id, json).map(|_| ())
    }

    /// Returns the reader of the envelopes with this schema id. Waits for an unknown id, because its record
    /// may still arrive.
    pub(crate) async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        let (json, parsed) =
            self.find(id, |entry| (Arc::clone(&entry.json), Arc::clone(&entry.parsed))).await?;
        if let Some(schema) = parsed.get() {
            return Ok(Arc::clone(schema));
        }
        let schema = ReadSchema::parse(&json).map_err(|source| ConsumeError::Schema { id, source })?;
        Ok(Arc::clone(parsed.get_or_init(|| Arc::new(schema))))
    }

    /// Returns the JSON of any known schema, without waiting.
    pub(crate) fn json(&self, id: u32) -> Option<Arc<str>> {
        self.inner.lock().get(&id).map(|entry| Arc::clone(&entry.json))
    }

    async fn find<T>(&self, id: u32, take: impl Fn(&Entry) -> T) -> Result<T, ConsumeError> {
        let mut followed = self.inner.followed.clone();
        let found = tokio::time::timeout(TIMEOUT, async {
            loop {
                // Marked as seen before the check, so that any later change wakes this task.
                let ended = followed.borrow_and_update().is_none();
                if let Some(entry) = self.inner.lock().get(&id) {
                    return Ok(take(entry));
                }
                if ended || followed.changed().await.is_err() {
                    return Err(ConsumeError::StoreEnded);
                }
            }
        });
        found.await.unwrap_or(Err(ConsumeError::UnknownSchema { id, waited: TIMEOUT }))
    }

    async fn wait_until(&self, offset: i64) -> Result<(), ConsumeError> {
        let mut followed = self.inner.followed.clone();
        let reached = followed.wait_for(|at| at.is_none_or(|at| at >= offset));
        match tokio::time::timeout(TIMEOUT, reached).await {
            Ok(Ok(at)) if at.is_some() => Ok(()),
            Ok(_) => Err(ConsumeError::StoreEnded),
            Err(_) => Err(ConsumeError::Request {
                doing: format!("reading `{}` up to offset {offset}", self.inner.topic),
                cause: format!("it took longer than {} s", TIMEOUT.as_secs()),
                retry: Disposition::Retry,
            }),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the schema is registered under this subject. Fails if its id belongs to another schema.
    fn has(&self, subject: &str, id: u32, json: &str) -> Result<bool, ConsumeError> {
        match self.lock().get(&id) {
            None => Ok(false),
            Some(entry) if entry.json.as_ref() == json => Ok(entry.subjects.contains(subject)),
            Some(_) => Err(ConsumeError::SchemaCollision { id, subject: subject.to_owned() }),
        }
    }

    /// Adds a record of the topic. Tandem did not write a record that is not a schema, so it is ignored with
    /// a warning.
    fn take_in(&self, record: &InRecord) {
        let key = record.key.as_deref().and_then(|k| serde_json::from_slice::<Key>(k).ok());
        let json = record.value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
        let (Some(Key { subject, id }), Some(json)) = (key, json) else {
            tracing::warn!(topic = %self.topic, offset = record.offset, "a record of the schema store is not a schema and is ignored");
            return;
        };
        let mut known = self.lock();
        let entry = known.entry(id).or_insert_with(|| Entry {
            json: json.into(),
            subjects: HashSet::new(),
            parsed: Arc::default(),
        });
        if entry.json.as_ref() == json {
            entry.subjects.insert(subject);
        }
    }
}

/// Follows the topic until the store is dropped.
async fn follow(
    store: &Weak<Inner>,
    tail: &mut TailReader,
    progress: &watch::Sender<Option<i64>>,
) -> Result<(), ConsumeError> {
    loop {
        let records = tail.next_batch(1000, Duration::from_millis(100)).await?;
        let Some(inner) = store.upgrade() else { return Ok(()) };
        for record in &records {
            inner.take_in(record);
        }
        let at = tail.consumed_to(&inner.topic, 0);
        progress.send_if_modified(|seen| {
            let moved = *seen != at;
            *seen = at;
            moved
        });
    }
}
