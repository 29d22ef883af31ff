//! Which requests are upgraded.

use http::{Request, StatusCode, Version, request::Parts};
use riser_edge::ws::handshake::{Accepted, Reason, Refusal, Subprotocols, accept};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const GOOD: [(&str, &str); 6] = [
    ("host", "riser.example"),
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-protocol", "riser.v1"),
];

fn parts(method: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).version(version).uri("/v1/ws");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn ask(headers: &[(&str, &str)]) -> Result<Accepted, Refusal> {
    accept(&parts("GET", Version::HTTP_11, headers), Subprotocols::Known(&["riser.v1"]))
}

/// The good headers, with all of `name` replaced by `values`.
fn with<'a>(name: &'a str, values: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let kept = GOOD.iter().copied().filter(|(other, _)| *other != name);
    kept.chain(values.iter().map(|value| (name, *value))).collect()
}

#[test]
fn a_good_request_is_accepted_with_the_key_of_the_rfc() {
    let response = ask(&GOOD).unwrap().response::<()>();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers();
    assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(headers["sec-websocket-protocol"], "riser.v1");
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(headers["connection"], "Upgrade");
    assert_eq!(headers.len(), 4);
}

#[test]
fn what_the_rfc_leaves_free_is_accepted() {
    let rows: [(&str, &[&str]); 9] = [
        ("host", &["127.0.0.1:8080"]),
        ("host", &["[::1]:8080"]),
        ("connection", &["keep-alive, UPGRADE"]),
        ("connection", &["keep-alive", "Upgrade"]),
        ("upgrade", &["WebSocket"]),
        ("content-length", &["0"]),
        ("sec-websocket-protocol", &["mqtt, riser.v1"]),
        ("sec-websocket-protocol", &["mqtt", "other ,\triser.v1 , , x"]),
        ("sec-websocket-extensions", &["permessage-deflate; client_max_window_bits"]),
    ];
    for (name, values) in rows {
        let response = ask(&with(name, values)).unwrap_or_else(|refusal| {
            panic!("{name}: {values:?} was refused: {refusal}");
        });
        let response = response.response::<()>();
        assert_eq!(response.headers()["sec-websocket-protocol"], "riser.v1");
        assert!(!response.headers().contains_key("sec-websocket-extensions"), "{name}");
    }
}

/// A header, the values that all of it is replaced by, and the answer to that.
type Wrong = (&'static str, &'static [&'static str], u16, Reason);

const WRONG_REQUESTS: [Wrong; 16] = [
    ("host", &[], 400, Reason::Host),
    ("host", &["a.example", "b.example"], 400, Reason::Host),
    ("host", &["a.example", "a.example"], 400, Reason::Host),
    ("host", &[""], 400, Reason::Host),
    ("host", &["a b"], 400, Reason::Host),
    ("transfer-encoding", &["chunked"], 400, Reason::Body),
    ("content-length", &["5"], 400, Reason::Body),
    ("content-length", &["0", "5"], 400, Reason::Body),
    ("upgrade", &[], 426, Reason::Upgrade),
    ("upgrade", &["h2c"], 426, Reason::Upgrade),
    ("upgrade", &["websocket", "websocket"], 400, Reason::Upgrade),
    ("upgrade", &["websocket", "h2c"], 400, Reason::Upgrade),
    ("upgrade", &["websocket, h2c"], 426, Reason::Upgrade),
    ("connection", &[], 400, Reason::Connection),
    ("connection", &["keep-alive"], 400, Reason::Connection),
    ("connection", &["xupgrade"], 400, Reason::Connection),
];

const WRONG_WEBSOCKETS: [Wrong; 18] = [
    ("sec-websocket-version", &[], 400, Reason::WebSocketVersion),
    ("sec-websocket-version", &["12"], 426, Reason::WebSocketVersion),
    ("sec-websocket-version", &["8"], 426, Reason::WebSocketVersion),
    ("sec-websocket-version", &["013"], 426, Reason::WebSocketVersion),
    ("sec-websocket-version", &["13, 8"], 426, Reason::WebSocketVersion),
    ("sec-websocket-version", &["13", "13"], 400, Reason::WebSocketVersion),
    ("sec-websocket-key", &[], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &[KEY, KEY], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &[""], 400, Reason::WebSocketKey),
    // Of 3 bytes, of 15, of 17, of 18.
    ("sec-websocket-key", &["YWJj"], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &["MDEyMzQ1Njc4OWFiY2Rl"], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &["MDEyMzQ1Njc4OWFiY2RlZjA="], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &["MDEyMzQ1Njc4OWFiY2RlZjAx"], 400, Reason::WebSocketKey),
    // Without its padding, with a bit beyond the sixteenth byte, with a character that is not base64's.
    ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZR=="], 400, Reason::WebSocketKey),
    ("sec-websocket-key", &["dGhlIHNhb!BsZSBub25jZQ=="], 400, Reason::WebSocketKey),
    ("sec-websocket-protocol", &[], 400, Reason::Subprotocol),
    ("sec-websocket-protocol", &["riser.v2, RISER.V1, riser"], 400, Reason::Subprotocol),
];

#[test]
fn what_the_rfc_forbids_is_refused_with_its_status_and_reason() {
    for (name, values, status, reason) in WRONG_REQUESTS.into_iter().chain(WRONG_WEBSOCKETS) {
        let refusal = ask(&with(name, values)).expect_err(name);
        assert_eq!((refusal.status.as_u16(), refusal.reason), (status, reason), "{name}: {values:?}");
    }
}

#[test]
fn a_long_list_of_nothing_offers_nothing() {
    for filler in [" ", ",", " ,"] {
        let refusal = ask(&with("sec-websocket-protocol", &[&filler.repeat(8 * 1024)])).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.reason), (400, Reason::Subprotocol));
    }
}

#[test]
fn only_get_over_http_1_1_is_accepted() {
    let known = Subprotocols::Known(&["riser.v1"]);
    for method in ["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get"] {
        let refusal = accept(&parts(method, Version::HTTP_11, &GOOD), known).expect_err(method);
        assert_eq!((refusal.status.as_u16(), refusal.reason), (405, Reason::Method), "{method}");
        assert_eq!(refusal.headers["allow"], "GET");
    }
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
        let refusal = accept(&parts("GET", version, &GOOD), known).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.reason), (400, Reason::HttpVersion), "{version:?}");
    }
}

#[test]
fn a_refusal_to_upgrade_says_to_what() {
    for (name, value) in [("upgrade", "h2c"), ("sec-websocket-version", "12")] {
        let refusal = ask(&with(name, &[value])).unwrap_err();
        assert_eq!(refusal.headers["upgrade"], "websocket");
        assert_eq!(refusal.headers["sec-websocket-version"], "13");
    }
}

#[test]
fn without_a_protocol_of_its_own_a_server_takes_what_is_offered_first() {
    for (offered, chosen) in [(&["b, a"][..], Some("b")), (&[][..], None), (&[" , "][..], None)] {
        let parts = parts("GET", Version::HTTP_11, &with("sec-websocket-protocol", offered));
        let accepted = accept(&parts, Subprotocols::Any).unwrap();
        assert_eq!(accepted.subprotocol.as_ref().map(|name| name.to_str().unwrap()), chosen);
    }
}
