//! The schemas of a log, kept in a topic of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_wire::ReadSchema;
use tokio::sync::watch;

use crate::admin::client::Admin;
use crate::admin::schemas_spec;
use crate::connect::config::KafkaConfig;
use crate::consume::tail::TailReader;
use crate::error::ConsumeError;
use crate::produce::producer::Producer;
use tandem_wire::log::{InRecord, OutRecord, Topics};

/// How long an unknown id, or one's own record, is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The schemas in `<prefix>.schemas`: a compacted topic whose keys are `{"subject":…,"id":…}` and
/// whose values are the schemas' JSON. Every process follows it, so all of them agree about an id:
/// the first record of the topic that names it says what it stands for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SchemaTopic {
    inner: Arc<Inner>,
}

struct Inner {
    topic: Arc<str>,
    producer: Producer,
    known: Mutex<HashMap<u32, Entry>>,
    /// The offset up to which the topic has been read; none once it is no longer followed.
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
    /// Creates the topic if it is not there, reads it to its end, and follows it from then on.
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let spec = schemas_spec(&Topics::new(&config.prefix));
        let topic: Arc<str> = spec.name.as_str().into();
        let admin = Admin::connect(config).await?;
        admin.ensure_topics(&[spec]).await?;
        let first = admin.first_offsets(&topic, 1).await?[0];
        let end = admin.end_offsets(&topic, 1).await?[0];
        let mut tail = TailReader::start(config, vec![(topic.to_string(), 0, first)]).await?;
        let producer = Producer::start(config).await?;
        let (progress, followed) = watch::channel(Some(first));
        let inner = Arc::new(Inner { topic, producer, known: Mutex::default(), followed });
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

    /// Registers a schema under a subject, unless it is there. Returns when every process can find
    /// it. `json` must be normalised, `id` must be its id.
    pub(crate) async fn register(&self, subject: &str, id: u32, json: &str) -> Result<(), ConsumeError> {
        if self.inner.has(subject, id, json)? {
            return Ok(());
        }
        let key = serde_json::to_vec(&Key { subject: subject.to_owned(), id });
        let key = key.map_err(|e| ConsumeError::Config(format!("a subject is no text: {e}")))?;
        let record = OutRecord::control(Arc::clone(&self.inner.topic), key, json.as_bytes().to_vec());
        let offsets = self.inner.producer.send(vec![record]).await?;
        // Another process may have given the id away at the same moment: the order of the topic
        // decides, so what counts is what is known once our own record has been read back.
        self.wait_until(offsets.last().map_or(0, |o| o + 1)).await?;
        self.inner.has(subject, id, json).map(|_| ())
    }

    /// The reader of the envelopes with this schema id. An unknown id is waited for: its record may
    /// be on its way.
    pub(crate) async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        let (json, parsed) =
            self.find(id, |entry| (Arc::clone(&entry.json), Arc::clone(&entry.parsed))).await?;
        if let Some(schema) = parsed.get() {
            return Ok(Arc::clone(schema));
        }
        let schema = ReadSchema::parse(&json).map_err(|source| ConsumeError::Schema { id, source })?;
        Ok(Arc::clone(parsed.get_or_init(|| Arc::new(schema))))
    }

    /// The JSON of a schema, of whatever kind of record, if it is known now.
    pub(crate) fn json(&self, id: u32) -> Option<Arc<str>> {
        self.inner.lock().get(&id).map(|entry| Arc::clone(&entry.json))
    }

    async fn find<T>(&self, id: u32, take: impl Fn(&Entry) -> T) -> Result<T, ConsumeError> {
        let mut followed = self.inner.followed.clone();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                // Marked as seen before the look, so that what comes after it wakes this up.
                let ended = followed.borrow_and_update().is_none();
                if let Some(entry) = self.inner.lock().get(&id) {
                    return Ok(take(entry));
                }
                if ended || followed.changed().await.is_err() {
                    return Err(ConsumeError::StoreEnded);
                }
            }
        });
        found.await.unwrap_or(Err(ConsumeError::UnknownSchema { id, waited: PATIENCE }))
    }

    async fn wait_until(&self, offset: i64) -> Result<(), ConsumeError> {
        let mut followed = self.inner.followed.clone();
        let reached = followed.wait_for(|at| at.is_none_or(|at| at >= offset));
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(at)) if at.is_some() => Ok(()),
            Ok(_) => Err(ConsumeError::StoreEnded),
            Err(_) => Err(ConsumeError::Request {
                doing: format!("reading `{}` up to offset {offset}", self.inner.topic),
                cause: format!("it took longer than {} s", PATIENCE.as_secs()),
                retriable: true,
            }),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the schema is there under this subject; an error if its id stands for another one.
    fn has(&self, subject: &str, id: u32, json: &str) -> Result<bool, ConsumeError> {
        match self.lock().get(&id) {
            None => Ok(false),
            Some(entry) if entry.json.as_ref() == json => Ok(entry.subjects.contains(subject)),
            Some(_) => Err(ConsumeError::SchemaCollision { id, subject: subject.to_owned() }),
        }
    }

    /// Takes in a record of the topic. One that is no schema was not written by Tandem: it is
    /// left, with a warning.
    fn take_in(&self, record: &InRecord) {
        let key = record.key.as_deref().and_then(|k| serde_json::from_slice::<Key>(k).ok());
        let json = record.value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
        let (Some(Key { subject, id }), Some(json)) = (key, json) else {
            tracing::warn!(topic = %self.topic, offset = record.offset, "a record of the schema store is no schema");
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

/// Follows the topic for as long as anybody holds the store.
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
