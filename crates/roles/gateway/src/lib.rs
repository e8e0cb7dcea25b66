//! The data API that stands before both stores, so that applications do not notice where their data
//! lives: HTTP and JSON, by entity.
//!
//! - A write commits in MySQL. From `dual-write` on what was read back under the row's lock is then
//!   written to Cassandra, at the version of a watermark taken before the COMMIT. If that fails, the
//!   client still has its success; if the COMMIT's outcome is unknown, it is left to the change log.
//! - A read is served by the store that the phase names ([`route`](tandem_protocol::route::route)), and by MySQL where Cassandra's
//!   answer is missing, different, late or failed.
//! - Every write answers with a token; a read with a token that is not applied is served by MySQL.
//!
//! What decides is plain functions of the core; here are short paths around them. Gateways share nothing but the stores and the log:
//! any number run beside each other.

mod body;
mod cassandra_health;
mod config;
mod entity;
mod gateway;
mod http;
mod metrics;
mod phases;
mod problem;
mod read;
mod tokens;
mod write;

pub use config::{GatewayConfig, GatewayError, GatewayParts, Idempotency};
pub use entity::json::to_json;
pub use gateway::Gateway;
pub use http::auth::{Access, AccessToken, Scope};
pub use metrics::Metrics;
pub use phases::Phases;
pub use problem::Problem;
