//! Sessions whose sockets take nothing for a while, and with something that had to wait.

use std::time::Duration;

use futures_util::future::join_all;
use riser_client::{Client, Gateway, Notice, Order};
use riser_core::Json;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

/// More large frames than socket and session take at once, fewer than a session takes commands.
const MANY: usize = 250;
/// For how long the first frame is refused, and how much time is skipped while nothing is read.
const REFUSED_MS: u64 = 30_000;
const SKIPPED: Duration = Duration::from_secs(31);

/// Long heartbeats, for time is skipped here.
fn patient(more: Value) -> Value {
    let mut fields = json!({"heartbeat_ms": 600_000});
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

fn fat() -> Json {
    Json::of(&"x".repeat(60_000))
}

fn order(action: &str, args: Option<Json>) -> Order {
    let (to, path) = ("b/g".parse().expect("an address"), "hall/lock".parse().expect("a path"));
    Order { args, deadline: Duration::from_secs(600), ..Order::new(to, path, action) }
}

/// Refuses a frame for half a minute, lets it pass while nothing is read, then reads everything and says `ok`, up to
/// the frame that was refused and all large ones.
async fn stalls(peer: &mut Peer, first: &Value) {
    tokio::time::pause();
    // Time goes on by itself only when everybody waits: then the socket is full.
    tokio::time::sleep(Duration::from_millis(1)).await;
    peer.refuse(first, "unavailable", Some(REFUSED_MS)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::time::advance(SKIPPED).await;
    tokio::time::resume();
    let (mut fat, mut again) = (0, false);
    while fat < MANY || !again {
        let frame = peer.recv().await;
        let same = |name: &str| frame.get(name) == first.get(name);
        again |= same("t") && same("type") && same("action");
        fat += usize::from(frame["action"] == "fat" || frame["set"].get("fat").is_some());
        peer.ok_with(&frame, json!({"cursor": "a.1", "cmd": format!("c{}", frame["n"])})).await;
    }
}

/// Runs a script during which time is skipped.
async fn in_time(script: impl Future<Output = ()>) {
    timeout(WAIT + SKIPPED, script).await.expect("in time");
}

#[tokio::test]
async fn a_client_goes_on_when_something_fell_due_while_its_socket_took_nothing() {
    for commands in [false, true] {
        let server = Server::narrow();
        let (client, mut peer) = tokio::join!(Client::connect(server.config()), server.session(patient(json!({}))));
        let client = client.expect("a session");
        let (to, notice) = ("b/_".parse().expect("an address"), Notice::new("first"));
        let first = async {
            if commands {
                let mut command = client.command(order("first", None)).await.expect("it lives");
                // Nothing becomes of it: it is enough that it is sent again.
                drop(command.next().await);
            } else {
                client.event(&to, &notice).await.expect("stored");
            }
            std::future::pending::<()>().await;
        };
        let script = async {
            let first = peer.recv().await;
            let all = join_all((0..MANY).map(|_| client.command(order("fat", Some(fat())))));
            let (commands, ()) = tokio::join!(all, stalls(&mut peer, &first));
            drop(commands);
        };
        tokio::select! {
            () = in_time(script) => {}
            () = first => {}
        }
    }
}

#[tokio::test]
async fn a_gateway_goes_on_when_something_fell_due_while_its_socket_took_nothing() {
    let server = Server::narrow();
    let session = server.session(patient(json!({"peer": "gateway", "address": "b/g", "epoch": 7})));
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), session);
    let gateway = gateway.expect("a session");
    let full = peer.recv().await;
    peer.ok(&full).await;
    let notice = Notice::new("first");
    let first = async {
        gateway.event(&notice).await.expect("stored");
        std::future::pending::<()>().await;
    };
    let script = async {
        let first = peer.recv().await;
        let set = || [("fat".parse().expect("a path"), Some(fat()))].into();
        let all = join_all((0..MANY).map(|_| gateway.set(set())));
        let (stored, ()) = tokio::join!(all, stalls(&mut peer, &first));
        assert!(stored.iter().all(Result::is_ok));
    };
    tokio::select! {
        () = in_time(script) => {}
        () = first => {}
    }
}

#[tokio::test]
async fn room_for_what_waits_is_noticed_though_nothing_comes() {
    let server = Server::new().await;
    let (client, mut peer) = tokio::join!(Client::connect(server.config()), server.session(patient(json!({}))));
    let client = client.expect("a session");
    let all = join_all((0..MANY).map(|_| client.command(order("fat", Some(fat())))));
    let reading = async {
        for _ in 0..MANY {
            assert_eq!(peer.recv().await["action"], "fat");
        }
    };
    let (commands, ()) = tokio::join!(all, reading);
    drop(commands);
}
