//! Errors as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value as Json, json};
use tandem_mysql::MysqlError;

/// What went wrong with a request. It contains no values of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// The last part of the type URN, such as `not-found`.
    pub kind: &'static str,
    /// The summary of the type.
    pub title: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened in this request.
    pub detail: String,
    /// The field that the problem is about.
    pub field: Option<String>,
    /// The seconds after which a retry may succeed.
    pub retry_after: Option<u32>,
}

impl Problem {
    fn new(kind: &'static str, title: &'static str, status: StatusCode, detail: impl Into<String>) -> Self {
        Self { kind, title, status, detail: detail.into(), field: None, retry_after: None }
    }

    fn later(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Sets the field that the problem is about.
    #[must_use]
    pub fn of_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request", "The request cannot be understood", StatusCode::BAD_REQUEST, detail)
    }

    /// A value that its column cannot hold.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        let title = "A value is not valid for its column";
        Self::new("invalid-value", title, StatusCode::UNPROCESSABLE_ENTITY, detail).of_field(field)
    }

    /// No such row, entity or path.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new("not-found", "There is no such thing", StatusCode::NOT_FOUND, detail)
    }

    /// The path does not support the method.
    pub fn method(detail: impl Into<String>) -> Self {
        Self::new(
            "method-not-allowed",
            "The path does not support this method",
            StatusCode::METHOD_NOT_ALLOWED,
            detail,
        )
    }

    /// A row with this key or unique value exists already.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new("conflict", "Another row is in the way", StatusCode::CONFLICT, detail)
    }

    /// An idempotency key that belongs to another request.
    pub fn idempotency_key_reused() -> Self {
        let detail = "this Idempotency-Key was used for another request";
        let title = "The idempotency key is taken";
        Self::new("idempotency-key-reused", title, StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// Reports the field as one of an operation's values: `COLUMN` becomes `values/COLUMN`.
    #[must_use]
    pub fn of_values(self) -> Self {
        Self { field: self.field.map(|column| format!("values/{column}")), ..self }
    }

    /// Reports the problem for an operation of a batch, by its index from 0.
    #[must_use]
    pub fn at(self, place: usize) -> Self {
        let field = self.field.map_or(String::new(), |field| format!("/{field}"));
        Self { field: Some(format!("/operations/{place}{field}")), ..self }
    }

    /// The condition of the request does not hold.
    pub fn precondition(detail: impl Into<String>) -> Self {
        let title = "The row is in another state";
        Self::new("precondition-failed", title, StatusCode::PRECONDITION_FAILED, detail)
    }

    /// The body is larger than the limit.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("a body may have at most {limit} bytes");
        Self::new("too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// No bearer token, or an unknown one.
    pub fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer …` with a token of [[gateway.token]]";
        Self::new("unauthorized", "The request names no known token", StatusCode::UNAUTHORIZED, detail)
    }

    /// The token lacks the scope.
    pub fn forbidden(scope: &str) -> Self {
        let detail = format!("the token lacks the scope {scope}");
        Self::new("forbidden", "The token does not allow this", StatusCode::FORBIDDEN, detail)
    }

    /// Too many requests are in flight.
    pub fn overloaded() -> Self {
        let detail = "more requests are in flight than [gateway] max_in_flight allows";
        Self::new("overloaded", "The gateway is full", StatusCode::SERVICE_UNAVAILABLE, detail).later(1)
    }

    /// The store that must serve the request does not answer.
    pub fn unavailable(kind: &'static str, detail: impl Into<String>) -> Self {
        Self::new(kind, "A store does not answer", StatusCode::SERVICE_UNAVAILABLE, detail).later(1)
    }

    /// The deadline has passed, and nothing was changed.
    pub fn late() -> Self {
        let detail = "the deadline passed before the answer was ready; nothing was changed";
        Self::new("deadline", "The answer came too late", StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// It is unknown whether the write was committed.
    pub fn commit_unknown(cause: &str) -> Self {
        let detail = format!(
            "{cause}; the write may have been committed or not: read the row, or send the request again with \
             the same Idempotency-Key"
        );
        Self::new(
            "commit-outcome-unknown",
            "Whether the write was committed is not known",
            StatusCode::BAD_GATEWAY,
            detail,
        )
    }

    /// An internal error.
    pub fn internal(detail: impl Into<String>) -> Self {
        let title = "The gateway is at fault";
        Self::new("internal", title, StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// Maps the error of a client's statement to a problem.
    pub fn from_mysql(error: &MysqlError, late: bool) -> Self {
        match error {
            MysqlError::Lost { .. } | MysqlError::Unreachable { .. } if late => Self::late(),
            MysqlError::Server { code, message, .. } => Self::from_code(*code, message, error),
            MysqlError::BadValue { column, problem, .. } => Self::invalid(column, problem),
            MysqlError::TableChanged { .. } => Self::internal(error.to_string()),
            MysqlError::MissingPrivilege { doing, .. } => Self::internal(format!(
                "MySQL refused {doing}: GRANT SELECT, INSERT, UPDATE, DELETE on the table to the gateway's account"
            )),
            _ => Self::unavailable("mysql-unavailable", error.to_string()),
        }
    }

    fn from_code(code: u16, message: &str, error: &MysqlError) -> Self {
        match code {
            1062 => {
                Self::conflict("a row with this key, or with a value that must be unique, already exists")
            }
            1451 | 1452 | 1216 | 1217 => Self::conflict("a foreign key does not allow it"),
            // NULL, no default, out of range, too long, truncated, not a date or a number, arithmetic,
            // a check constraint, a generated column.
            1048 | 1264 | 1265 | 1292 | 1364 | 1365 | 1366 | 1406 | 1411 | 1525 | 1690 | 3105 | 3819 => {
                let mut problem = Self::new(
                    "invalid-value",
                    "A value is not valid for its column",
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("MySQL error {code}: {message}"),
                );
                problem.field = column_named(message);
                problem
            }
            // Lock wait timeout, deadlock, too many connections.
            1205 | 1213 | 1040 => {
                let title = "The row is busy";
                Self::new("busy", title, StatusCode::SERVICE_UNAVAILABLE, format!("MySQL error {code}"))
                    .later(1)
            }
            1053 | 1290 | 1836 | 1927 | 3169 => Self::unavailable("mysql-unavailable", error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }

    /// The body of the response.
    pub fn json(&self) -> Json {
        let mut body = json!({
            "type": format!("urn:tandem:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(field) = &self.field {
            body["field"] = field.clone().into();
        }
        body
    }

    /// The response.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
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

/// The column that one of MySQL's messages names: `… column 'x' …`, `Field 'x' …`.
fn column_named(message: &str) -> Option<String> {
    let lower = message.to_ascii_lowercase();
    let at = ["column '", "field '"].into_iter().find_map(|word| lower.find(word).map(|i| i + word.len()))?;
    message.get(at..)?.split_once('\'').map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_type_status_and_field() {
        let problem = Problem::invalid("amount", "too many digits");
        let body = problem.json();
        assert_eq!(body["type"], "urn:tandem:problem:invalid-value");
        assert_eq!((&body["status"], &body["field"]), (&json!(422), &json!("amount")));
        let response = Problem::overloaded().response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn mysql_errors_map_to_problems() {
        let server = |code, message: &str| MysqlError::Server {
            code,
            message: message.into(),
            doing: "inserting".into(),
        };
        let of = |code, message: &str| Problem::from_mysql(&server(code, message), false);
        let null = of(1048, "Column 'note' cannot be null");
        assert_eq!((null.status.as_u16(), null.field.as_deref()), (422, Some("note")));
        let field = of(1364, "Field 'x' doesn't have a default value");
        assert_eq!(field.field.as_deref(), Some("x"));
        let range = of(1264, "Out of range value for column 'n' at row 1");
        assert_eq!(range.field.as_deref(), Some("n"));
        assert_eq!(of(1062, "").status, StatusCode::CONFLICT);
        assert_eq!(of(1213, "").retry_after, Some(1));
        assert_eq!(of(1, "").status, StatusCode::INTERNAL_SERVER_ERROR);
        let lost = MysqlError::Lost { address: "h".into(), doing: "reading".into(), cause: "broken".into() };
        assert_eq!(Problem::from_mysql(&lost, false).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Problem::from_mysql(&lost, true).status, StatusCode::GATEWAY_TIMEOUT);
    }
}
