//! Errors as `application/problem+json` (RFC 9457).

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};

/// The `type` of the problems of this kind.
pub fn problem_type(kind: &str) -> String {
    format!("urn:tandem:problem:{kind}")
}

/// What went wrong with a request. It contains no values of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The last part of the type URN, such as `not-found`.
    pub kind: &'static str,
    /// The summary of the type.
    pub title: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened in this request.
    pub detail: String,
    /// The seconds after which a retry may succeed.
    pub retry_after: Option<u32>,
    /// The extension members of the body.
    pub extensions: Map<String, Json>,
}

impl Problem {
    /// Creates a problem without extension members, and without advice to retry.
    pub fn new(
        kind: &'static str,
        title: &'static str,
        status: StatusCode,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, title, status, detail: detail.into(), retry_after: None, extensions: Map::new() }
    }

    /// Sets the seconds after which a retry may succeed.
    #[must_use]
    pub fn retry_in(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Sets an extension member of the body.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Json>) -> Self {
        self.extensions.insert(member.to_owned(), value.into());
        self
    }

    /// The request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request", "The request cannot be understood", StatusCode::BAD_REQUEST, detail)
    }

    /// No bearer token, or an unknown one. `section` is the part of the configuration that lists the tokens.
    pub fn unauthorized(section: &str) -> Self {
        let detail = format!("send `Authorization: Bearer …` with a token of [[{section}.token]]");
        Self::new("unauthorized", "The request names no known token", StatusCode::UNAUTHORIZED, detail)
    }

    /// The token lacks the scope.
    pub fn forbidden(scope: impl fmt::Display) -> Self {
        let detail = format!("the token lacks the scope {scope}");
        Self::new("forbidden", "The token does not allow this", StatusCode::FORBIDDEN, detail)
    }

    /// What the request names does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new("not-found", "There is no such thing", StatusCode::NOT_FOUND, detail)
    }

    /// The body of the request is larger than `limit`, in bytes.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("a body may have at most {limit} bytes");
        Self::new("too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The client was too slow to send the body of its request.
    pub fn body_timeout() -> Self {
        let detail = "the body was not complete in time; nothing was changed";
        Self::new("body-timeout", "The body came too slowly", StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// The body of the response.
    pub fn json(&self) -> Json {
        let mut body = json!({
            "type": problem_type(self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        for (member, value) in &self.extensions {
            body[member] = value.clone();
        }
        body
    }
}

/// What a problem says, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json().to_string()).into_response();
        if self.status.is_server_error() {
            response.extensions_mut().insert(Said { kind: self.kind, detail: self.detail });
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_members_of_the_rfc_then_the_extensions() {
        let problem = Problem::not_found("no such order").with("field", "id").with("at", 2).retry_in(3);
        let expected = r#"{"type":"urn:tandem:problem:not-found","title":"There is no such thing","status":404,"detail":"no such order","field":"id","at":2}"#;
        assert_eq!(problem.json().to_string(), expected);
    }

    #[test]
    fn headers_say_the_type_when_to_retry_and_how_to_authenticate() {
        let response = Problem::bad_request("x").retry_in(3).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
        let response = Problem::unauthorized("gateway").into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
