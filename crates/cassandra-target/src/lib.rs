//! Cassandra: prepared timestamped writes, reads with writetimes, token scans, schema
