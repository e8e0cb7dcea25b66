//! Schemas kept in a registry.
//!
//! Invariant: no record is published under an id that the registry has given to another schema, for longer
//! than [`WATCH`]. A registry that lost what it had (its storage, or all since its backup) gives its ids
//! again, so what is known is held against it: before a schema is registered, the newest id that this
//! process was given, or, where it was given none of this topic, those of the topic's last records; and
//! from then on the newest id, time and again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tandem_wire::{ReadKeySchema, ReadSchema};

use crate::admin::client::Admin;
use crate::connect::config::KafkaConfig;
use crate::consume::read::read_last;
use crate::error::ConsumeError;
use crate::registry::client::{Client, Failure, Refusal, RegistryConfig};
use tandem_wire::log::OutRecord;

/// First and longest pause before an unavailable registry is asked again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long an id that the registry does not know is asked for again: one of several registries may
/// learn of it late.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for an id that was given a while ago.
const SETTLED: Duration = Duration::from_secs(3);

/// How long a check waits for a registry that does not answer.
const REACH: Duration = Duration::from_secs(5);

/// How often the registry is asked whether it still has its schemas.
const WATCH: Duration = Duration::from_secs(5);

/// A subject whose registry refuses some changes of its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSubject {
    /// The subject.
    pub subject: String,
    /// Its compatibility level.
    pub level: String,
}

/// Schemas kept in a registry, and those of them that were met. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Client>,
    kafka: KafkaConfig,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the registry's ids.
    schemas: HashMap<u32, Arc<str>>,
    readers: HashMap<u32, Arc<ReadSchema>>,
    /// The registry's id of each of Tandem's own.
    ids: HashMap<u32, u32>,
    subjects: HashSet<(String, u32)>,
    /// Topics whose records have been held against the registry.
    topics: HashSet<String>,
    /// The newest id that the registry gave, and Tandem's own of the same schema.
    newest: Option<(u32, u32)>,
    /// Why nothing can be published any more.
    lost: Option<(u32, String)>,
}

