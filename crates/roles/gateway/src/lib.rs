//! The data API in front of both stores: HTTP and JSON, one entity per mapped table.
//!
//! Applications use the same API in every phase, so they do not depend on which store holds their data.
//!
//! - A write commits in MySQL. From `dual-write` on, the gateway then writes the row image to Cassandra. It
//!   reads that image back under the row's lock and writes it at the version of a watermark taken before the
//!   COMMIT. If the Cassandra write fails, the client still gets success. If the outcome of the COMMIT is
//!   unknown, the gateway does not write to Cassandra and the change log brings the row.
//! - A read is served by the store that the phase names ([`route`](tandem_protocol::route::route)). MySQL
//!   serves it instead where Cassandra's answer is missing, different, late or failed.
//! - Every write answers with a token. MySQL serves a read whose token is not applied yet.
//!
//! The decisions are pure functions in `tandem_protocol`; this crate does the I/O around them. Gateways share
//! only the stores and the log, so any number of them can run side by side.

mod body;
mod circuit_breaker;
mod config;
mod entity;
mod gateway;
mod http;
mod metrics;
mod phases;
mod problem;
mod read;
mod tally;
mod write;
mod write_tokens;

pub use config::{GatewayConfig, GatewayError, GatewayParts, Idempotency};
pub use entity::json::to_json;
pub use gateway::Gateway;
pub use http::auth::{Access, Scope};
pub use metrics::Metrics;
pub use phases::Phases;
