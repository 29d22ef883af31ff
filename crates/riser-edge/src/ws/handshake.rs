//! Decides whether a request becomes a WebSocket (RFC 6455 §4.2), as a function of its head alone. Who the peer is, and
//! whether it may come in, is decided elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

/// What RFC 6455 §1.3 has the server append to the client's key.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The bytes that a key stands for, and its length in base64.
const KEY_BYTES: usize = 16;
const KEY_CHARS: usize = 24;

/// The subprotocols that a client may come with.
#[derive(Clone, Copy, Debug)]
pub enum Subprotocols<'a> {
    /// The first that the client offers and that is among these is chosen. A client that offers none of them is refused.
    Known(&'a [&'static str]),
    /// The first that the client offers is chosen, and none is needed. For servers that speak no protocol of their own.
    Any,
}

/// A request that may be answered with 101.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: HeaderValue,
    /// The subprotocol that was chosen.
    pub subprotocol: Option<HeaderValue>,
}

impl Accepted {
    /// The answer. Extensions are never negotiated.
    pub fn response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept_key);
        if let Some(subprotocol) = self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        response
    }
}

/// A request that must not become a WebSocket. The connection should be closed after the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused to upgrade: {detail}")]
pub struct Refusal {
    /// 400, 405 or 426.
    pub status: StatusCode,
    /// What was wrong, for a metric's label.
    pub reason: Reason,
    /// What was wrong, for whoever wrote the client. It holds nothing that the client sent.
    pub detail: &'static str,
    /// What the status requires: `Allow`, `Upgrade`, `Sec-WebSocket-Version`.
    pub headers: HeaderMap,
}

/// What was wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not GET.
    Method,
    /// Not HTTP/1.1.
    HttpVersion,
    /// Not exactly one `Host`, or one that names none.
    Host,
    /// A body is announced.
    Body,
    /// Not exactly one `Upgrade`, or one to something else.
    Upgrade,
    /// `Connection` does not say `upgrade`.
    Connection,
    /// Not exactly one `Sec-WebSocket-Version`, or not 13.
    WebSocketVersion,
    /// Not exactly one `Sec-WebSocket-Key`, or not of 16 bytes.
    WebSocketKey,
    /// No subprotocol that is known here.
    Subprotocol,
}

impl Reason {
    /// A short name from a closed set, fit for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::HttpVersion => "http_version",
            Self::Host => "host",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::Connection => "connection",
            Self::WebSocketVersion => "websocket_version",
            Self::WebSocketKey => "websocket_key",
            Self::Subprotocol => "subprotocol",
        }
    }
}

/// Checks a request's head, and chooses the subprotocol.
pub fn accept(parts: &Parts, subprotocols: Subprotocols<'_>) -> Result<Accepted, Refusal> {
    use Reason as R;
    let headers = &parts.headers;
    if parts.method != Method::GET {
        return Err(
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, R::Method, "the method must be GET").with(ALLOW, "GET")
        );
    }
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::bad(R::HttpVersion, "the version must be HTTP/1.1"));
    }
    if !matches!(only(headers, &HOST), Only::One(host) if Authority::try_from(host.as_bytes()).is_ok()) {
        return Err(Refusal::bad(R::Host, "there must be one Host header"));
    }
    let length = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if headers.contains_key(TRANSFER_ENCODING) || !length {
        return Err(Refusal::bad(R::Body, "a request to upgrade must have no body"));
    }
    match only(headers, &UPGRADE) {
        Only::One(upgrade) if upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") => {}
        Only::Many => return Err(Refusal::bad(R::Upgrade, "there must be one Upgrade header")),
        Only::None | Only::One(_) => {
            return Err(Refusal::upgrade(R::Upgrade, "this is a WebSocket's address"));
        }
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::bad(R::Connection, "the Connection header must say Upgrade"));
    }
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Only::One(version) if version == "13" => {}
        Only::One(_) => {
            return Err(Refusal::upgrade(R::WebSocketVersion, "the WebSocket version must be 13"));
        }
        Only::None | Only::Many => {
            return Err(Refusal::bad(R::WebSocketVersion, "there must be one Sec-WebSocket-Version header"));
        }
    }
    let accept_key = match only(headers, &SEC_WEBSOCKET_KEY) {
        Only::One(key) => accept_key(key.as_bytes()),
        Only::None | Only::Many => None,
    };
    let accept_key =
        accept_key.ok_or_else(|| Refusal::bad(R::WebSocketKey, "there must be one Sec-WebSocket-Key of 16 bytes"))?;
    let subprotocol = choose(headers, subprotocols)?;
    Ok(Accepted { accept_key, subprotocol })
}

/// The answer to a client's key, if the key stands for 16 bytes.
fn accept_key(key: &[u8]) -> Option<HeaderValue> {
    let mut decoded = [0; KEY_BYTES + 2];
    if key.len() != KEY_CHARS || STANDARD.decode_slice(key, &mut decoded) != Ok(KEY_BYTES) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    HeaderValue::try_from(STANDARD.encode(hash.digest().bytes())).ok()
}

fn choose(headers: &HeaderMap, subprotocols: Subprotocols<'_>) -> Result<Option<HeaderValue>, Refusal> {
    let mut offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty());
    let chosen = match subprotocols {
        Subprotocols::Known(known) => offered
            .find_map(|offer| known.iter().find(|name| name.as_bytes() == offer))
            .map(|name| HeaderValue::from_static(name)),
        Subprotocols::Any => {
            return Ok(offered.next().and_then(|name| HeaderValue::from_bytes(name).ok()));
        }
    };
    match chosen {
        Some(name) => Ok(Some(name)),
        None => Err(Refusal::bad(Reason::Subprotocol, "no subprotocol that is offered is known here")),
    }
}

enum Only<'a> {
    None,
    One(&'a HeaderValue),
    Many,
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Only<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Only::None,
        (Some(value), None) => Only::One(value),
        (Some(_), Some(_)) => Only::Many,
    }
}

/// Whether one of a header's comma-separated members is `token`, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

impl Refusal {
    fn new(status: StatusCode, reason: Reason, detail: &'static str) -> Self {
        Self { status, reason, detail, headers: HeaderMap::new() }
    }

    fn bad(reason: Reason, detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, detail)
    }

    fn upgrade(reason: Reason, detail: &'static str) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, reason, detail)
            .with(UPGRADE, "websocket")
            .with(CONNECTION, "Upgrade")
            .with(SEC_WEBSOCKET_VERSION, "13")
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}
