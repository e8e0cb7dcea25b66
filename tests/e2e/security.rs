//! Secure connections: TLS to MySQL, TLS and SASL to Kafka, and accounts that may do no more than
//! they must.

mod accounts;
mod kafka;
mod mysql;
