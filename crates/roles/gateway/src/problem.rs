//! The problems that only the data API has.

use axum::http::StatusCode;
use serde_json::Value as Json;
use tandem_http_api::Problem;
use tandem_mysql::MysqlError;

/// The kind of [`commit_unknown`].
pub(crate) const COMMIT_UNKNOWN: &str = "commit-outcome-unknown";
/// The extension member that names the field of the request that a problem is about.
const FIELD: &str = "field";

/// The field of the request that a problem is about.
pub(crate) trait OfField: Sized {
    /// The field, if one is known.
    fn field(&self) -> Option<&str>;

    /// Sets the field.
    #[must_use]
    fn of_field(self, field: impl Into<String>) -> Self;

    /// Reports the field as one of an operation's values: `COLUMN` becomes `values/COLUMN`.
    #[must_use]
    fn of_values(self) -> Self {
        match self.field().map(|column| format!("values/{column}")) {
            Some(field) => self.of_field(field),
            None => self,
        }
    }

    /// Reports the problem for an operation of a batch, by its index from 0.
    #[must_use]
    fn at(self, place: usize) -> Self {
        let field = self.field().map_or(String::new(), |field| format!("/{field}"));
        self.of_field(format!("/operations/{place}{field}"))
    }
}

impl OfField for Problem {
    fn field(&self) -> Option<&str> {
        self.extensions.get(FIELD).and_then(Json::as_str)
    }

    fn of_field(self, field: impl Into<String>) -> Self {
        self.with(FIELD, field.into())
    }
}

/// A value that its column cannot hold.
pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Problem {
    invalid_value(detail).of_field(field)
}

/// A row that Cassandra cannot hold. The gateway rejects it, because its change would become a dead letter.
pub(crate) fn unfit(entity: &str, why: &str) -> Problem {
    invalid_value(format!("Cassandra cannot hold the row of {entity}: {why}"))
}

fn invalid_value(detail: impl Into<String>) -> Problem {
    let title = "A value is not valid for its column";
    Problem::new("invalid-value", title, StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// The path does not support the method.
pub(crate) fn method(detail: impl Into<String>) -> Problem {
    Problem::new(
        "method-not-allowed",
        "The path does not support this method",
        StatusCode::METHOD_NOT_ALLOWED,
        detail,
    )
}

/// A row with this key or unique value exists already.
pub(crate) fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new("conflict", "Another row is in the way", StatusCode::CONFLICT, detail)
}

/// An idempotency key that belongs to another request.
pub(crate) fn idempotency_key_reused() -> Problem {
    let detail = "this Idempotency-Key was used for another request";
    let title = "The idempotency key is taken";
    Problem::new("idempotency-key-reused", title, StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// The condition of the request does not hold.
pub(crate) fn precondition(detail: impl Into<String>) -> Problem {
    let title = "The row is in another state";
    Problem::new("precondition-failed", title, StatusCode::PRECONDITION_FAILED, detail)
}

/// Too many requests are in flight.
pub(crate) fn overloaded() -> Problem {
    let detail = "more requests are in flight than [gateway] max_in_flight allows";
    Problem::new("overloaded", "The gateway is full", StatusCode::SERVICE_UNAVAILABLE, detail).retry_in(1)
}

/// The store that must serve the request does not answer.
pub(crate) fn unavailable(kind: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(kind, "A store does not answer", StatusCode::SERVICE_UNAVAILABLE, detail).retry_in(1)
}

/// The deadline has passed, and nothing was changed.
pub(crate) fn late() -> Problem {
    let detail = "the deadline passed before the answer was ready; nothing was changed";
    Problem::new("deadline", "The answer came too late", StatusCode::GATEWAY_TIMEOUT, detail)
}

/// It is unknown whether the write was committed.
pub(crate) fn commit_unknown(cause: &str) -> Problem {
    let detail = format!(
        "{cause}; the write may have been committed or not: read the row, or send the request again with \
         the same Idempotency-Key"
    );
    Problem::new(
        COMMIT_UNKNOWN,
        "Whether the write was committed is not known",
        StatusCode::BAD_GATEWAY,
        detail,
    )
}

/// An internal error.
pub(crate) fn internal(detail: impl Into<String>) -> Problem {
    let title = "The gateway is at fault";
    Problem::new("internal", title, StatusCode::INTERNAL_SERVER_ERROR, detail)
}

/// Maps the error of a client's statement to a problem.
pub(crate) fn from_mysql(error: &MysqlError, is_late: bool) -> Problem {
    match error {
        MysqlError::Lost { .. } | MysqlError::Unreachable { .. } if is_late => late(),
        MysqlError::Server { code, message, .. } => from_code(*code, message, error),
        MysqlError::BadValue { column, problem, .. } => invalid(column, problem),
        MysqlError::TableChanged { .. } => internal(error.to_string()),
        MysqlError::MissingPrivilege { doing, .. } => internal(format!(
            "MySQL refused {doing}: GRANT SELECT, INSERT, UPDATE, DELETE on the table to the gateway's account"
        )),
        _ => unavailable("mysql-unavailable", error.to_string()),
    }
}

fn from_code(code: u16, message: &str, error: &MysqlError) -> Problem {
    match code {
        1062 => conflict("a row with this key, or with a value that must be unique, already exists"),
        1451 | 1452 | 1216 | 1217 => conflict("a foreign key does not allow it"),
        // NULL, no default, out of range, too long, truncated, not a date or a number, arithmetic,
        // a check constraint, a generated column.
        1048 | 1264 | 1265 | 1292 | 1364 | 1365 | 1366 | 1406 | 1411 | 1525 | 1690 | 3105 | 3819 => {
            let problem = invalid_value(format!("MySQL error {code}: {message}"));
            match column_named(message) {
                Some(column) => problem.of_field(column),
                None => problem,
            }
        }
        // Lock wait timeout, deadlock, too many connections.
        1205 | 1213 | 1040 => {
            let title = "The row is busy";
            Problem::new("busy", title, StatusCode::SERVICE_UNAVAILABLE, format!("MySQL error {code}"))
                .retry_in(1)
        }
        1053 | 1290 | 1836 | 1927 | 3169 => unavailable("mysql-unavailable", error.to_string()),
        _ => internal(error.to_string()),
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
    use axum::http::header;
    use axum::response::IntoResponse as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_names_its_type_status_and_field() {
        let problem = invalid("amount", "too many digits");
        let body = problem.json();
        assert_eq!(body["type"], "urn:tandem:problem:invalid-value");
        assert_eq!((&body["status"], &body["field"]), (&json!(422), &json!("amount")));
        let response = overloaded().into_response();
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
        let of = |code, message: &str| from_mysql(&server(code, message), false);
        let null = of(1048, "Column 'note' cannot be null");
        assert_eq!((null.status.as_u16(), null.field()), (422, Some("note")));
        let field = of(1364, "Field 'x' doesn't have a default value");
        assert_eq!(field.field(), Some("x"));
        let range = of(1264, "Out of range value for column 'n' at row 1");
        assert_eq!(range.field(), Some("n"));
        assert_eq!(of(1062, "").status, StatusCode::CONFLICT);
        assert_eq!(of(1213, "").retry_after, Some(1));
        assert_eq!(of(1, "").status, StatusCode::INTERNAL_SERVER_ERROR);
        let lost = MysqlError::Lost { address: "h".into(), doing: "reading".into(), cause: "broken".into() };
        assert_eq!(from_mysql(&lost, false).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(from_mysql(&lost, true).status, StatusCode::GATEWAY_TIMEOUT);
    }
}
