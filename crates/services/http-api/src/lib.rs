//! What Tandem's HTTP APIs share: bearer tokens, and errors as problem+json.
//!
//! Each API has its own scopes, and decides what they allow.

mod access_token;
mod problem;

pub use access_token::{AccessToken, authenticate};
pub use problem::{Problem, problem_type};
