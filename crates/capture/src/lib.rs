//! The capture loop: binlog to Kafka, in order, exactly once
