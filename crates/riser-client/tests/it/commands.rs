//! A client's commands: progress, repetition under the same key, cancelling, giving up.

use std::time::Duration;

use riser_client::{Client, Command, Event, Order, Outcome, Refused, Update};
use riser_core::command::Status;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

async fn connected(server: &Server) -> (Client, Peer) {
    let (client, peer) = tokio::join!(Client::connect(server.config()), server.session(Value::Null));
    (client.expect("a session"), peer)
}

fn order(deadline_ms: u64) -> Order {
    let (to, path) = ("b/g".parse().expect("an address"), "hall/lock".parse().expect("a path"));
    Order { deadline: Duration::from_millis(deadline_ms), ..Order::new(to, path, "unlock") }
}

fn outcome(cmd: &str, status: &str, at_ms: u64) -> Value {
    let is_final = !matches!(status, "held" | "sent" | "received" | "running");
    json!({"t": "outcome", "cmd": cmd, "of": "b/g", "status": status, "final": is_final, "code": null, "data": null,
        "at_ms": at_ms})
}

async fn next(command: &mut Command) -> Result<Outcome, Refused> {
    timeout(WAIT, command.next()).await.expect("in time")
}

async fn statuses(command: &mut Command, count: usize) -> Vec<Status> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(next(command).await.expect("an outcome").step.status);
    }
    statuses
}

#[tokio::test]
async fn a_command_is_followed_to_its_final_outcome() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    let args = riser_core::Json::parse(r#"{"for":1.50}"#).expect("JSON");
    let order = Order { args: Some(args), hold: true, key: Some("k1".into()), ..order(10_000) };
    let mut command = client.command(order).await.expect("it lives");
    let asked = peer.recv().await;
    let left = asked["deadline_ms"].as_u64().expect("a deadline");
    assert!((1..=10_000).contains(&left), "{left}");
    let expected = json!({"t": "command", "n": asked["n"], "to": "b/g", "path": "hall/lock", "action": "unlock",
        "args": {"for": 1.50}, "deadline_ms": left, "if_offline": "hold", "key": "k1"});
    assert_eq!(asked, expected);
    peer.ok_with(&asked, json!({"cmd": "c1"})).await;
    for (status, at_ms) in [("sent", 1), ("received", 2), ("running", 3), ("running", 4)] {
        peer.send(&outcome("c1", status, at_ms)).await;
    }
    let mut last = outcome("c1", "failed", 5);
    (last["code"], last["data"]) = (json!("jammed"), json!([1]));
    peer.send(&last).await;
    let expected = [Status::Sent, Status::Received, Status::Running, Status::Running];
    assert_eq!(statuses(&mut command, 4).await, expected);
    let outcome = next(&mut command).await.expect("an outcome");
    assert!(outcome.step.is_final && outcome.step.status == Status::Failed);
    assert_eq!(outcome.step.code.as_ref().map(riser_core::command::ResultCode::as_str), Some("jammed"));
    assert_eq!(serde_json::from_str::<Value>(riser_core::Json::of(&outcome).as_str()).expect("JSON"), last);
    assert_eq!(next(&mut command).await, Err(Refused::Ended));
    // A late word finds no handle, and is the owner's.
    peer.send(&json!({"t": "outcome", "cmd": "c1", "of": "b/g", "status": "succeeded", "final": false, "late": true,
        "code": null, "data": null, "at_ms": 6}))
        .await;
    loop {
        match timeout(WAIT, client.next()).await.expect("in time").expect("an event") {
            Event::Frame { update: Some(Update::Outcome(outcome)), .. } => {
                assert!(outcome.step.late);
                return;
            }
            Event::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_open_command_is_sent_again_with_its_key_and_tells_each_outcome_once() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(20_000)).await.expect("it lives");
    let first = peer.recv().await;
    assert_eq!(first["key"].as_str().map(str::len), Some(32));
    assert_eq!(first["key"], command.key());
    peer.ok_with(&first, json!({"cmd": "c1"})).await;
    peer.send(&outcome("c1", "sent", 1)).await;
    assert_eq!(statuses(&mut command, 1).await, [Status::Sent]);
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    let again = peer.recv().await;
    for field in ["to", "path", "action", "key", "if_offline"] {
        assert_eq!(again[field], first[field], "{field}");
    }
    assert!(again["deadline_ms"].as_u64() <= first["deadline_ms"].as_u64(), "only what is left of the deadline");
    peer.ok_with(&again, json!({"cmd": "c1"})).await;
    for (status, at_ms) in [("sent", 1), ("received", 2), ("succeeded", 3)] {
        peer.send(&outcome("c1", status, at_ms)).await;
    }
    assert_eq!(statuses(&mut command, 2).await, [Status::Received, Status::Succeeded]);
    drop(peer);
    // It is final: nothing is asked for any more.
    let mut peer = server.session(Value::Null).await;
    let other = client.command(Order { action: "lock".into(), ..order(20_000) }).await.expect("it lives");
    assert_eq!(peer.recv().await["action"], "lock");
    drop(other);
}

#[tokio::test]
async fn a_refusal_for_now_is_followed_by_the_same_key_and_one_for_good_is_told() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(20_000)).await.expect("it lives");
    let first = peer.recv().await;
    peer.refuse(&first, "unavailable", Some(1)).await;
    let again = peer.recv().await;
    assert_eq!(again["key"], first["key"]);
    peer.refuse(&again, "queue_full", None).await;
    let refused = Refused::ByServer { code: "queue_full".into(), message: "because".into() };
    assert_eq!(next(&mut command).await, Err(refused));
}

