//! Schemas stored in a schema registry.
//!
//! Invariant: for at most [`CHECK_INTERVAL`], a record may be published under an id that the registry has
//! reassigned to another schema.
//!
//! A registry that lost its data (its storage, or everything since its backup) assigns its ids again. So this
//! module compares the registry with what it knows:
//!
//! - Before it registers a schema, it checks the newest id that this process was given. If the process has no
//!   id of the topic yet, it also checks the ids of the topic's last records.
//! - After that, it checks the newest id every [`CHECK_INTERVAL`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tandem_runtime::Backoff;
use tandem_wire::{ReadKeySchema, ReadSchema};

use crate::admin::client::Admin;
use crate::connect::config::KafkaConfig;
use crate::consume::read::read_last;
use crate::error::ConsumeError;
use crate::registry::client::{Client, Failure, RegistryConfig, RegistryRefusal};
use tandem_wire::log::OutRecord;

/// The first and the longest pause between two requests to an unavailable registry.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a request for an unknown id is repeated. In a cluster of registries, one may learn of an id late.
const UNKNOWN_ID_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for an id that was assigned earlier.
const ASSIGNED_ID_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a check waits for a registry that does not answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the registry is checked for lost schemas.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A subject whose compatibility level lets the registry refuse a schema change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSubject {
    /// The subject.
    pub subject: String,
    /// Its compatibility level.
    pub level: String,
}

/// The schemas in a registry, with a cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Client>,
    kafka: KafkaConfig,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// Schemas by the registry's ids.
    schemas: HashMap<u32, Arc<str>>,
    readers: HashMap<u32, Arc<ReadSchema>>,
    /// The registry's id for each of Tandem's ids.
    ids: HashMap<u32, u32>,
    subjects: HashSet<(String, u32)>,
    /// Topics whose last records have been compared with the registry.
    topics: HashSet<String>,
    /// The newest id that the registry assigned, and Tandem's id of the same schema.
    newest: Option<(u32, u32)>,
    /// The lost schema, after which nothing can be published.
    lost: Option<(u32, String)>,
}

