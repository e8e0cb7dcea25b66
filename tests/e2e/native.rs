//! Native writes on a real Cassandra (`TANDEM_CASSANDRA_NODES`) and Kafka (`TANDEM_KAFKA_BROKERS`): no acknowledged write
//! is lost, no request happens twice, and at rest targets, guards and the log hold the same, whoever stops wherever.

mod batches;
mod faults;
mod reverse;
mod single;
mod stage;
mod sweep;
