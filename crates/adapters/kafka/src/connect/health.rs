//! A client's last problem, and whether the brokers refuse it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::connect::bootstrap::Bootstrap;

/// How long a refusal counts as current. librdkafka retries within seconds and reports the same error every
/// 30 s.
const REFUSAL_TTL: Duration = Duration::from_secs(40);

/// The current refusal: the brokers refuse the client, or the client does not trust the brokers. Examples are
/// a wrong password and an untrusted certificate.
///
/// A refusal needs an operator, but librdkafka retries without limit, so roles show it. All clients of one
/// [`KafkaConfig`](crate::KafkaConfig) and its clones share this value.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<(Instant, String)>>>);

impl Refusals {
    /// Returns the last refusal, unless a client has succeeded since.
    pub fn current(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < REFUSAL_TTL).map(|(_, what)| what.clone())
    }

    /// Records a refusal.
    pub(crate) fn note(&self, what: String) {
        self.set(Some(what));
    }

    /// Clears the refusal.
    pub(crate) fn clear(&self) {
        self.set(None);
    }

    fn set(&self, what: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.map(|what| (Instant::now(), what));
    }
}

/// A client's last problem, until its next success, and how it is kept connected.
#[derive(Debug)]
pub(crate) struct Health {
    last: Mutex<Option<String>>,
    refusals: Refusals,
    pub(crate) bootstrap: Bootstrap,
}

impl Health {
    pub(crate) fn new(refusals: &Refusals, brokers: &str) -> Arc<Self> {
        Arc::new(Self {
            last: Mutex::default(),
            refusals: refusals.clone(),
            bootstrap: Bootstrap::new(brokers),
        })
    }

    pub(crate) fn failed(&self, what: impl Into<String>) {
        let what = what.into();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(&what) {
            tracing::warn!(error = what, "Kafka");
            *last = Some(what);
        }
    }

    pub(crate) fn ok(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take().is_some() {
            self.refusals.clear();
            tracing::info!("Kafka answers again");
        }
    }

    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records an error that librdkafka reports. The end of a partition is not an error.
    pub(crate) fn report(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        match error.rdkafka_error_code() {
            Some(Code::PartitionEOF) => return,
            // It follows the error of the last broker and is less specific.
            Some(Code::AllBrokersDown) if self.last().is_some() => return,
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                let remedy = "check kafka.sasl: mechanism, username and password";
                self.refusals.note(format!("Kafka: {text}; {remedy}"));
            }
            // With TLS 1.3 the client sees a refusal of its certificate only after the handshake.
            code if code == Some(Code::SSL) || text.contains("SSL alert number") => {
                self.refusals.note(format!("Kafka: {text}; {}", tls_remedy(&text)));
            }
            _ => {}
        }
        self.failed(text);
    }

    /// The current refusal of this client or of another client with the same configuration.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refusals.current()
    }
}

fn tls_remedy(text: &str) -> &'static str {
    if text.contains("verify failed") {
        "kafka.tls.ca must be the CA that signed the brokers' certificates, and these must name the brokers' \
         addresses"
    } else {
        "check kafka.tls.certificate and kafka.tls.key, and that the brokers speak TLS there"
    }
}
