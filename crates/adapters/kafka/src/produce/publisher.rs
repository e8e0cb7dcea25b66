//! Publishes in Kafka transactions.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::connect::client::log;
use crate::connect::config::KafkaConfig;
use crate::connect::health::Health;
use crate::connect::rebootstrap::Watched;
use crate::error::disposition;
use crate::error::{BoxError, PublishError};
use crate::message::to_kafka;
use crate::produce::producer::{ping_broker, take_acknowledgements};
use tandem_wire::log::{EndOffsets, OutRecord};

/// Limit for a start to end the transaction of an older publisher.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one attempt to end a transaction waits for Kafka's answer.
const END_STEP: Duration = Duration::from_secs(2);

/// How long one step of an abort waits while acknowledgements are outstanding.
const ABORT_STEP: Duration = Duration::from_millis(50);

type Finish = Box<dyn FnOnce(&EndOffsets) -> Result<Vec<OutRecord>, BoxError> + Send>;

/// Publishes batches of records, each in a Kafka transaction. Readers of committed records see all records of
/// a batch or none.
///
/// Only one publisher with a given transactional id can publish. The start of a new publisher fences every
/// older one, wherever it runs, and aborts its open transaction.
pub struct TransactionalPublisher {
    commands: Sender<Command>,
    /// Held for the length of a transaction.
    transaction: tokio::sync::Mutex<()>,
    health: Arc<Health>,
}

struct Command {
    records: Vec<OutRecord>,
    finish: Finish,
    reply: oneshot::Sender<Result<EndOffsets, PublishError>>,
}

impl TransactionalPublisher {
    /// Takes over the transactional id. When this returns, no older publisher can commit, and every record
    /// that an older one committed is visible.
    ///
    /// # Errors
    /// [`PublishError::Unreachable`] if no broker answers within 8 s; otherwise the configuration is wrong,
    /// or the takeover fails or takes longer than 30 s.
    pub async fn start(config: &KafkaConfig, transactional_id: &str) -> Result<Self, PublishError> {
        let health = Health::new(&config.refusals, &config.brokers);
        let (config, id, seen) = (config.clone(), transactional_id.to_owned(), Arc::clone(&health));
        let worker = tokio::task::spawn_blocking(move || {
            ping_broker(&config)?;
            let context = Deliveries { state: Mutex::default(), health: seen };
            let producer: BaseProducer<Deliveries> = config
                .transactional(&id)
                .create_with_context(context)
                .map_err(|e| PublishError::Config(e.to_string()))?;
            let worker = Worker { producer, id };
            worker.producer.init_transactions(INIT_TIMEOUT).map_err(|e| worker.classify(&e))?;
            Ok(worker)
        })
        .await
        .unwrap_or(Err(PublishError::Closed))?;
        let (commands, orders) = channel();
        std::thread::Builder::new()
            .name("kafka-publisher".into())
            .spawn(move || worker.run(&orders))
            .map_err(|e| PublishError::Config(format!("no thread could be started: {e}")))?;
        Ok(Self { commands, transaction: tokio::sync::Mutex::new(()), health })
    }

    /// Publishes `records` in one transaction.
    ///
    /// When all records are acknowledged, `finish` gets the offset after the last record of each written
    /// partition and returns the transaction's last records. `publish` returns the offsets after those.
    ///
    /// Dropping the future does not stop the transaction. The next call waits for its end.
    ///
    /// # Errors
    /// After any error but [`PublishError::Failed`], no record of the batch is visible or will become
    /// visible. After [`PublishError::Failed`] the outcome is unknown.
    pub async fn publish(
        &self,
        records: Vec<OutRecord>,
        finish: impl FnOnce(&EndOffsets) -> Result<Vec<OutRecord>, BoxError> + Send + 'static,
    ) -> Result<EndOffsets, PublishError> {
        let _transaction = self.transaction.lock().await;
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command { records, finish: Box::new(finish), reply })
            .map_err(|_| PublishError::Closed)?;
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// The last problem with Kafka, until the next success.
    pub fn last_error(&self) -> Option<String> {
        self.health.last()
    }
}

/// The acknowledgements of the open transaction. Each record's opaque is the number of its topic and
/// partition.
struct Deliveries {
    state: Mutex<DeliveryState>,
    health: Arc<Health>,
}

#[derive(Default)]
struct DeliveryState {
    ends: Vec<i64>,
    failed: Option<(String, KafkaError)>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.report(&error, reason);
    }
}

impl Watched for Deliveries {
    fn health(&self) -> &Health {
        &self.health
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let mut state = self.lock();
        match result {
            Ok(message) => {
                if let Some(end) = state.ends.get_mut(place) {
                    *end = (*end).max(message.offset() + 1);
                }
            }
            Err((error, message)) => {
                if state.failed.is_none() {
                    state.failed = Some((message.topic().to_owned(), error.clone()));
                }
            }
        }
    }
}

/// Numbers the topics and partitions in the order of their first record.
#[derive(Default)]
struct PartitionNumbers {
    numbers: HashMap<(Arc<str>, i32), usize>,
    /// A cache: the topic of the last record and the numbers of its partitions. The next record mostly has
    /// the same topic, with the same `Arc`.
    last: Option<(Arc<str>, Vec<Option<usize>>)>,
}

