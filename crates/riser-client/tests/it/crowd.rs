//! Sessions whose sockets take nothing for a while, and with something that had to wait.

use std::time::Duration;

use futures_util::future::join_all;
use riser_client::{Client, Gateway, Notice, Order};
use riser_core::Json;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

/// More events than socket and session take at once, fewer than a session takes calls.
const MANY: usize = 250;

/// Long heartbeats, for time is skipped here.
fn patient(more: Value) -> Value {
    let mut fields = json!({"heartbeat_ms": 600_000});
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

fn fat(i: usize) -> Notice {
    Notice { id: i.to_string(), ..Notice::new("fat") }.data(Json::of(&"x".repeat(60_000)))
}

/// Refuses a frame for half a minute, lets it pass while nothing is read, then reads everything and says `ok`, up to
/// the frame that was refused and all events.
async fn stalls(peer: &mut Peer, first: &Value) {
    tokio::time::pause();
    // Time goes on by itself only when everybody waits: then the socket is full.
    tokio::time::sleep(Duration::from_millis(1)).await;
    peer.refuse(first, "unavailable", Some(30_000)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let (mut fat, mut again) = (0, false);
    while fat < MANY || !again {
        let frame = peer.recv().await;
        fat += usize::from(frame["type"] == "fat");
        again |= frame["t"] == first["t"] && frame["type"] == first["type"];
        peer.ok_with(&frame, json!({"cursor": "a.1", "cmd": "c1"})).await;
    }
}

#[tokio::test]
async fn a_client_goes_on_when_something_fell_due_while_its_socket_took_nothing() {
    for commands in [false, true] {
        let server = Server::narrow();
        let (client, mut peer) = tokio::join!(Client::connect(server.config()), server.session(patient(json!({}))));
        let client = client.expect("a session");
        let to = "b/_".parse().expect("an address");
        let first = async {
            if commands {
                let (to, path) = ("b/g".parse().expect("an address"), "hall/lock".parse().expect("a path"));
                let order = Order { deadline: Duration::from_secs(600), ..Order::new(to, path, "unlock") };
                let mut command = client.command(order).await.expect("it lives");
                // Nothing becomes of it: it is enough that it is sent again.
                tokio::select! {
                    _ = command.next() => panic!("nothing became of it"),
                    () = std::future::pending() => {}
                }
            }
            client.event(&to, &Notice::new("first")).await.expect("stored");
            std::future::pending::<()>().await;
        };
        let script = async {
            let first = peer.recv().await;
            let all = join_all((0..MANY).map(|i| {
                let (client, to) = (&client, &to);
                async move { client.event(to, &fat(i)).await.expect("stored") }
            }));
            tokio::join!(all, stalls(&mut peer, &first));
        };
        tokio::select! {
            done = timeout(WAIT, script) => done.expect("in time"),
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
    let first = Notice::new("first");
    let script = async {
        let first = peer.recv().await;
        let all = join_all((0..MANY).map(|i| {
            let gateway = &gateway;
            async move { gateway.event(&fat(i)).await.expect("stored") }
        }));
        tokio::join!(all, stalls(&mut peer, &first));
    };
    let (stored, done) = tokio::join!(gateway.event(&first), timeout(WAIT, script));
    done.expect("in time");
    stored.expect("stored");
}
