//! Tests against real servers, named by `TANDEM_MYSQL_URL`, `TANDEM_KAFKA_BROKERS` and
//! `TANDEM_CASSANDRA_NODES`: `cargo xtask test` starts them.

mod mysql_source;
