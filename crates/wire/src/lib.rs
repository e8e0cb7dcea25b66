//! The bytes on the log: schemas, schema ids, rows and envelopes to and from Avro