impl PartitionNumbers {
    fn number(&mut self, record: &OutRecord) -> usize {
        let partition = record.partition as usize;
        if let Some((topic, numbers)) = &self.last
            && Arc::ptr_eq(topic, &record.topic)
            && let Some(&Some(number)) = numbers.get(partition)
        {
            return number;
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry((Arc::clone(&record.topic), record.partition)).or_insert(next);
        let (topic, numbers) = self.last.get_or_insert_with(|| (Arc::clone(&record.topic), Vec::new()));
        if !Arc::ptr_eq(topic, &record.topic) {
            (*topic, *numbers) = (Arc::clone(&record.topic), Vec::new());
        }
        if numbers.len() <= partition {
            numbers.resize(partition + 1, None);
        }
        numbers[partition] = Some(number);
        number
    }
}

struct Worker {
    producer: BaseProducer<Deliveries>,
    id: String,
}

impl Worker {
    fn run(self, orders: &Receiver<Command>) {
        loop {
            match orders.recv_timeout(Duration::from_millis(100)) {
                Ok(Command { records, finish, reply }) => {
                    let outcome = self.transaction(records, finish);
                    if outcome.is_ok() {
                        self.producer.context().health.ok();
                    }
                    let _ = reply.send(outcome);
                }
                Err(RecvTimeoutError::Timeout) => self.producer.poll(Duration::ZERO),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn transaction(&self, records: Vec<OutRecord>, finish: Finish) -> Result<EndOffsets, PublishError> {
        *self.producer.context().lock() = DeliveryState::default();
        self.producer.context().health.bootstrap.progress();
        self.producer.begin_transaction().map_err(|e| self.classify(&e))?;
        let mut places = PartitionNumbers::default();
        let sent = self
            .send(records, &mut places)
            .and_then(|()| finish(&self.ends(&places)).map_err(PublishError::Finish))
            .and_then(|last| self.send(last, &mut places));
        if let Err(error) = sent {
            return Err(self.abort(error));
        }
        self.commit()?;
        Ok(self.ends(&places))
    }

    /// Sends records and waits until each is acknowledged. The client copies a record, so this drops each
    /// record right after sending it.
    fn send(&self, records: Vec<OutRecord>, places: &mut PartitionNumbers) -> Result<(), PublishError> {
        let mut known = places.numbers.len();
        for record in records {
            let place = places.number(&record);
            if place >= known {
                known = place + 1;
                self.producer.context().lock().ends.resize(known, 0);
            }
            let mut kafka = to_kafka(&record, place);
            while let Err((error, back)) = self.producer.send(kafka) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(self.classify(&error));
                }
                kafka = back;
                take_acknowledgements(&self.producer);
            }
        }
        while self.producer.in_flight_count() > 0 {
            take_acknowledgements(&self.producer);
            if self.producer.context().lock().failed.is_some() {
                break;
            }
        }
        match self.producer.context().lock().failed.take() {
            None => Ok(()),
            Some((topic, error)) => Err(match self.classify(&error) {
                PublishError::Aborted { cause, retry } => PublishError::Aborted {
                    cause: format!("a record for topic `{topic}` was not written: {cause}"),
                    retry,
                },
                other => other,
            }),
        }
    }

    fn ends(&self, places: &PartitionNumbers) -> EndOffsets {
        let state = self.producer.context().lock();
        places
            .numbers
            .iter()
            .map(|((topic, partition), &number)| ((Arc::clone(topic), *partition), state.ends[number]))
            .collect()
    }

    fn commit(&self) -> Result<(), PublishError> {
        loop {
            let Err(error) = self.producer.commit_transaction(END_STEP) else { return Ok(()) };
            match &error {
                // Repeating the call goes on with the same commit.
                KafkaError::Transaction(e) if e.is_retriable() => take_acknowledgements(&self.producer),
                KafkaError::Transaction(e) if e.txn_requires_abort() => {
                    return Err(self.abort(self.classify(&error)));
                }
                _ => {
                    return Err(match self.classify(&error) {
                        PublishError::Aborted { cause, .. } => PublishError::Failed(cause),
                        other => other,
                    });
                }
            }
        }
    }

    /// Aborts the transaction. Returns the error to report.
    fn abort(&self, error: PublishError) -> PublishError {
        if matches!(error, PublishError::Fenced { .. } | PublishError::Failed(_)) {
            return error;
        }
        // librdkafka drops unsent records and waits for the acknowledgements of sent ones. They must be
        // taken from its queue between the steps, or the abort never ends. (An explicit purge would make
        // librdkafka purge once more later, during the next transaction.)
        loop {
            let waiting = self.producer.in_flight_count() > 0;
            take_acknowledgements(&self.producer);
            match self.producer.abort_transaction(if waiting { ABORT_STEP } else { END_STEP }) {
                Ok(()) => return error,
                Err(KafkaError::Transaction(e)) if e.is_retriable() => {}
                Err(failed) => {
                    return match self.classify(&failed) {
                        PublishError::Aborted { cause, .. } => PublishError::Failed(cause),
                        other => other,
                    };
                }
            }
        }
    }

    /// Classifies an error by its consequence for the publisher.
    fn classify(&self, error: &KafkaError) -> PublishError {
        use RDKafkaErrorCode as Code;
        let fenced = |code| matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch);
        if let Some((code, text)) = self.producer.client().fatal_error() {
            return if fenced(code) { self.fenced() } else { PublishError::Failed(text) };
        }
        if error.rdkafka_error_code().is_some_and(fenced) {
            return self.fenced();
        }
        PublishError::Aborted { cause: error.to_string(), retry: disposition(error) }
    }

    fn fenced(&self) -> PublishError {
        PublishError::Fenced { id: self.id.clone() }
    }
}
