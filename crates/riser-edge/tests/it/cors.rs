//! Calls from browsers' pages, and the description of the calls.

use super::http::{Server, server};

const PAGE: &str = "https://app.example";

/// The head of the answer, in lower case, to a call with these header lines.
async fn head(server: &Server, method: &str, path: &str, headers: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{headers}\r\n");
    server.head(&request).await.to_ascii_lowercase()
}

fn status(head: &str) -> &str {
    &head[9..12]
}

#[tokio::test]
async fn a_page_of_the_list_may_ask_and_read_and_no_other_may() {
    let server = server(Some(&[PAGE]), |_| {}).await;
    let key = format!("Authorization: Bearer {}\r\n", server.key);
    let allowed = format!("access-control-allow-origin: {PAGE}\r\n");
    let from_page = format!("{key}Origin: {PAGE}\r\n");
    let answer = head(&server, "GET", "/v1/presence?building=b1", &from_page).await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains(&allowed) && answer.contains("vary: origin"), "{answer}");
    assert!(!answer.contains("allow-credentials"), "cookies are no identity: {answer}");
    // A page can read why it was refused.
    for (path, headers, refused) in [
        ("/v1/presence", from_page.clone(), "400"),
        ("/v1/state/b1/f1", from_page.clone(), "404"),
        ("/v1/presence?building=b1", format!("Origin: {PAGE}\r\n"), "401"),
        ("/v1/nothing", from_page.clone(), "404"),
    ] {
        let answer = head(&server, "GET", path, &headers).await;
        assert_eq!((status(&answer), answer.contains(&allowed)), (refused, true), "{path}: {answer}");
    }
    for origin in ["null", "https://app.example.evil.com", "http://app.example", "https://app.example:8443", ""] {
        let answer = head(&server, "GET", "/v1/presence?building=b1", &format!("{key}Origin: {origin}\r\n")).await;
        assert_eq!((status(&answer), answer.contains("access-control")), ("403", false), "{origin}: {answer}");
    }
    let answer = head(&server, "GET", "/v1/presence?building=b1", &key).await;
    assert_eq!((status(&answer), answer.contains("access-control")), ("200", false), "no browser: {answer}");
}

#[tokio::test]
async fn a_browser_is_told_in_advance_what_it_may_send() {
    let server = server(Some(&[PAGE]), |_| {}).await;
    let ask = |origin: &str| format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
    let answer = head(&server, "OPTIONS", "/v1/commands", &ask(PAGE)).await;
    assert_eq!(status(&answer), "204", "{answer}");
    for line in [
        "access-control-allow-methods: post, get\r\n",
        "access-control-allow-headers: authorization, content-type\r\n",
        &format!("access-control-allow-origin: {PAGE}\r\n"),
    ] {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    assert_eq!(status(&head(&server, "OPTIONS", "/v1/commands", &ask("https://evil.example")).await), "403");
    assert_eq!(status(&head(&server, "OPTIONS", "/v1/nothing", &ask(PAGE)).await), "404");
    let no_preflight = head(&server, "OPTIONS", "/v1/commands", &format!("Origin: {PAGE}\r\n")).await;
    assert_eq!(status(&no_preflight), "405");
}

#[tokio::test]
async fn a_page_without_an_origin_must_be_listed_even_where_nothing_is() {
    let call = "/v1/presence?building=b1";
    for (origins, expected) in [(None, "403"), (Some(&["null"][..]), "200")] {
        let server = server(origins, |_| {}).await;
        let headers = format!("Authorization: Bearer {}\r\nOrigin: null\r\n", server.key);
        let answer = head(&server, "GET", call, &headers).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(answer.contains("access-control-allow-origin: null\r\n"), expected == "200", "{answer}");
    }
    let server = server(None, |_| {}).await;
    let headers = format!("Authorization: Bearer {}\r\nOrigin: {PAGE}\r\n", server.key);
    assert_eq!(status(&head(&server, "GET", call, &headers).await), "200", "without a list any page may");
}

#[tokio::test]
async fn the_calls_are_described_to_who_has_no_key() {
    let server = server(None, |_| {}).await;
    let answer = head(&server, "GET", "/openapi.json", "").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert_eq!(status(&head(&server, "GET", "/openapi.json?format=yaml", "").await), "400");
    assert_eq!(status(&head(&server, "POST", "/openapi.json", "").await), "405");
}
