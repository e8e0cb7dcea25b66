//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use crate::api::auth::Denied;
use crate::api::view::{number, verdict};
use crate::order::Refusal;
use tandem_protocol::rollout::Obstacle;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    kind: &'static str,
    title: &'static str,
    pub(crate) status: StatusCode,
    detail: String,
    obstacles: Vec<Json>,
}

impl Problem {
    fn new(kind: &'static str, title: &'static str, status: StatusCode, detail: impl Into<String>) -> Self {
        Self { kind, title, status, detail: detail.into(), obstacles: Vec::new() }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request", "The request cannot be understood", StatusCode::BAD_REQUEST, detail)
    }

    /// The phase is unknown at the moment.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        let title = "The control topic is not available";
        Self::new("control-topic-unavailable", title, StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Kafka has not answered within the deadline of the request.
    pub(crate) fn unknown(detail: impl Into<String>) -> Self {
        let title = "It is not known yet whether the phase was changed";
        Self::new("outcome-unknown", title, StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// The body of the response.
    pub(crate) fn json(&self) -> Json {
        let mut body = json!({
            "type": format!("urn:tandem:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.obstacles.is_empty() {
            body["obstacles"] = self.obstacles.clone().into();
        }
        body
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown => Self::new(
                "unauthorized",
                "The request names no known token",
                StatusCode::UNAUTHORIZED,
                "send `Authorization: Bearer …` with a token of [[controller.token]]",
            ),
            Denied::Lacks(scope) => Self::new(
                "forbidden",
                "The token does not allow this",
                StatusCode::FORBIDDEN,
                format!("the token lacks the scope {scope}"),
            ),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Standby => Self::new(
                "standby",
                "This controller is not the active one",
                StatusCode::SERVICE_UNAVAILABLE,
                "another controller is active, or none is yet: ask the others, or retry in some seconds",
            ),
            Refusal::Obstacles(next, obstacles) => {
                let said: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                let detail = match next {
                    Some(next) => format!("cannot advance to {next}: {}", said.join("; ")),
                    None => said.join("; "),
                };
                let title = "The next phase cannot be entered yet";
                Self {
                    obstacles: obstacles.iter().map(obstacle).collect(),
                    ..Self::new("not-yet", title, StatusCode::CONFLICT, detail)
                }
            }
            Refusal::First => Self::new(
                "first-phase",
                "There is no earlier phase",
                StatusCode::CONFLICT,
                "this is the first phase",
            ),
            Refusal::OtherGeneration { expected, found } => Self::new(
                "other-generation",
                "The phase has changed in the meantime",
                StatusCode::CONFLICT,
                format!(
                    "the request is for generation {expected}, but the current one is {found}: read the phase again"
                ),
            ),
            Refusal::NotWritten(cause) => {
                Self::unavailable(format!("nothing was changed; Kafka did not accept the change: {cause}"))
            }
            Refusal::Unknown(cause) => Self::unknown(format!("read the phase again: {cause}")),
        }
    }
}

fn obstacle(obstacle: &Obstacle) -> Json {
    let mut body = match obstacle {
        Obstacle::Gate(gate) | Obstacle::Failing(gate) => verdict(gate),
        Obstacle::Soak { held, needed } => json!({
            "name": "soak",
            "numbers": { "held_seconds": number(held.as_secs_f64()), "soak_seconds": number(needed.as_secs_f64()) },
        }),
        Obstacle::End | Obstacle::Paused => json!({ "name": obstacle.name() }),
    };
    body["detail"] = obstacle.to_string().into();
    body
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.json().to_string();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
