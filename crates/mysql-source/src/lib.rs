//! MySQL: binlog stream, row decoder, table definitions, chunk and key reads, preflight
