//! Publishing without transactions.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::connect::client::{LogContext, log, ping};
use crate::connect::config::KafkaConfig;
use crate::connect::health::Health;
use crate::error::may_pass;
use crate::error::{ConsumeError, PublishError};
use crate::message::{out_weight, to_kafka};
use tandem_wire::log::OutRecord;

/// The most memory that records may take from `send` until they are acknowledged, in KiB.
const UNDERWAY_KIB: usize = 64 << 10;

/// How long the thread goes on after its last user is gone, for what is still under way.
const LINGER: Duration = Duration::from_secs(10);

/// Writes records idempotently, in the order of the calls, and waits for every in-sync replica.
/// While no broker can be reached it waits, for ever. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    batches: Sender<Batch>,
    space: Arc<Semaphore>,
    health: Arc<Health>,
}

struct Batch {
    records: Vec<OutRecord>,
    reply: oneshot::Sender<Result<Vec<i64>, PublishError>>,
    space: OwnedSemaphorePermit,
}

impl Producer {
    /// Connects; without any broker's answer within some seconds this is
    /// [`PublishError::Unreachable`].
    pub async fn start(config: &KafkaConfig) -> Result<Self, PublishError> {
        let health = Health::new(&config.refusals);
        let (config, seen) = (config.clone(), Arc::clone(&health));
        let producer = tokio::task::spawn_blocking(move || {
            ping_broker(&config)?;
            let context = Acknowledgements { underway: Mutex::default(), health: seen };
            let producer: BaseProducer<Acknowledgements> = config
                .producer(&[("message.timeout.ms", "0")])
                .create_with_context(context)
                .map_err(|e| PublishError::Config(e.to_string()))?;
            Ok(producer)
        })
        .await
        .unwrap_or(Err(PublishError::Closed))?;
        let (batches, orders) = channel();
        std::thread::Builder::new()
            .name("kafka-producer".into())
            .spawn(move || run(&producer, &orders))
            .map_err(|e| PublishError::Config(format!("no thread could be started: {e}")))?;
        Ok(Self { batches, space: Arc::new(Semaphore::new(UNDERWAY_KIB)), health })
    }

    /// Writes records and gives their offsets, in the records' order, once all are acknowledged.
    /// After an error some of them may have been written.
    pub async fn send(&self, records: Vec<OutRecord>) -> Result<Vec<i64>, PublishError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let kib = records.iter().map(out_weight).sum::<usize>() / 1024 + 1;
        let space = Arc::clone(&self.space).acquire_many_owned(kib.min(UNDERWAY_KIB) as u32).await;
        let space = space.map_err(|_| PublishError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.batches.send(Batch { records, reply, space }).map_err(|_| PublishError::Closed)?;
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// The last thing that went wrong with Kafka, until something goes right.
    pub fn last_error(&self) -> Option<String> {
        self.health.last()
    }
}

/// Whether a broker answers, before a producer is made that would wait for one for ever.
pub(crate) fn ping_broker(config: &KafkaConfig) -> Result<(), PublishError> {
    let context = LogContext::new(config);
    let health = Arc::clone(&context.health);
    let consumer: BaseConsumer<LogContext> =
        config.client(&[]).create_with_context(context).map_err(|e| PublishError::Config(e.to_string()))?;
    ping(&consumer, config, &health).map_err(|error| match error {
        ConsumeError::Unreachable { brokers, cause } => PublishError::Unreachable { brokers, cause },
        ConsumeError::Refused { brokers, cause } => PublishError::Refused { brokers, cause },
        other => PublishError::Failed(other.to_string()),
    })
}

/// The batches under way. A record's opaque is its batch's number in the upper half and its place
/// in the batch in the lower.
struct Acknowledgements {
    underway: Mutex<HashMap<usize, Underway>>,
    health: Arc<Health>,
}

struct Underway {
    left: usize,
    offsets: Vec<i64>,
    failed: Option<PublishError>,
    reply: oneshot::Sender<Result<Vec<i64>, PublishError>>,
    _space: OwnedSemaphorePermit,
}

impl Acknowledgements {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Underway>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, opaque: usize, outcome: Result<i64, PublishError>) {
        let (batch, place) = (opaque >> 32, opaque & 0xffff_ffff);
        let mut all = self.lock();
        let Some(underway) = all.get_mut(&batch) else { return };
        match outcome {
            Ok(offset) => {
                if let Some(slot) = underway.offsets.get_mut(place) {
                    *slot = offset;
                }
            }
            Err(error) => {
                underway.failed.get_or_insert(error);
            }
        }
        underway.left -= 1;
        if underway.left == 0
            && let Some(done) = all.remove(&batch)
        {
            let outcome = match done.failed {
                None => Ok(done.offsets),
                Some(error) => Err(error),
            };
            if outcome.is_ok() {
                self.health.ok();
            }
            let _ = done.reply.send(outcome);
        }
    }
}

impl ClientContext for Acknowledgements {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.told(&error, reason);
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, message)) => Err(rejected(message.topic(), error)),
        };
        self.settle(opaque, outcome);
    }
}

fn rejected(topic: &str, error: &KafkaError) -> PublishError {
    PublishError::Rejected { topic: topic.to_owned(), cause: error.to_string(), retriable: may_pass(error) }
}

fn run(producer: &BaseProducer<Acknowledgements>, orders: &Receiver<Batch>) {
    let mut number = 0usize;
    let mut ending: Option<Instant> = None;
    loop {
        let idle = producer.in_flight_count() == 0;
        let order = if idle && ending.is_none() {
            orders.recv_timeout(Duration::from_millis(50)).map_err(|e| e == RecvTimeoutError::Disconnected)
        } else {
            orders.try_recv().map_err(|e| e == TryRecvError::Disconnected)
        };
        match order {
            Ok(batch) => {
                send(producer, number, batch);
                number = (number + 1) & 0x7fff_ffff;
            }
            Err(true) => {
                let since = *ending.get_or_insert_with(Instant::now);
                if idle || since.elapsed() > LINGER {
                    return;
                }
            }
            Err(false) => {}
        }
        if producer.in_flight_count() > 0 {
            take_acknowledgements(producer);
        } else {
            producer.poll(Duration::ZERO);
        }
    }
}

/// How long to wait where no acknowledgement is there yet. librdkafka's own `flush` looks for them
/// every 100 ms; looking this often makes a transaction cost some 10 ms.
const PAUSE: Duration = Duration::from_micros(250);

/// Takes the acknowledgements that have come; where there are none, waits a little.
///
/// Not by the client's own timeout: it counts in whole milliseconds, returns at its deadline only, and
/// spins through what is less than one.
pub(crate) fn take_acknowledgements<C: ProducerContext>(producer: &BaseProducer<C>) {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() >= before {
        std::thread::sleep(PAUSE);
    }
}

fn send(producer: &BaseProducer<Acknowledgements>, number: usize, batch: Batch) {
    let Batch { records, reply, space } = batch;
    let underway = Underway {
        left: records.len(),
        offsets: vec![-1; records.len()],
        failed: None,
        reply,
        _space: space,
    };
    producer.context().lock().insert(number, underway);
    for (place, record) in records.iter().enumerate() {
        let opaque = number << 32 | place;
        let mut kafka = to_kafka(record, opaque);
        while let Err((error, back)) = producer.send(kafka) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                producer.context().settle(opaque, Err(rejected(&record.topic, &error)));
                break;
            }
            kafka = back;
            take_acknowledgements(producer);
        }
    }
}
