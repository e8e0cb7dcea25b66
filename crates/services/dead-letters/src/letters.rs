//! Follows the dead-letter topic.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_kafka::{Admin, ConsumeError, KafkaConfig, TailReader};
use tandem_model::{Disposition, Remedy, TableName};
use tandem_wire::WireError;
use tokio::sync::watch;

use crate::open::{Open, OpenLetter};

/// How long the follower waits for records before it looks whether it is still needed.
const WAIT: Duration = Duration::from_millis(500);

/// The dead-letter topic is no longer followed. Its user must start anew.
#[derive(Debug, Clone, thiserror::Error)]
#[error("following the dead-letter topic failed: {0}")]
pub struct DeadLettersError(Arc<Cause>);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Consume(ConsumeError),
    #[error("the record at offset {offset} cannot be read: {source}")]
    Decode { offset: i64, source: WireError },
}

impl From<ConsumeError> for DeadLettersError {
    fn from(error: ConsumeError) -> Self {
        Self(Arc::new(Cause::Consume(error)))
    }
}

impl DeadLettersError {
    /// What the caller does next. A new follower may succeed where reading failed.
    pub fn retry(&self) -> Disposition {
        match &*self.0 {
            Cause::Consume(error) => error.retry(),
            Cause::Decode { .. } => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match &*self.0 {
            Cause::Consume(error) => error.remedy(),
            Cause::Decode { .. } => None,
        }
    }
}

/// The open dead letters, as of some milliseconds ago. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    open: Arc<Mutex<Open>>,
    /// The offset up to which the topic was read, or why it is no longer followed.
    moved: watch::Receiver<Result<i64, DeadLettersError>>,
    admin: Arc<Admin>,
    topic: Arc<str>,
}

impl DeadLetters {
    /// Follows `<prefix>.dead-letters`. When this returns, every dead letter that is open now is known.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn follow(kafka: &KafkaConfig) -> Result<Self, DeadLettersError> {
        Self::follow_topic(kafka, kafka.topics().dead_letters()).await
    }

    /// Follows `<prefix>.reverse-dead-letters`, the native writes that MySQL refuses.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn follow_reverse(kafka: &KafkaConfig) -> Result<Self, DeadLettersError> {
        Self::follow_topic(kafka, kafka.topics().reverse_dead_letters()).await
    }

    async fn follow_topic(kafka: &KafkaConfig, topic: String) -> Result<Self, DeadLettersError> {
        let topic: Arc<str> = topic.into();
        let admin = Arc::new(Admin::connect(kafka).await?);
        let first = admin.first_offsets(&topic, 1).await?[0];
        let mut reader = TailReader::start(kafka, vec![(topic.to_string(), 0, first)]).await?;
        let open = Arc::new(Mutex::new(Open::from(first)));
        let (sender, moved) = watch::channel(Ok(first));
        let (followed, name) = (Arc::clone(&open), Arc::clone(&topic));
        tokio::spawn(async move {
            while !sender.is_closed() {
                let outcome = match reader.next_batch(500, WAIT).await {
                    Ok(records) => {
                        let mut open = lock(&followed);
                        records.iter().try_for_each(|record| {
                            let failed = |source| Cause::Decode { offset: record.offset, source };
                            open.take(record).map_err(|source| DeadLettersError(Arc::new(failed(source))))
                        })
                    }
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = outcome {
                    // An error only means that nobody follows any more.
                    let _ = sender.send(Err(error));
                    return;
                }
                let at = reader.consumed_to(&name, 0);
                sender.send_if_modified(|known| match at {
                    Some(at) if known.as_ref().is_ok_and(|known| *known < at) => {
                        *known = Ok(at);
                        true
                    }
                    _ => false,
                });
            }
        });
        let letters = Self { open, moved, admin, topic };
        letters.up_to_now().await?;
        Ok(letters)
    }

    /// The end of the topic as it is on the broker now. [`Self::has_read`] says whether it is read.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn end(&self) -> Result<i64, DeadLettersError> {
        Ok(self.admin.end_offsets(&self.topic, 1).await?[0])
    }

    /// Waits until every dead letter that was published before this call is known.
    ///
    /// # Errors
    /// Kafka does not answer, or the topic is no longer followed.
    pub async fn up_to_now(&self) -> Result<(), DeadLettersError> {
        self.up_to(self.end().await?).await
    }

    /// Waits until the topic is read up to this offset.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub async fn up_to(&self, end: i64) -> Result<(), DeadLettersError> {
        let mut moved = self.moved.clone();
        let reached = moved.wait_for(|read| read.as_ref().map_or(true, |at| *at >= end)).await;
        match reached.map(|read| read.clone()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConsumeError::Closed.into()),
        }
    }

    /// Whether the topic was read up to this offset.
    pub fn has_read(&self, end: i64) -> bool {
        self.moved.borrow().as_ref().is_ok_and(|at| *at >= end)
    }

    /// The offset up to which the known dead letters go.
    pub fn position(&self) -> i64 {
        lock(&self.open).end
    }

    /// Whether a dead letter of the key is open. `key` is the framed key of its records.
    pub fn is_open(&self, table: &TableName, key: &[u8]) -> bool {
        lock(&self.open).is_open(&table.to_string(), key)
    }

    /// Whether a dead letter of any row of the table is open.
    pub fn any_open(&self, table: &TableName) -> bool {
        lock(&self.open).any_open(&table.to_string())
    }

    /// Whether a dead letter of the key was settled or discarded since the topic was read to the [`Self::position`]
    /// `since`.
    pub fn was_settled_since(&self, table: &TableName, key: &[u8], since: i64) -> bool {
        lock(&self.open).was_settled_since(&table.to_string(), key, since)
    }

    /// The open dead letters, by place.
    pub fn all(&self) -> Vec<Arc<OpenLetter>> {
        lock(&self.open).all()
    }

    /// Waits until the topic is no longer followed, which happens only after an error.
    pub async fn ended(&self) -> DeadLettersError {
        let mut moved = self.moved.clone();
        match moved.wait_for(Result::is_err).await.map(|read| read.clone()) {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => ConsumeError::Closed.into(),
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