impl Registry {
    /// Asks nothing yet.
    pub(crate) fn open(config: &RegistryConfig, kafka: &KafkaConfig) -> Result<Self, ConsumeError> {
        let client = Arc::new(Client::new(config)?);
        let inner = Arc::new(Inner { client, kafka: kafka.clone(), known: Mutex::default() });
        tokio::spawn(watch(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Whether the registry answers and takes our account. Names those of the subjects that are held to
    /// a compatibility level.
    pub(crate) async fn check(&self, subjects: &[String]) -> Result<Vec<HeldSubject>, ConsumeError> {
        let prefix = &self.inner.kafka.prefix;
        let answer = self.ask_within(REACH, &format!("/subjects?subjectPrefix={prefix}.")).await?;
        let found = match answer {
            Ok(found) if found.is_array() => Ok(()),
            Ok(_) => Err(Refusal::of_answer("the answer is no list of subjects")),
            Err(refusal) => Err(refusal),
        };
        found.map_err(|refusal| self.refused(refusal, "to list its subjects"))?;
        let mut held = Vec::new();
        for subject in subjects {
            let own = self.level(&format!("/config/{subject}?defaultToGlobal=true")).await?;
            // Apicurio knows no default of a subject that is not there.
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

    /// A compatibility level; none where there is none, or where it may not be asked.
    async fn level(&self, path: &str) -> Result<Option<String>, ConsumeError> {
        let answer = self.ask_within(REACH, path).await?.unwrap_or_default();
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
            self.prove(id, own).await?;
        }
        if !self.lock().topics.contains(topic) {
            self.hold_against(topic).await?;
            self.lock().topics.insert(topic.to_owned());
        }
        let body = serde_json::json!({ "schema": json }).to_string();
        let path = format!("/subjects/{subject}/versions");
        let answer = self.patiently(&path, Some(&body)).await.map_err(|refusal| match refusal.status {
            409 => ConsumeError::IncompatibleSchema { subject: subject.to_owned(), cause: refusal.said },
            _ => self.refused(refusal, &format!("to register a schema of `{subject}`")),
        })?;
        let Some(id) = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()) else {
            let refusal = Refusal::of_answer("the answer has no id");
            return Err(self.refused(refusal, &format!("to register a schema of `{subject}`")));
        };
        // What it keeps under the id is what everyone will read by.
        self.prove(id, own).await?;
        let mut known = self.lock();
        known.ids.insert(own, id);
        known.schemas.insert(id, json.into());
        known.subjects.insert((subject.to_owned(), own));
        if known.newest.is_none_or(|(newest, _)| newest < id) {
            known.newest = Some((id, own));
        }
        Ok(())
    }

    /// Puts the registry's ids into frames, unless it has lost what they stand for.
    pub(crate) fn reframe(&self, records: &mut [OutRecord]) -> Result<(), ConsumeError> {
        let known = self.lock();
        if let Some((id, found)) = &known.lost {
            return Err(self.inner.lost(*id, found));
        }
        let change = |framed: &mut [u8]| {
            if let Ok(id) = tandem_wire::schema_id(framed)
                && let Some(id) = known.ids.get(&id)
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
        let json = self.find(id, PATIENCE).await?;
        let json = json.ok_or(ConsumeError::UnknownSchema { id, waited: PATIENCE })?;
        if let Some(found) = self.inner.foreign(&json) {
            return Err(self.inner.lost(id, &found));
        }
        let reader = ReadSchema::parse(&json).map_err(|source| ConsumeError::Schema { id, source })?;
        let reader = Arc::new(reader.under(id));
        let mut known = self.lock();
        known.schemas.insert(id, json.into());
        known.readers.insert(id, Arc::clone(&reader));
        Ok(reader)
    }

    pub(crate) fn json(&self, id: u32) -> Option<Arc<str>> {
        self.lock().schemas.get(&id).cloned()
    }

    /// Whether the registry has this schema of ours under this id.
    async fn prove(&self, id: u32, own: u32) -> Result<(), ConsumeError> {
        match self.find(id, SETTLED).await? {
            Some(json) if own_id(&json) == Some(own) => Ok(()),
            found => Err(self.inner.lost(id, says(found.is_some()))),
        }
    }

    /// Whether the last records of a topic can be read by what the registry has under their ids.
    async fn hold_against(&self, topic: &str) -> Result<(), ConsumeError> {
        let kafka = &self.inner.kafka;
        for partition in 0..Admin::connect(kafka).await?.partitions(topic).await? {
            let Some(last) = read_last(kafka, topic, partition).await? else { continue };
            for (framed, is_key) in [(last.key, true), (last.value, false)] {
                let Some(framed) = framed else { continue };
                let Ok(id) = tandem_wire::schema_id(&framed) else { continue };
                let json = self.find(id, SETTLED).await?;
                let json = json.ok_or_else(|| self.inner.lost(id, says(false)))?;
                let readable = self.inner.foreign(&json).is_none() && reads(&json, id, &framed, is_key);
                if !readable {
                    return Err(self.inner.lost(id, says(true)));
                }
            }
        }
        Ok(())
    }

    /// The schema with this id; none if the registry does not know it for so long.
    async fn find(&self, id: u32, patience: Duration) -> Result<Option<String>, ConsumeError> {
        let began = Instant::now();
        loop {
            match self.patiently(&format!("/schemas/ids/{id}"), None).await {
                Ok(answer) => return Ok(Some(answer["schema"].as_str().unwrap_or_default().to_owned())),
                Err(refusal) if !refusal.is_unknown_schema() => {
                    return Err(self.refused(refusal, &format!("to show schema {id}")));
                }
                Err(_) if began.elapsed() >= patience => return Ok(None),
                Err(_) => tokio::time::sleep(BACKOFF.0 * 5).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.lock()
    }

    fn refused(&self, refusal: Refusal, doing: &str) -> ConsumeError {
        refusal.while_doing(self.inner.client.url(), doing)
    }

    /// Asks until there is an answer, but not for longer than this.
    async fn ask_within(&self, limit: Duration, path: &str) -> Result<Result<Json, Refusal>, ConsumeError> {
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

    /// Asks until there is an answer.
    async fn patiently(&self, path: &str, body: Option<&str>) -> Result<Json, Refusal> {
        let (url, refusals) = (self.inner.client.url(), &self.inner.kafka.refusals);
        let mut pause = BACKOFF.0;
        let mut told = None;
        loop {
            let answer = match self.inner.client.ask(path, body).await {
                Ok(answer) => Ok(answer),
                Err(Failure::Refused(refusal)) => Err(refusal),
                Err(Failure::Unavailable(why)) => {
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(
                            registry = url,
                            error = why,
                            "the schema registry does not answer; asking again"
                        );
                        told = Some(why.clone());
                    }
                    refusals.note(format!("the schema registry at {url} does not answer: {why}"));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                    continue;
                }
            };
            if told.is_some() {
                refusals.clear();
                tracing::info!(registry = url, "the schema registry answers again");
            }
            return answer;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, id: u32, found: &str) -> ConsumeError {
        ConsumeError::LostSchemas { url: self.client.url().to_owned(), id, found: found.to_owned() }
    }

    /// Whose schema it is, if not one of this log.
    fn foreign(&self, json: &str) -> Option<String> {
        let schema: Json = serde_json::from_str(json).unwrap_or_default();
        match schema["tandem.prefix"].as_str() {
            Some(prefix) if prefix == self.kafka.prefix => None,
            Some(prefix) => Some(format!("it has a schema of kafka.prefix `{prefix}` there")),
            None => Some("it has a schema there that is none of Tandem's".to_owned()),
        }
    }
}

/// Asks from time to time whether the registry still has the newest schema, for as long as anybody
/// holds the store. One that does not answer has not lost anything yet.
async fn watch(registry: Weak<Inner>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(inner) = registry.upgrade() else { return };
        let newest = inner.lock().newest;
        let Some((id, own)) = newest else { continue };
        let found = match inner.client.ask(&format!("/schemas/ids/{id}"), None).await {
            Ok(answer) if answer["schema"].as_str().and_then(own_id) == Some(own) => continue,
            Ok(_) => true,
            Err(Failure::Refused(refusal)) if refusal.is_unknown_schema() => false,
            Err(_) => continue,
        };
        inner.lock().lost = Some((id, says(found).to_owned()));
    }
}

/// Tandem's own id of a schema as the registry prints it.
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

fn says(found: bool) -> &'static str {
    if found { "it has another schema there" } else { "it knows no such id" }
}
