//! What happens to every request of an API: it gets an id, is checked, and is logged if the API failed.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;

use crate::problem::Said;
use crate::request_rules::RequestRules;

/// The header of a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that a client may give its request, in bytes.
const MAX_ID: usize = 64;
/// The longest path in the log, in bytes.
const MAX_PATH: usize = 100;

/// The paths of probes.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Checks each request by the rules before the router sees it. Gives each an id, which the response and every line of the
/// log about the request carry. Logs each response with a status of 500 or above.
pub fn guarded(router: Router, rules: RequestRules) -> Router {
    let rules = Arc::new(rules);
    router.layer(from_fn(move |request, next| guard(Arc::clone(&rules), request, next)))
}

async fn guard(rules: Arc<RequestRules>, request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let span = tracing::info_span!("request", request_id = %id.0);
    async {
        let (method, path) = (request.method().clone(), without_keys(request.uri().path()).to_owned());
        let (parts, body) = request.into_parts();
        // Probes may come under any name, and change nothing.
        let is_probe = method.is_safe() && PROBES.contains(&parts.uri.path());
        let checked = if is_probe { Ok(()) } else { rules.check(&parts) };
        let mut response = match checked {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(problem) => problem.into_response(),
        };
        if response.status().is_server_error() {
            let said = response.extensions().get::<Said>();
            tracing::warn!(
                request_id = %id.0,
                %method,
                path,
                status = response.status().as_u16(),
                kind = said.map(|said| said.kind),
                detail = said.map(|said| said.detail.as_str()),
                "a request failed"
            );
        }
        if let Ok(id) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
    .instrument(span)
    .await
}

/// The id of a request: the client's own, or a random one.
struct RequestId(String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let given = given.filter(|id| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(harmless));
        Self(given.map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned))
    }
}

/// The first two segments of a path. What follows may be the key of a row, and values of rows are not logged.
fn without_keys(path: &str) -> &str {
    let end = path.match_indices('/').nth(2).map_or(path.len(), |(at, _)| at);
    path.get(..end.min(MAX_PATH)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_id_is_kept() {
        let of = |id: &'static str| {
            RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))])).0
        };
        assert_eq!(of("a-1_B.2"), "a-1_B.2");
        for bad in ["", "a b", "a\"b", "a=b", &"x".repeat(MAX_ID + 1)] {
            let id =
                RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(bad).unwrap())]));
            assert_eq!(id.0.len(), 32, "{bad}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).0, RequestId::of(&HeaderMap::new()).0);
    }

    #[test]
    fn keys_are_not_logged() {
        assert_eq!(without_keys("/v1/order/secret/key"), "/v1/order");
        assert_eq!(without_keys("/v1/order"), "/v1/order");
        assert_eq!(without_keys("/"), "/");
        assert_eq!(without_keys(&format!("/{}", "x".repeat(1000))).len(), MAX_PATH);
    }
}
