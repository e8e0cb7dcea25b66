//! Kafka: topics, schema store, transactional publishing, consuming, offsets and lag
