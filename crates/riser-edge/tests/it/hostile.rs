//! Two tenants that use the same names over HTTP, one of them to see what the other has.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::door::add_tenant;
use super::http::{Server, server};

const PATIENCE: Duration = Duration::from_secs(20);

/// One call on a connection of its own: the status and the body.
async fn call(server: &Server, key: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("answered in time").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

async fn good(server: &Server, key: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
    let (status, text) = call(server, key, method, path, body).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_tenant_that_uses_the_names_of_another_sees_only_its_own() {
    let server = server(None, |_| {}).await;
    let other = add_tenant(&server);
    let mut cmds = Vec::new();
    let mut cursors = Vec::new();
    for (key, canary) in [(&server.key, "of-acme"), (&other, "of-other")] {
        let command = json!({
            "to":"b1/f1","path":"hall/lock","action":"unlock","args":{"canary":canary},"key":"k","if_offline":"hold","deadline_ms":60_000
        });
        cmds.push(good(&server, key, "POST", "/v1/commands", Some(&command)).await["cmd"].clone());
        let event = json!({"id":"1","type":"ring","data":{"canary":canary}});
        cursors.push(good(&server, key, "POST", "/v1/events/b1/f1", Some(&event)).await["cursor"].clone());
    }
    assert_ne!(cmds[0], cmds[1], "the same key was the same command of both");
    for (key, own, foreign) in [(&server.key, 0, 1), (&other, 1, 0)] {
        let canary = ["of-acme", "of-other"][foreign];
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (cmd, cursor) = (text(&cmds[foreign]), text(&cursors[foreign]));
        assert_eq!(call(&server, key, "GET", &format!("/v1/commands/{cmd}"), None).await.0, 404);
        good(&server, key, "GET", &format!("/v1/commands/{}", text(&cmds[own])), None).await;
        let list = good(&server, key, "GET", "/v1/commands?to=b1/f1", None).await.to_string();
        assert!(list.contains(&text(&cmds[own])) && !list.contains(&cmd) && !list.contains(canary), "{list}");
        let events = good(&server, key, "GET", "/v1/events?to=*/*", None).await;
        assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{events}");
        assert!(!events.to_string().contains(canary), "{events}");
        // A position in the other's events is one of nobody's here.
        let after = good(&server, key, "GET", &format!("/v1/events?to=*/*&cursor={cursor}"), None).await;
        assert_eq!(after["gap"], true, "{after}");
        assert!(!after.to_string().contains(canary), "{after}");
    }
    // Nor does a token that one tenant makes open anything of the other.
    let order = json!({"peer":"gateway","address":"b1/f1","ttl_s":3_600});
    let token = good(&server, &other, "POST", "/v1/tokens", Some(&order)).await;
    let token = token["token"].as_str().expect("a token");
    let (status, text) = call(&server, token, "GET", "/v1/commands?to=b1/f1", None).await;
    assert!(!text.contains("of-acme") && !text.contains(cmds[0].as_str().expect("text")), "{status} {text}");
}

#[tokio::test]
async fn a_tenant_is_not_kept_from_waiting_by_another_that_waits_as_often_as_it_may() {
    let server = server(None, |_| {}).await;
    let other = add_tenant(&server);
    let body = json!({
        "to":"b1/f1","path":"hall/lock","action":"unlock","if_offline":"hold","deadline_ms":60_000,"wait":"final"
    })
    .to_string();
    let ask = |key: &str, to: usize| {
        let body = body.replace("b1/f1", &format!("b1/f{to}"));
        format!(
            "POST /v1/commands HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut waiting = Vec::new();
    for number in 0..257 {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(ask(&server.key, number).as_bytes()).await.expect("written");
        waiting.push(stream);
    }
    let refused = async {
        while server.count("riser_refused_total", "too_many_waits") < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("one too many in time");
    // Of the other tenant one may wait: nobody answers it, until it is made final.
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let command = ask(&other, 1).replace("\"hold\"", "\"fail\"");
    stream.write_all(command.as_bytes()).await.expect("written");
    assert!(super::http::head_of(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
