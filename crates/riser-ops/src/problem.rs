//! The HTTP API's errors: `application/problem+json` (RFC 9457) with the `code`s of the wire protocol.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use riser_core::close::ErrorCode;
use serde::Serialize;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest `detail`, in characters. It may repeat a little of what the caller sent.
const DETAIL_CHARS: usize = 500;

/// Why a request was refused. Its title is the status's own (RFC 9457 §4.2.1), and so its type is `about:blank`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// The code, as in an `error` frame.
    pub code: ErrorCode,
    /// What is wrong with this request, for whoever wrote the caller. Cut to 500 characters.
    pub detail: String,
    /// When to try again, in seconds from now, when the answer is known.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem without `Retry-After`.
    pub fn new(status: StatusCode, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after_s: None }
    }

    /// The same, with the time to wait.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// 400: something is wrong in the request itself.
    pub fn bad_frame(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadFrame, detail)
    }

    /// 403: the credential is good and does not allow this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
    }

    /// 401: no credential came.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Forbidden, "a credential is needed: Authorization: Bearer …")
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, detail)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooMany, detail)
    }

    /// 429: too fast; come back after so many seconds.
    pub fn rate_limited(retry_after_s: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, "too many requests").retry_after(retry_after_s)
    }

    /// 503: a backing service did not answer, or this edge is going away; come back after so many seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, detail).retry_after(retry_after_s)
    }

    /// 500. What broke is in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, "something broke here")
    }

    /// The answer: never cached; a 401 names the scheme that is wanted (RFC 9110 §15.5.2).
    pub fn into_response(self) -> Response<Full<Bytes>> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: ErrorCode,
        }
        let end = self.detail.char_indices().nth(DETAIL_CHARS).map_or(self.detail.len(), |(at, _)| at);
        let body = serde_json::to_vec(&Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail[..end],
            code: self.code,
        });
        let body = body.expect("a struct of strings and a number serialises");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn body(response: Response<Full<Bytes>>) -> String {
        let body = response.into_body().collect().now_or_never().expect("a body that is there").expect("a whole body");
        String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_problem_says_what_the_rfc_and_the_protocol_want() {
        let response = Problem::unavailable("the state store did not answer", 3).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(Problem::unauthorized().into_response().headers()[WWW_AUTHENTICATE], "Bearer");
        let expected = concat!(
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"#,
            r#""detail":"the state store did not answer","code":"unavailable"}"#
        );
        assert_eq!(body(response), expected);
    }

    #[test]
    fn a_detail_is_cut_between_characters_and_escaped() {
        let long = Problem::bad_frame("é\"".repeat(1_000)).into_response();
        let body = body(long);
        let detail: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(detail["detail"].as_str().map(|text| text.chars().count()), Some(DETAIL_CHARS));
    }
}
