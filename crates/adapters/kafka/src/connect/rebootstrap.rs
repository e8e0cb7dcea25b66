//! Brings back a client that has no broker left.
//!
//! A metadata response may name no broker, for example while the only broker of a cluster is fenced after a pause.
//! librdkafka 2.10 to 2.13 then drops every broker that it knows. It connects to the bootstrap brokers once more, and drops
//! those at the next such response. After that it asks nobody any more, stays disconnected for ever, and reports no error
//! (confluentinc/librdkafka#5301).
//!
//! So a client that makes no progress is given its bootstrap brokers again. That does no harm to one that is connected: the
//! next metadata response drops them.

use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;

use crate::connect::health::Health;

/// The context of a client that is kept connected.
pub(crate) trait Watched: ClientContext {
    /// The client's health.
    fn health(&self) -> &Health;
}

/// Notes that a client waits for an answer and has none. Gives it its bootstrap brokers if it has waited for a while.
pub(crate) fn no_progress<C: Watched>(client: &Client<C>) {
    if client.context().health().bootstrap.is_due(Instant::now()) {
        rebootstrap(client);
    }
}

/// Gives a client its bootstrap brokers again.
#[expect(unsafe_code, reason = "rdkafka has no safe wrapper of this function of librdkafka")]
pub(crate) fn rebootstrap<C: Watched>(client: &Client<C>) {
    let Some(brokers) = client.context().health().bootstrap.brokers() else { return };
    tracing::debug!("Kafka does not answer a client: it is given its bootstrap brokers again");
    // SAFETY: the pointer is that of a live client, because `client` is borrowed, and the text ends with a zero byte.
    // librdkafka locks what it changes, and copies the text.
    unsafe {
        rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr());
    }
}