#[tokio::test]
async fn a_cancel_waits_for_the_name_and_is_sent_again_after_a_reconnect() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(20_000)).await.expect("it lives");
    let asked = peer.recv().await;
    command.cancel().await.expect("it lives");
    peer.ok_with(&asked, json!({"cmd": "c1"})).await;
    let cancel = peer.recv().await;
    assert_eq!((&cancel["t"], &cancel["cmd"]), (&json!("cancel"), &json!("c1")));
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    let mut frames = [peer.recv().await, peer.recv().await];
    frames.sort_by_key(|frame| frame["t"].to_string());
    assert_eq!((&frames[0]["t"], &frames[1]["t"]), (&json!("cancel"), &json!("command")));
    peer.ok_with(&frames[1], json!({"cmd": "c1"})).await;
    peer.refuse(&frames[0], "conflict", None).await;
    peer.send(&outcome("c1", "cancelled", 3)).await;
    assert_eq!(statuses(&mut command, 1).await, [Status::Cancelled]);
}

#[tokio::test]
async fn a_command_without_a_session_is_never_sent_after_its_deadline() {
    let server = Server::new().await;
    let (mut client, peer) = connected(&server).await;
    peer.close(4000, r#"{"retry_after_ms":600000}"#).await;
    while !matches!(timeout(WAIT, client.next()).await.expect("in time"), Some(Event::Disconnected { .. })) {}
    let mut late = client.command(order(100)).await.expect("it lives");
    assert_eq!(next(&mut late).await, Err(Refused::Unsent));
    let mut cancelled = client.command(order(60_000)).await.expect("it lives");
    cancelled.cancel().await.expect("it lives");
    assert_eq!(next(&mut cancelled).await, Err(Refused::Unsent));
}

#[tokio::test]
async fn a_command_that_may_not_have_been_taken_is_not_sent_again_after_its_deadline() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(200)).await.expect("it lives");
    peer.recv().await;
    // No `ok`, and the next session comes after the deadline.
    peer.close(4000, r#"{"retry_after_ms":400}"#).await;
    assert_eq!(next(&mut command).await, Err(Refused::NoOutcome));
    let mut peer = server.session(Value::Null).await;
    let other = client.command(Order { action: "lock".into(), ..order(20_000) }).await.expect("it lives");
    assert_eq!(peer.recv().await["action"], "lock", "it was asked for again");
    drop(other);
}

#[tokio::test]
async fn a_command_too_large_for_a_message_is_refused_here() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let fat = riser_core::Json::of(&"x".repeat(70_000));
    let mut command = client.command(Order { args: Some(fat), ..order(20_000) }).await.expect("it lives");
    assert!(matches!(next(&mut command).await, Err(Refused::TooMany(_))));
    let other = client.command(Order { action: "lock".into(), ..order(20_000) }).await.expect("it lives");
    assert_eq!(peer.recv().await["action"], "lock");
    drop(other);
}