impl Registry {
    /// Starts the periodic check. Sends no request yet.
    pub(crate) fn open(config: &RegistryConfig, kafka: &KafkaConfig) -> Result<Self, ConsumeError> {
        let client = Arc::new(Client::new(config)?);
        let inner = Arc::new(Inner { client, kafka: kafka.clone(), cache: Mutex::default() });
        tokio::spawn(check_periodically(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Checks that the registry answers and accepts the account. Returns the subjects that have a
    /// compatibility level.
    pub(crate) async fn check(&self, subjects: &[String]) -> Result<Vec<HeldSubject>, ConsumeError> {
        let prefix = &self.inner.kafka.prefix;
        let answer = self.ask_within(CHECK_TIMEOUT, &format!("/subjects?subjectPrefix={prefix}.")).await?;
        let found = match answer {
            Ok(found) if found.is_array() => Ok(()),
            Ok(_) => Err(RegistryRefusal::of_answer("the answer is not a list of subjects")),
            Err(refusal) => Err(refusal),
        };
        found.map_err(|refusal| self.refused(refusal, "to list its subjects"))?;
        let mut held = Vec::new();
        for subject in subjects {
            let own = self.level(&format!("/config/{subject}?defaultToGlobal=true")).await?;
            // Apicurio returns no default for a missing subject.
            let level = match own {
                Some(level) => Some(level),
                None => self.level("/config").await?,
            };
            if let Some(level) = level.filter(|level| level != "NONE") {
                held.push(HeldSubject { subject: subject.clone(), level });
            }
        }
        Ok(held)
    }

    /// Reads a compatibility level; `None` where there is none or where the account may not read it.
    async fn level(&self, path: &str) -> Result<Option<String>, ConsumeError> {
        let answer = self.ask_within(CHECK_TIMEOUT, path).await?.unwrap_or_default();
        Ok(answer["compatibilityLevel"].as_str().map(str::to_owned))
    }

    pub(crate) async fn register(
        &self,
        topic: &str,
        subject: &str,
        own: u32,
        json: &str,
    ) -> Result<(), ConsumeError> {
        if self.lock().subjects.contains(&(subject.to_owned(), own)) {
            return Ok(());
        }
        let newest = self.lock().newest;
        if let Some((id, own)) = newest {
            self.verify_id(id, own).await?;
        }
        if !self.lock().topics.contains(topic) {
            self.verify_records(topic).await?;
            self.lock().topics.insert(topic.to_owned());
        }
        let body = serde_json::json!({ "schema": json }).to_string();
        let path = format!("/subjects/{subject}/versions");
        let answer =
            self.ask_until_available(&path, Some(&body)).await.map_err(|refusal| match refusal.status {
                409 => ConsumeError::IncompatibleSchema { subject: subject.to_owned(), cause: refusal.said },
                _ => self.refused(refusal, &format!("to register a schema of `{subject}`")),
            })?;
        let Some(id) = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()) else {
            let refusal = RegistryRefusal::of_answer("the answer has no id");
            return Err(self.refused(refusal, &format!("to register a schema of `{subject}`")));
        };
        // All readers will use the schema that the registry has under this id.
        self.verify_id(id, own).await?;
        let mut cache = self.lock();
        cache.ids.insert(own, id);
        cache.schemas.insert(id, json.into());
        cache.subjects.insert((subject.to_owned(), own));
        if cache.newest.is_none_or(|(newest, _)| newest < id) {
            cache.newest = Some((id, own));
        }
        Ok(())
    }

    /// Replaces Tandem's ids in frames by the registry's ids, unless the registry has lost schemas.
    pub(crate) fn reframe(&self, records: &mut [OutRecord]) -> Result<(), ConsumeError> {
        let cache = self.lock();
        if let Some((id, found)) = &cache.lost {
            return Err(self.inner.lost(*id, found));
        }
        let change = |framed: &mut [u8]| {
            if let Ok(id) = tandem_wire::schema_id(framed)
                && let Some(id) = cache.ids.get(&id)
            {
                framed[1..5].copy_from_slice(&id.to_be_bytes());
            }
        };
        for record in records {
            change(&mut record.key);
            if let Some(value) = &mut record.value {
                change(value);
            }
        }
        Ok(())
    }

    pub(crate) async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        if let Some(reader) = self.lock().readers.get(&id) {
            return Ok(Arc::clone(reader));
        }
        let json = self.find(id, UNKNOWN_ID_TIMEOUT).await?;
        let json = json.ok_or(ConsumeError::UnknownSchema { id, waited: UNKNOWN_ID_TIMEOUT })?;
        if let Some(found) = self.inner.of_another_log(&json) {
            return Err(self.inner.lost(id, &found));
        }
        let reader = ReadSchema::parse(&json).map_err(|source| ConsumeError::Schema { id, source })?;
        let reader = Arc::new(reader.under(id));
        let mut cache = self.lock();
        cache.schemas.insert(id, json.into());
        cache.readers.insert(id, Arc::clone(&reader));
        Ok(reader)
    }

    pub(crate) fn json(&self, id: u32) -> Option<Arc<str>> {
        self.lock().schemas.get(&id).cloned()
    }

    /// Verifies that the registry has the schema with Tandem's id `own` under its id `id`.
    async fn verify_id(&self, id: u32, own: u32) -> Result<(), ConsumeError> {
        match self.find(id, ASSIGNED_ID_TIMEOUT).await? {
            Some(json) if own_id(&json) == Some(own) => Ok(()),
            found => Err(self.inner.lost(id, found_text(found.is_some()))),
        }
    }

    /// Verifies that the last records of a topic can be read with the schemas that the registry has under
    /// their ids.
    async fn verify_records(&self, topic: &str) -> Result<(), ConsumeError> {
        let kafka = &self.inner.kafka;
        for partition in 0..Admin::connect(kafka).await?.partitions(topic).await? {
            let Some(last) = read_last(kafka, topic, partition).await? else { continue };
            for (framed, is_key) in [(last.key, true), (last.value, false)] {
                let Some(framed) = framed else { continue };
                let Ok(id) = tandem_wire::schema_id(&framed) else { continue };
                let json = self.find(id, ASSIGNED_ID_TIMEOUT).await?;
                let json = json.ok_or_else(|| self.inner.lost(id, found_text(false)))?;
                let readable =
                    self.inner.of_another_log(&json).is_none() && reads(&json, id, &framed, is_key);
                if !readable {
                    return Err(self.inner.lost(id, found_text(true)));
                }
            }
        }
        Ok(())
    }

    /// Returns the schema with this id; `None` if the registry does not know it for `timeout`.
    async fn find(&self, id: u32, timeout: Duration) -> Result<Option<String>, ConsumeError> {
        let began = Instant::now();
        loop {
            match self.ask_until_available(&format!("/schemas/ids/{id}"), None).await {
                Ok(answer) => return Ok(Some(answer["schema"].as_str().unwrap_or_default().to_owned())),
                Err(refusal) if !refusal.is_unknown_schema() => {
                    return Err(self.refused(refusal, &format!("to show schema {id}")));
                }
                Err(_) if began.elapsed() >= timeout => return Ok(None),
                Err(_) => tokio::time::sleep(BACKOFF.0 * 5).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.inner.lock()
    }

    fn refused(&self, refusal: RegistryRefusal, doing: &str) -> ConsumeError {
        refusal.while_doing(self.inner.client.url(), doing)
    }

    /// Repeats a request until there is an answer, for at most `limit`.
    async fn ask_within(
        &self,
        limit: Duration,
        path: &str,
    ) -> Result<Result<Json, RegistryRefusal>, ConsumeError> {
        let began = Instant::now();
        loop {
            match self.inner.client.ask(path, None).await {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Failure::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Failure::Unavailable(cause)) if began.elapsed() >= limit => {
                    let url = self.inner.client.url().to_owned();
                    return Err(ConsumeError::RegistryUnreachable { url, cause });
                }
                Err(Failure::Unavailable(_)) => tokio::time::sleep(BACKOFF.0).await,
            }
        }
    }

    /// Repeats a request until the registry is available.
    async fn ask_until_available(&self, path: &str, body: Option<&str>) -> Result<Json, RegistryRefusal> {
        let (url, refusals) = (self.inner.client.url(), &self.inner.kafka.refusals);
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut reported = None;
        loop {
            let answer = match self.inner.client.ask(path, body).await {
                Ok(answer) => Ok(answer),
                Err(Failure::Refused(refusal)) => Err(refusal),
                Err(Failure::Unavailable(why)) => {
                    if reported.as_ref() != Some(&why) {
                        tracing::warn!(
                            registry = url,
                            error = why,
                            "the schema registry does not answer; retrying"
                        );
                        reported = Some(why.clone());
                    }
                    refusals.note(format!("the schema registry at {url} does not answer: {why}"));
                    backoff.pause().await;
                    continue;
                }
            };
            if reported.is_some() {
                refusals.clear();
                tracing::info!(registry = url, "the schema registry answers again");
            }
            return answer;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, id: u32, found: &str) -> ConsumeError {
        ConsumeError::LostSchemas { url: self.client.url().to_owned(), id, found: found.to_owned() }
    }

    /// Describes a schema that does not belong to this log; `None` if it does.
    fn of_another_log(&self, json: &str) -> Option<String> {
        let schema: Json = serde_json::from_str(json).unwrap_or_default();
        match schema["tandem.prefix"].as_str() {
            Some(prefix) if prefix == self.kafka.prefix => None,
            Some(prefix) => Some(format!("it has a schema of kafka.prefix `{prefix}` there")),
            None => Some("it has a schema there that is none of Tandem's".to_owned()),
        }
    }
}

/// Checks periodically that the registry still has the newest schema, until the store is dropped. A registry
/// that does not answer does not count as one that lost schemas.
async fn check_periodically(registry: Weak<Inner>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(inner) = registry.upgrade() else { return };
        let newest = inner.lock().newest;
        let Some((id, own)) = newest else { continue };
        let found = match inner.client.ask(&format!("/schemas/ids/{id}"), None).await {
            Ok(answer) if answer["schema"].as_str().and_then(own_id) == Some(own) => continue,
            Ok(_) => true,
            Err(Failure::Refused(refusal)) if refusal.is_unknown_schema() => false,
            Err(_) => continue,
        };
        inner.lock().lost = Some((id, found_text(found).to_owned()));
    }
}

/// Tandem's id of a schema that the registry returned.
fn own_id(json: &str) -> Option<u32> {
    let value = ReadSchema::parse(json).map(|schema| schema.id());
    value.or_else(|_| ReadKeySchema::parse(json).map(|schema| schema.id())).ok()
}

fn reads(json: &str, id: u32, framed: &[u8], is_key: bool) -> bool {
    if is_key {
        ReadKeySchema::parse(json).is_ok_and(|schema| schema.under(id).decode(framed).is_ok())
    } else {
        ReadSchema::parse(json).is_ok_and(|schema| schema.under(id).decode(framed).is_ok())
    }
}

fn found_text(found: bool) -> &'static str {
    if found { "it has another schema there" } else { "it knows no such id" }
}
