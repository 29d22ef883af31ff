//! HTTP as far as a client needs it: one connection per call, everything bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::end::End;
use crate::endpoint::Endpoint;

/// From the first packet to the answer. An edge that has not answered by then does not get better by waiting.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Largest body of an answer, in bytes. A page of presence is the largest thing asked for.
pub(crate) const BODY_BYTES: usize = 4 * 1024 * 1024;
/// Most characters of a problem's text that are kept.
const DETAIL_CHARS: usize = 512;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Connects.
pub(crate) async fn dial(endpoint: &Endpoint) -> Result<TcpStream, End> {
    let unreachable = |why: String| End::Unreachable { to: endpoint.authority(), why };
    let stream = timeout(ANSWER_WAIT, TcpStream::connect((endpoint.host(), endpoint.port())))
        .await
        .map_err(|_| unreachable(format!("no answer within {} s", ANSWER_WAIT.as_secs())))?
        .map_err(|error| unreachable(error.to_string()))?;
    // Frames are small and each matters by itself. A socket without the option still works.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Makes one call and reads the answer, which may take this long.
pub(crate) async fn call(endpoint: &Endpoint, request: Request<Full<Bytes>>, wait: Duration) -> Result<Answer, End> {
    let stream = dial(endpoint).await?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The connection ends by itself once its sender is gone, so that both are always run to their ends.
        let (_, answer) = tokio::join!(connection, async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            drop(sender);
            read(answer).await
        });
        answer
    };
    timeout(wait, exchange).await.map_err(|_| End::Silent(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))?
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: http::Response<Incoming>) -> Result<Answer, End> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await.map_err(|error| End::Broken(error.to_string()))?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

pub(crate) fn silent() -> End {
    End::Silent(u64::try_from(ANSWER_WAIT.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn broken(error: hyper::Error) -> End {
    End::Broken(error.to_string())
}

impl Answer {
    /// The refusal that this answer is: from its problem document (RFC 9457), as far as it has one.
    pub(crate) fn refusal(&self) -> End {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Problem {
            code: Option<String>,
            title: Option<String>,
            detail: Option<String>,
        }
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        let reason = || self.status.canonical_reason().map(str::to_owned);
        let detail = problem.detail.or(problem.title).or_else(reason).unwrap_or_default();
        let seconds = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        End::Refused {
            status: self.status.as_u16(),
            code: problem.code,
            detail: detail.chars().take(DETAIL_CHARS).collect(),
            retry_after_ms: seconds.map(|s| s.saturating_mul(1_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, retry_after: Option<&'static str>, body: &'static str) -> End {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, http::HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers, body: Bytes::from_static(body.as_bytes()) }.refusal()
    }

    #[test]
    fn a_refusal_tells_what_the_problem_document_says() {
        let End::Refused { status: 429, code: Some(code), detail, retry_after_ms: Some(7_000) } =
            refusal(429, Some("7"), r#"{"code":"rate_limited","title":"Too fast","detail":"100 a second"}"#)
        else {
            panic!("not read");
        };
        assert_eq!((code.as_str(), detail.as_str()), ("rate_limited", "100 a second"));
    }

    #[test]
    fn a_refusal_without_a_document_has_the_words_of_its_status() {
        let End::Refused { code: None, detail, retry_after_ms: None, .. } =
            refusal(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "<html>")
        else {
            panic!("not read");
        };
        assert_eq!(detail, "Service Unavailable");
    }
}
