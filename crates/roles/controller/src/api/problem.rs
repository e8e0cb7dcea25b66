//! The problems that only the control API has.

use axum::http::StatusCode;
use serde_json::{Value as Json, json};
use tandem_http_api::Problem;
use tandem_protocol::rollout::Obstacle;

use crate::api::view::{number, verdict};
use crate::order::OrderError;

/// The kind of problem with which a standby answers.
pub const STANDBY: &str = "standby";

/// The phase is unknown at the moment.
pub(crate) fn unavailable(detail: impl Into<String>) -> Problem {
    let title = "The control topic is not available";
    Problem::new("control-topic-unavailable", title, StatusCode::SERVICE_UNAVAILABLE, detail).retry_in(1)
}

/// Kafka has not answered within the deadline of the request.
pub(crate) fn unknown(detail: impl Into<String>) -> Problem {
    let title = "It is not known yet whether the phase was changed";
    Problem::new("outcome-unknown", title, StatusCode::GATEWAY_TIMEOUT, detail)
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Standby => Problem::new(
                STANDBY,
                "This controller is not the active one",
                StatusCode::SERVICE_UNAVAILABLE,
                "another controller is active, or none is yet: ask the others, or retry in some seconds",
            )
            .retry_in(1),
            OrderError::Obstacles(next, obstacles) => {
                let said: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                let detail = match next {
                    Some(next) => format!("cannot advance to {next}: {}", said.join("; ")),
                    None => said.join("; "),
                };
                let title = "The next phase cannot be entered yet";
                let problem = Problem::new("not-yet", title, StatusCode::CONFLICT, detail);
                let obstacles: Vec<Json> = obstacles.iter().map(obstacle).collect();
                if obstacles.is_empty() { problem } else { problem.with("obstacles", obstacles) }
            }
            OrderError::First => Problem::new(
                "first-phase",
                "There is no earlier phase",
                StatusCode::CONFLICT,
                "this is the first phase",
            ),
            OrderError::OtherGeneration { expected, found } => Problem::new(
                "other-generation",
                "The phase has changed in the meantime",
                StatusCode::CONFLICT,
                format!(
                    "the request is for generation {expected}, but the current one is {found}: read the phase again"
                ),
            ),
            OrderError::NotWritten(cause) => {
                unavailable(format!("nothing was changed; Kafka did not accept the change: {cause}"))
            }
            OrderError::Unknown(cause) => unknown(format!("read the phase again: {cause}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_order_lists_its_obstacles() {
        let problem = Problem::from(OrderError::Obstacles(None, vec![Obstacle::Paused]));
        let detail = Obstacle::Paused.to_string();
        assert_eq!(
            problem.json(),
            json!({
                "type": "urn:tandem:problem:not-yet",
                "title": "The next phase cannot be entered yet",
                "status": 409,
                "detail": detail,
                "obstacles": [{ "name": Obstacle::Paused.name(), "detail": detail }],
            })
        );
        assert_eq!(problem.retry_after, None);
        assert_eq!(Problem::from(OrderError::Standby).retry_after, Some(1));
    }
}