#[tokio::test]
async fn progress_without_end_leaves_room_for_the_final_outcome() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let command = client.command(order(20_000)).await.expect("it lives");
    let asked = peer.recv().await;
    peer.ok_with(&asked, json!({"cmd": "c1"})).await;
    for at_ms in 0..500 {
        peer.send(&outcome("c1", "running", at_ms)).await;
    }
    peer.send(&outcome("c1", "succeeded", 500)).await;
    let outcome = timeout(WAIT, command.outcome()).await.expect("in time").expect("an outcome");
    assert_eq!(outcome.step.status, Status::Succeeded);
}

#[tokio::test]
async fn the_end_of_a_client_ends_its_commands() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(20_000)).await.expect("it lives");
    peer.recv().await;
    peer.close(4504, "").await;
    assert_eq!(next(&mut command).await, Err(Refused::Ended));
}

#[tokio::test]
async fn more_open_commands_than_an_edge_allows_are_refused_here() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let reading = async {
        for _ in 0..riser_client::order::OPEN {
            peer.recv().await;
        }
        peer
    };
    let asking = async {
        let mut commands = Vec::new();
        for _ in 0..=riser_client::order::OPEN {
            commands.push(client.command(order(20_000)).await.expect("it lives"));
        }
        commands
    };
    let (_peer, mut commands) = tokio::join!(reading, asking);
    let last = commands.last_mut().expect("one");
    assert_eq!(next(last).await, Err(Refused::Busy));
}

#[tokio::test]
async fn a_cancelled_command_that_may_not_have_been_taken_is_not_sent_again() {
    for refused in [false, true] {
        let server = Server::new().await;
        let (client, mut peer) = connected(&server).await;
        let mut command = client.command(order(60_000)).await.expect("it lives");
        let asked = peer.recv().await;
        command.cancel().await.expect("it lives");
        if refused {
            // Perhaps taken, perhaps not.
            peer.refuse(&asked, "unavailable", Some(1)).await;
        } else {
            drop(peer);
            peer = server.session(Value::Null).await;
        }
        assert_eq!(next(&mut command).await, Err(Refused::NoOutcome));
        let other = client.command(Order { action: "lock".into(), ..order(20_000) }).await.expect("it lives");
        assert_eq!(peer.recv().await["action"], "lock", "it was asked for again");
        drop(other);
    }
}

#[tokio::test]
async fn a_command_that_waits_to_be_sent_again_is_not_when_it_is_cancelled() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(60_000)).await.expect("it lives");
    let asked = peer.recv().await;
    peer.refuse(&asked, "unavailable", Some(60_000)).await;
    // Answered behind the refusal, so that the command waits by now.
    let to = "b/_".parse().expect("an address");
    let notice = riser_client::Notice::new("x");
    let (stored, ()) = tokio::join!(client.event(&to, &notice), async {
        let event = peer.recv().await;
        peer.ok(&event).await;
    });
    stored.expect("stored");
    command.cancel().await.expect("it lives");
    assert_eq!(next(&mut command).await, Err(Refused::NoOutcome));
}

#[tokio::test]
async fn a_command_that_was_taken_is_not_sent_again_after_its_deadline() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let mut command = client.command(order(300)).await.expect("it lives");
    let asked = peer.recv().await;
    peer.ok_with(&asked, json!({"cmd": "c1"})).await;
    peer.send(&outcome("c1", "sent", 1)).await;
    assert_eq!(statuses(&mut command, 1).await, [Status::Sent]);
    // The next session comes after the deadline.
    peer.close(4000, r#"{"retry_after_ms":600}"#).await;
    assert_eq!(next(&mut command).await, Err(Refused::NoOutcome));
    let mut peer = server.session(Value::Null).await;
    let other = client.command(Order { action: "lock".into(), ..order(20_000) }).await.expect("it lives");
    assert_eq!(peer.recv().await["action"], "lock", "it was asked for again");
    drop(other);
}
