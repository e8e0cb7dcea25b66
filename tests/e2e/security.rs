//! Secure connections: TLS to MySQL, TLS and SASL to Kafka, and accounts with the least privileges.

mod accounts;
mod kafka;
mod mysql;
