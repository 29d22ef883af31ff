//! What every HTTP API of ours does with a request before it does what is asked: its form, its body, its query; and how it
//! is refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use riser_core::ErrorCode;
use riser_core::tenant::api_key::API_KEY_PREFIX;
use tokio::time::timeout;

use crate::problem::Problem;

/// Names of parameters that hold credentials.
const SECRET_NAMES: [&str; 11] = [
    "token",
    "access_token",
    "key",
    "api_key",
    "apikey",
    "jwt",
    "auth",
    "authorization",
    "bearer",
    "password",
    "secret",
];

/// A request that is answered with a problem, and why, for the metric. Boxed, because answers are seldom refusals.
#[derive(Debug)]
pub struct Refused(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    reason: &'static str,
    problem: Problem,
    headers: HeaderMap,
}

impl Refused {
    /// A refusal with a reason from a closed set.
    pub fn new(reason: &'static str, problem: Problem) -> Self {
        Self::with(reason, problem, HeaderMap::new())
    }

    /// The same, with headers of its own.
    pub fn with(reason: &'static str, problem: Problem, headers: HeaderMap) -> Self {
        Self(Box::new(Refusal { reason, problem, headers }))
    }

    /// 405, with the methods that are served at this path.
    pub fn method(allowed: &[Method]) -> Self {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("only {allowed} is served here");
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadFrame, detail);
        let allow = HeaderValue::from_str(&allowed).map(|value| (ALLOW, value));
        Self::with("method", problem, allow.into_iter().collect())
    }

    /// Why, for a metric.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The answer. The connection ends with it: what follows a refused request may be meant for something else.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = self.0.problem.into_response();
        response.headers_mut().extend(self.0.headers);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// 400: something is wrong in the request itself.
pub fn bad(detail: impl Into<String>) -> Refused {
    Refused::new("bad_request", Problem::bad_frame(detail))
}

/// A JSON answer, which nobody keeps.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What must hold for every request, before anything else of it is looked at.
pub fn check_form<B>(request: &Request<B>) -> Result<(), Refused> {
    let bad = |reason, detail: &str| Err(Refused::new(reason, Problem::bad_frame(detail)));
    let uri = request.uri();
    if uri.scheme().is_some() || uri.authority().is_some() {
        return Err(Refused::new("absolute_form", Problem::not_found("this is no proxy")));
    }
    if request.version() != Version::HTTP_11 {
        return bad("http_version", "HTTP/1.1 is needed");
    }
    let headers = request.headers();
    if headers.get_all(HOST).iter().count() != 1 {
        return bad("host", "exactly one Host is needed");
    }
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return bad("framing", "a body is framed by Content-Length or by Transfer-Encoding, not by both");
    }
    if uri.query().is_some_and(has_credential) {
        return bad("query_credential", "a credential in a URL ends up in logs: send it in the Authorization header");
    }
    Ok(())
}

/// Whether a query names a credential, or holds something that looks like one.
fn has_credential(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        SECRET_NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
            || value.starts_with(API_KEY_PREFIX)
            || value.starts_with("eyJ")
    })
}

/// The whole body of a request, of at most `limit` bytes, if it comes in time.
pub async fn body<B>(request: Request<B>, limit: usize, within: Duration) -> Result<Bytes, Refused>
where
    B: Body<Error: std::error::Error + Send + Sync + 'static>,
{
    match timeout(within, Limited::new(request.into_body(), limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refused::new("body_too_large", Problem::too_large(limit)))
        }
        Ok(Err(_)) => Err(bad("the body ended before its time")),
        Err(_) => Err(Refused::new("body_timeout", Problem::bad_frame("the body did not arrive in time"))),
    }
}

/// The values of the query's parameters in the order of `known`. What is not known is refused by name, rather than
/// ignored and believed to work.
pub fn query<'a, B>(request: &'a Request<B>, known: &[&str]) -> Result<Vec<Option<&'a str>>, Refused> {
    let mut values = vec![None; known.len()];
    let query = request.uri().query().unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(at) = known.iter().position(|k| *k == name) else {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(bad(format!("the query has a parameter that is not known here; known are: {known}")));
        };
        if values[at].replace(value).is_some() {
            return Err(bad(format!("`{name}` stands there twice")));
        }
    }
    Ok(values)
}
