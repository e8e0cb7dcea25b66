//! The apply loop: changes from Kafka to timestamped writes in Cassandra
