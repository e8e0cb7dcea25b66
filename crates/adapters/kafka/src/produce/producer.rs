//! Publishes without transactions.

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
use crate::connect::rebootstrap::{Watched, no_progress};
use crate::error::disposition;
use crate::error::{ConsumeError, PublishError};
use crate::message::{out_weight, to_kafka};
use tandem_wire::log::OutRecord;

/// The most memory of unacknowledged records, in KiB.
const IN_FLIGHT_KIB: usize = 64 << 10;

/// How long the thread waits for acknowledgements after the last `Producer` was dropped.
const LINGER: Duration = Duration::from_secs(10);

/// Writes records idempotently, in the order of the calls. A record counts as written once every in-sync
/// replica has acknowledged it. While no broker can be reached, the producer waits without limit. Cheap to
/// clone.
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
    /// Connects.
    ///
    /// # Errors
    /// [`PublishError::Unreachable`] if no broker answers within 8 s; [`PublishError::Refused`] or
    /// [`PublishError::Config`] if the configuration is wrong.
    pub async fn start(config: &KafkaConfig) -> Result<Self, PublishError> {
        let health = Health::new(&config.refusals, &config.brokers);
        let (config, seen) = (config.clone(), Arc::clone(&health));
        let producer = tokio::task::spawn_blocking(move || {
            ping_broker(&config)?;
            let context = Acknowledgements { in_flight: Mutex::default(), health: seen };
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
        Ok(Self { batches, space: Arc::new(Semaphore::new(IN_FLIGHT_KIB)), health })
    }

    /// Writes records. Returns their offsets, in the same order, once all are acknowledged.
    ///
    /// # Errors
    /// A record was refused or not acknowledged. Other records of the batch may have been written.
    pub async fn send(&self, records: Vec<OutRecord>) -> Result<Vec<i64>, PublishError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let kib = records.iter().map(out_weight).sum::<usize>() / 1024 + 1;
        let space = Arc::clone(&self.space).acquire_many_owned(kib.min(IN_FLIGHT_KIB) as u32).await;
        let space = space.map_err(|_| PublishError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.batches.send(Batch { records, reply, space }).map_err(|_| PublishError::Closed)?;
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// The last problem with Kafka, until the next success.
    pub fn last_error(&self) -> Option<String> {
        self.health.last()
    }
}

/// Checks that a broker answers. A producer itself would wait for one without limit.
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

/// The batches in flight. A record's opaque holds its batch's number in the upper half and its index in the
/// batch in the lower half.
struct Acknowledgements {
    in_flight: Mutex<HashMap<usize, InFlight>>,
    health: Arc<Health>,
}

struct InFlight {
    left: usize,
    offsets: Vec<i64>,
    failed: Option<PublishError>,
    reply: oneshot::Sender<Result<Vec<i64>, PublishError>>,
    _space: OwnedSemaphorePermit,
}

impl Acknowledgements {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, opaque: usize, outcome: Result<i64, PublishError>) {
        let (batch, place) = (opaque >> 32, opaque & 0xffff_ffff);
        let mut all = self.lock();
        let Some(in_flight) = all.get_mut(&batch) else { return };
        match outcome {
            Ok(offset) => {
                if let Some(slot) = in_flight.offsets.get_mut(place) {
                    *slot = offset;
                }
            }
            Err(error) => {
                in_flight.failed.get_or_insert(error);
            }
        }
        in_flight.left -= 1;
        if in_flight.left == 0
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
        self.health.report(&error, reason);
    }
}

impl Watched for Acknowledgements {
    fn health(&self) -> &Health {
        &self.health
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
    PublishError::Rejected { topic: topic.to_owned(), cause: error.to_string(), retry: disposition(error) }
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

/// The pause while there is no acknowledgement yet. librdkafka's own `flush` checks every 100 ms. With this
/// pause a transaction takes about 10 ms.
const ACK_PAUSE: Duration = Duration::from_micros(250);

/// Takes the acknowledgements that have arrived. If there are none, waits [`ACK_PAUSE`].
///
/// This does not use the timeout of `poll`: it counts in whole milliseconds, returns only at its deadline,
/// and spins for any shorter time.
pub(crate) fn take_acknowledgements<C: ProducerContext + Watched>(producer: &BaseProducer<C>) {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() < before {
        producer.context().health().bootstrap.progress();
    } else {
        no_progress(producer.client());
        std::thread::sleep(ACK_PAUSE);
    }
}

fn send(producer: &BaseProducer<Acknowledgements>, number: usize, batch: Batch) {
    let Batch { records, reply, space } = batch;
    let in_flight = InFlight {
        left: records.len(),
        offsets: vec![-1; records.len()],
        failed: None,
        reply,
        _space: space,
    };
    producer.context().lock().insert(number, in_flight);
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
