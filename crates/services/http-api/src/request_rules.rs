//! Which requests an API accepts at all: a web page that a browser shows must not be able to use it.
//!
//! - A page can have its own name lead to the address of the API (DNS rebinding). The browser then takes the API for a
//!   part of the page, but names the page's host in `Host`.
//! - A page can send some requests to any address without asking. The browser names the page in `Origin`, and a request
//!   with `Content-Type: application/json` is not among them.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, request};

use crate::problem::Problem;

/// A pattern of the host names under which an API may be reached, as in Django's `ALLOWED_HOSTS`: a name, a name after a
/// dot for all of its subdomains and itself, or `*` for every name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
        if text == "*" || !name.is_empty() && is_name {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!("`{text}` is not a host: write a name without a port, a dot and a domain, or *"))
    }
}

impl AllowedHost {
    fn allows(&self, host: &str) -> bool {
        let subdomains = self.0.strip_prefix('.');
        self.0 == "*"
            || self.0 == host
            || subdomains.is_some_and(|domain| domain == host || host.ends_with(&self.0))
    }
}

/// The origin of a web page that may change something, such as `https://admin.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(String);

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if rest.is_some_and(|rest| rest.parse::<Authority>().is_ok()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!(
            "`{text}` is not an origin: write a scheme and a host, such as https://admin.example.com"
        ))
    }
}

/// Which requests an API accepts.
#[derive(Debug, Clone, Default)]
pub struct RequestRules {
    /// The host names under which the API may be reached, besides `localhost` and every IP address.
    pub hosts: Vec<AllowedHost>,
    /// The origins of web pages that may change something.
    pub origins: Vec<AllowedOrigin>,
}

impl RequestRules {
    /// Checks `Host`, `Origin` and `Content-Type`.
    pub(crate) fn check(&self, request: &request::Parts) -> Result<(), Problem> {
        let headers = &request.headers;
        for host in hosts(&request.uri, headers)? {
            if !self.allows_host(&host) {
                return Err(misdirected());
            }
        }
        if matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let allowed =
            |origin: &[u8]| self.origins.iter().any(|o| origin.eq_ignore_ascii_case(o.0.as_bytes()));
        if !origins.all(|origin| allowed(origin.as_bytes())) {
            return Err(foreign_origin());
        }
        if request.method == Method::DELETE || !has_body(headers) || is_json(headers) {
            return Ok(());
        }
        Err(not_json())
    }

    fn allows_host(&self, host: &Authority) -> bool {
        let host = host.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|allowed| allowed.allows(&host))
    }
}

/// The hosts that a request names, in its target and in `Host`. A client of HTTP/1.0 may name none.
fn hosts(target: &Uri, headers: &HeaderMap) -> Result<Vec<Authority>, Problem> {
    let bad = || Problem::bad_request("the Host header is not one host");
    let named = headers.get_all(header::HOST).iter();
    let named = named.map(|host| host.to_str().ok().and_then(|host| host.parse().ok()).ok_or_else(bad));
    let mut hosts: Vec<Authority> = named.collect::<Result<_, _>>()?;
    if hosts.len() > 1 || hosts.iter().any(|host| host.as_str().contains('@')) {
        return Err(bad());
    }
    hosts.extend(target.authority().cloned());
    Ok(hosts)
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn misdirected() -> Problem {
    Problem::new(
        "misdirected",
        "The API is not served under this host name",
        StatusCode::MISDIRECTED_REQUEST,
        "the Host header names no allowed host: `allowed_hosts` lists them",
    )
}

fn foreign_origin() -> Problem {
    Problem::new(
        "foreign-origin",
        "Web pages of this origin may change nothing",
        StatusCode::FORBIDDEN,
        "the Origin header names no allowed origin: `allowed_origins` lists them",
    )
}

fn not_json() -> Problem {
    Problem::new(
        "unsupported-media-type",
        "The body is not JSON",
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send the body with `Content-Type: application/json`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn status(rules: &RequestRules, method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        rules.check(&parts).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn hosts_are_names_that_are_listed_localhost_and_addresses() {
        let rules = RequestRules {
            hosts: vec!["gw.example.com".parse().unwrap(), ".svc.local".parse().unwrap()],
            ..RequestRules::default()
        };
        for (host, expected) in [
            ("localhost:8080", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("192.0.2.7", 200),
            ("gw.example.com", 200),
            ("GW.example.com.:443", 200),
            ("a.svc.local", 200),
            ("svc.local", 200),
            ("evil-svc.local", 421),
            ("evil.com", 421),
            ("gw.example.com.evil.com", 421),
            ("127.0.0.1.evil.com", 421),
            ("localhost.evil.com", 421),
            ("evil.com@localhost", 400),
            ("", 400),
        ] {
            assert_eq!(status(&rules, "GET", "/", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status(&rules, "GET", "/", &[]), 200);
        assert_eq!(status(&rules, "GET", "/", &[("host", "localhost"), ("host", "evil.com")]), 400);
        assert_eq!(status(&rules, "GET", "http://evil.com/", &[("host", "localhost")]), 421);
        let any = RequestRules { hosts: vec!["*".parse().unwrap()], ..RequestRules::default() };
        assert_eq!(status(&any, "GET", "/", &[("host", "evil.com")]), 200);
    }

    #[test]
    fn a_page_changes_nothing_unless_its_origin_is_allowed() {
        let none = RequestRules::default();
        let origins = vec!["https://admin.example.com".parse().unwrap()];
        let some = RequestRules { origins, ..RequestRules::default() };
        for origin in
            ["https://evil.com", "null", "https://admin.example.com.evil.com", "http://localhost:8080"]
        {
            for rules in [&none, &some] {
                for method in ["POST", "PUT", "PATCH", "DELETE"] {
                    assert_eq!(status(rules, method, "/", &[("origin", origin)]), 403, "{method} {origin}");
                }
                // A page cannot read the answer.
                assert_eq!(status(rules, "GET", "/", &[("origin", origin)]), 200);
            }
        }
        let admin = ("origin", "https://Admin.example.com");
        assert_eq!(status(&some, "POST", "/", &[admin]), 200);
        assert_eq!(status(&none, "POST", "/", &[admin]), 403);
        assert_eq!(status(&some, "POST", "/", &[admin, ("origin", "https://evil.com")]), 403);
    }

    #[test]
    fn a_body_is_json() {
        let rules = RequestRules::default();
        let (length, chunked) = (("content-length", "2"), ("transfer-encoding", "chunked"));
        for (kind, expected) in [
            ("application/json", 200),
            ("Application/JSON; charset=utf-8", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("text/plain; application/json", 415),
            ("", 415),
        ] {
            for body in [length, chunked] {
                assert_eq!(status(&rules, "POST", "/", &[body, ("content-type", kind)]), expected, "{kind}");
            }
        }
        assert_eq!(status(&rules, "PATCH", "/", &[length]), 415);
        assert_eq!(status(&rules, "POST", "/", &[("content-length", "0")]), 200);
        assert_eq!(status(&rules, "DELETE", "/", &[]), 200);
    }

    #[test]
    fn settings_are_checked() {
        for bad in ["", ".", "a:80", "http://a", "a b", "*.a"] {
            assert!(bad.parse::<AllowedHost>().is_err(), "{bad}");
        }
        for bad in ["", "a", "https://", "https://a/b", "ftp://a", "*", "null"] {
            assert!(bad.parse::<AllowedOrigin>().is_err(), "{bad}");
        }
    }
}
