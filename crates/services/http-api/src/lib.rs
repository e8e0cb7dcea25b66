//! What Tandem's HTTP APIs share: connections with limits, the checks of every request, bearer tokens, and errors as
//! problem+json.
//!
//! Each API has its own scopes, and decides what they allow.

mod access_token;
mod connection;
mod connections;
mod guard;
mod limits;
mod problem;
mod request_body;
mod request_rules;
mod slots;
mod watched;

pub use access_token::{AccessToken, authenticate};
pub use connections::{HttpListener, serve};
pub use guard::guarded;
pub use limits::ConnectionLimits;
pub use problem::{Problem, problem_type};
pub use request_body::read_body;
pub use request_rules::{AllowedHost, AllowedOrigin, RequestRules};
