//! What last went wrong with a client, and whether the brokers refuse it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// librdkafka tries again within seconds, and tells of the same error every 30 s.
const TOLD_AGAIN: Duration = Duration::from_secs(40);

/// Whether the brokers refuse us, or we them: a wrong password, a certificate that is not trusted.
/// All clients of one [`KafkaConfig`](crate::KafkaConfig) and its clones share it. Such a thing does
/// not pass by itself, but librdkafka tries again for ever: roles show it.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<(Instant, String)>>>);

impl Refusals {
    /// The refusal that a client met last, if nothing went right since.
    pub fn current(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < TOLD_AGAIN).map(|(_, what)| what.clone())
    }

    /// Notes one met now.
    pub(crate) fn note(&self, what: String) {
        self.set(Some(what));
    }

    /// It has passed.
    pub(crate) fn clear(&self) {
        self.set(None);
    }

    fn set(&self, what: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.map(|what| (Instant::now(), what));
    }
}

/// The last thing that went wrong, until something goes right.
#[derive(Debug)]
pub(crate) struct Health {
    last: Mutex<Option<String>>,
    refusals: Refusals,
}

impl Health {
    pub(crate) fn new(refusals: &Refusals) -> Arc<Self> {
        Arc::new(Self { last: Mutex::default(), refusals: refusals.clone() })
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

    /// Keeps an error that librdkafka tells of. The end of a partition is none.
    pub(crate) fn told(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        match error.rdkafka_error_code() {
            Some(Code::PartitionEOF) => return,
            // It follows whatever went wrong with the last broker, and says less.
            Some(Code::AllBrokersDown) if self.last().is_some() => return,
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                let remedy = "check kafka.sasl: mechanism, username and password";
                self.refusals.note(format!("Kafka: {text}; {remedy}"));
            }
            // With TLS 1.3 a broker refuses our certificate after the handshake, as far as we see it.
            code if code == Some(Code::SSL) || text.contains("SSL alert number") => {
                self.refusals.note(format!("Kafka: {text}; {}", tls_remedy(&text)));
            }
            _ => {}
        }
        self.failed(text);
    }

    /// The refusal that this client, or one beside it, meets.
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
