//! Commands at a gateway: each is given out once, and answered as often as it comes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use riser_client::gateway::MemoryError;
use riser_client::gateway::commands::REQUESTS;
use riser_client::{Commands, Gateway, Memory, Refused, Request};
use riser_core::Json;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

/// The server's clock in these tests when the session begins.
const NOW: u64 = 1_000_000;

async fn session(server: &Server) -> Peer {
    remembering(server).await.0
}

/// A session, and for how long the gateway said that it remembers, in milliseconds.
async fn remembering(server: &Server) -> (Peer, u64) {
    // Long heartbeats, for time is skipped here.
    let welcome = json!({"peer": "gateway", "address": "b/g", "epoch": 7, "now_ms": NOW, "heartbeat_ms": 600_000});
    let (mut peer, hello) = server.heard(welcome).await;
    let remembers_ms = hello["remembers_ms"].as_u64().expect("a number");
    let full = peer.recv().await;
    assert_eq!(full["t"], "state");
    peer.ok(&full).await;
    (peer, remembers_ms)
}

async fn serving(server: &Server, memory: Memory) -> (Gateway, Commands, Peer) {
    let (gateway, commands) = Gateway::serve(server.config(), memory);
    (gateway, commands, session(server).await)
}

fn command(cmd: &str) -> Value {
    json!({"t": "command", "cmd": cmd, "path": "hall/lock", "action": "unlock", "args": {"x": 1}, "ttl_ms": 60_000,
        "deadline_at_ms": NOW + 60_000, "by": "client:alice"})
}

/// The next word about a command: its name, status and code. A result is answered.
async fn word(peer: &mut Peer) -> (String, String, String) {
    let frame = peer.recv().await;
    assert_eq!(frame["t"], "result", "{frame}");
    if frame.get("n").is_some() {
        peer.ok(&frame).await;
    }
    let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    (text("cmd"), text("status"), text("code"))
}

async fn says(peer: &mut Peer, cmd: &str, status: &str, code: &str) {
    assert_eq!(word(peer).await, (cmd.to_owned(), status.to_owned(), code.to_owned()));
}

async fn next(commands: &mut Commands) -> Request {
    timeout(WAIT, commands.next()).await.expect("in time").expect("it lives")
}

/// Shows that no request waits, by one that comes after.
async fn nothing_else(peer: &mut Peer, commands: &mut Commands, cmd: &str) {
    peer.send(&command(cmd)).await;
    says(peer, cmd, "received", "").await;
    assert_eq!(next(commands).await.cmd(), cmd);
}

#[tokio::test]
async fn a_command_is_done_once_and_its_result_said_again() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "received", "").await;
    let request = next(&mut commands).await;
    assert_eq!((request.path().as_str(), request.action(), request.by()), ("hall/lock", "unlock", "client:alice"));
    assert_eq!(request.args().map(Json::as_str), Some(r#"{"x":1}"#));
    request.running(Some(Json::of(&50))).await.expect("it lives");
    says(&mut peer, "c1", "running", "").await;
    // While it is being done, the last word is said again.
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "running", "").await;
    request.fail("jammed", Some(Json::parse("1.50").expect("JSON"))).await.expect("it lives");
    let result = peer.recv().await;
    let expected =
        json!({"t": "result", "n": result["n"], "cmd": "c1", "status": "failed", "code": "jammed", "data": 1.50});
    assert_eq!(result, expected);
    peer.ok(&result).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "failed", "jammed").await;
    nothing_else(&mut peer, &mut commands, "c2").await;
}

#[tokio::test]
async fn a_result_that_was_not_answered_is_said_again_after_a_reconnect() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    for cmd in ["c1", "c2"] {
        peer.send(&command(cmd)).await;
        says(&mut peer, cmd, "received", "").await;
    }
    let (first, second) = (next(&mut commands).await, next(&mut commands).await);
    first.succeed(None).await.expect("it lives");
    // Taken off the socket, and never answered.
    assert_eq!(peer.recv().await["status"], "succeeded");
    drop(peer);
    // Said while there is no session.
    second.reject("no", None).await.expect("it lives");
    let mut peer = session(&server).await;
    let mut words = [word(&mut peer).await, word(&mut peer).await];
    words.sort();
    assert_eq!(
        words.map(|(cmd, status, _)| (cmd, status)),
        [("c1".into(), "succeeded".into()), ("c2".into(), "rejected".into())]
    );
    peer.send(&command("c2")).await;
    says(&mut peer, "c2", "rejected", "no").await;
}

#[tokio::test]
async fn a_result_is_said_again_after_a_refusal_for_now_and_given_up_after_one_for_good() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "received", "").await;
    next(&mut commands).await.succeed(None).await.expect("it lives");
    let result = peer.recv().await;
    peer.refuse(&result, "unavailable", Some(1)).await;
    let again = peer.recv().await;
    assert_eq!((&again["cmd"], &again["status"]), (&result["cmd"], &result["status"]));
    peer.refuse(&again, "not_found", None).await;
    drop(peer);
    let mut peer = session(&server).await;
    nothing_else(&mut peer, &mut commands, "c2").await;
}

/// Opens a memory once the gateway that had it has let go of it.
async fn reopened(file: &Path, span: Duration) -> Memory {
    loop {
        match Memory::open(file, span).await {
            Err(MemoryError::InUse { .. }) => tokio::task::yield_now().await,
            opened => return opened.expect("it opens"),
        }
    }
}

#[tokio::test]
async fn a_memory_promises_only_the_time_since_it_began() {
    let server = Server::new().await;
    let (gateway, _commands) = Gateway::serve(server.config(), Memory::default());
    let (peer, first_ms) = remembering(&server).await;
    assert!(first_ms < 600_000, "{first_ms}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(300)).await;
    tokio::time::resume();
    drop(peer);
    let (peer, later_ms) = remembering(&server).await;
    assert!((300_000..600_000).contains(&later_ms), "{later_ms}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(400)).await;
    tokio::time::resume();
    drop(peer);
    assert_eq!(remembering(&server).await.1, 600_000);
    drop(gateway);
}

#[tokio::test]
async fn what_was_done_before_a_restart_is_not_done_again() {
    let server = Server::new().await;
    let folder = std::env::temp_dir().join(format!("riser-desk-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    let file: PathBuf = folder.join("commands");
    let span = Duration::from_secs(600);
    let (gateway, mut commands, mut peer) = serving(&server, Memory::open(&file, span).await.expect("it opens")).await;
    for cmd in ["done", "begun"] {
        peer.send(&command(cmd)).await;
        says(&mut peer, cmd, "received", "").await;
    }
    next(&mut commands).await.succeed(Some(Json::of("open"))).await.expect("it lives");
    says(&mut peer, "done", "succeeded", "").await;
    let begun = next(&mut commands).await;
    // The process dies in the middle of the second one.
    drop((gateway, commands, begun, peer));
    let memory = timeout(WAIT, reopened(&file, span)).await.expect("in time");
    let (_gateway, mut commands, mut peer) = serving(&server, memory).await;
    for (cmd, status) in [("done", "succeeded"), ("begun", "received")] {
        peer.send(&command(cmd)).await;
        says(&mut peer, cmd, status, "").await;
    }
    nothing_else(&mut peer, &mut commands, "new").await;
    std::fs::remove_dir_all(&folder).expect("the folder");
}

#[tokio::test]
async fn what_comes_after_its_time_is_not_started() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    // It stood in a socket past its deadline.
    let mut stalled = command("stalled");
    stalled["deadline_at_ms"] = json!(NOW - 1);
    // Nothing of its time is left.
    let mut spent = command("spent");
    spent["ttl_ms"] = json!(0);
    for (cmd, frame) in [("stalled", stalled), ("spent", spent)] {
        peer.send(&frame).await;
        says(&mut peer, cmd, "rejected", "expired").await;
    }
    // The server's clock turns out to be later than its welcome said.
    peer.send(&json!({"t": "pong", "now_ms": NOW + 120_000, "epoch": 7, "held": 0})).await;
    peer.send(&command("late")).await;
    says(&mut peer, "late", "rejected", "expired").await;
    let mut good = command("good");
    good["deadline_at_ms"] = json!(NOW + 180_000);
    peer.send(&good).await;
    says(&mut peer, "good", "received", "").await;
    assert_eq!(next(&mut commands).await.cmd(), "good");
}

#[tokio::test]
async fn what_waited_too_long_or_was_cancelled_is_answered_and_not_given_out() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    let mut short = command("short");
    short["deadline_at_ms"] = json!(NOW + 30_000);
    for (cmd, frame) in [("short", short), ("unwanted", command("unwanted")), ("good", command("good"))] {
        peer.send(&frame).await;
        says(&mut peer, cmd, "received", "").await;
    }
    peer.send(&json!({"t": "cancel", "cmd": "unwanted"})).await;
    peer.send(&json!({"t": "cancel", "cmd": "never-heard-of"})).await;
    // While the application does something else, time passes.
    peer.send(&json!({"t": "pong", "now_ms": NOW + 31_000})).await;
    // Read behind all that.
    peer.send(&command("last")).await;
    says(&mut peer, "last", "received", "").await;
    assert_eq!(next(&mut commands).await.cmd(), "good");
    says(&mut peer, "short", "rejected", "expired").await;
    says(&mut peer, "unwanted", "cancelled", "").await;
    peer.send(&command("short")).await;
    says(&mut peer, "short", "rejected", "expired").await;
}

#[tokio::test]
async fn a_cancel_reaches_what_is_being_done() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "received", "").await;
    let mut request = next(&mut commands).await;
    assert!(!request.is_cancelled());
    peer.send(&json!({"t": "cancel", "cmd": "c1"})).await;
    timeout(WAIT, request.cancelled()).await.expect("in time");
    request.stop().await.expect("it lives");
    says(&mut peer, "c1", "cancelled", "").await;
}

#[tokio::test]
async fn what_does_not_fit_is_turned_away() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    for i in 0..REQUESTS {
        peer.send(&command(&format!("c{i}"))).await;
        says(&mut peer, &format!("c{i}"), "received", "").await;
    }
    peer.send(&command("more")).await;
    says(&mut peer, "more", "rejected", "busy").await;
    let request = next(&mut commands).await;
    let fat = Some(Json::of(&"x".repeat(20_000)));
    assert!(matches!(request.succeed(fat).await, Err(Refused::TooMany(_))));
    peer.send(&command("later")).await;
    says(&mut peer, "later", "received", "").await;
}

#[tokio::test]
async fn a_gateway_without_an_application_says_so_until_it_is_heard() {
    let server = Server::new().await;
    let welcome = || json!({"peer": "gateway", "address": "b/g", "epoch": 7});
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), server.session(welcome()));
    let _gateway = gateway.expect("a session");
    let full = peer.recv().await;
    peer.ok(&full).await;
    peer.send(&command("c1")).await;
    // Taken off the socket, and never answered.
    assert_eq!(peer.recv().await["code"], "unsupported");
    drop(peer);
    let mut peer = server.session(welcome()).await;
    let full = peer.recv().await;
    peer.ok(&full).await;
    says(&mut peer, "c1", "rejected", "unsupported").await;
}

#[tokio::test]
async fn what_was_turned_away_is_said_until_it_is_heard_and_not_begun_meanwhile() {
    let server = Server::new().await;
    let (_gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    for i in 0..REQUESTS {
        peer.send(&command(&format!("c{i}"))).await;
        says(&mut peer, &format!("c{i}"), "received", "").await;
    }
    peer.send(&command("more")).await;
    let turned = peer.recv().await;
    assert_eq!((&turned["status"], &turned["code"]), (&json!("rejected"), &json!("busy")));
    assert!(turned["n"].is_u64(), "{turned}");
    // Now there is room, and no answer to that word.
    assert_eq!(next(&mut commands).await.cmd(), "c0");
    peer.send(&command("more")).await;
    drop(peer);
    let mut peer = session(&server).await;
    says(&mut peer, "more", "rejected", "busy").await;
    peer.send(&command("other")).await;
    says(&mut peer, "other", "received", "").await;
    for i in 1..REQUESTS {
        assert_eq!(next(&mut commands).await.cmd(), format!("c{i}"));
    }
    assert_eq!(next(&mut commands).await.cmd(), "other");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_command_that_cannot_be_written_down_is_turned_away_as_busy() {
    let server = Server::new().await;
    let folder = std::env::temp_dir().join(format!("riser-desk-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    let memory = Memory::open(folder.join("commands"), Duration::from_secs(600)).await.expect("it opens");
    let (_gateway, mut commands, mut peer) = serving(&server, memory).await;
    // What is written next goes to a device that is always full.
    std::os::unix::fs::symlink("/dev/full", folder.join("commands.riser-new")).expect("a link");
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "rejected", "busy").await;
    nothing_else(&mut peer, &mut commands, "c2").await;
    std::fs::remove_dir_all(&folder).expect("the folder");
}

#[tokio::test]
async fn a_connection_that_its_owner_cuts_comes_back_with_all_that_it_knows() {
    let server = Server::new().await;
    let (gateway, mut commands, mut peer) = serving(&server, Memory::default()).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "received", "").await;
    gateway.reconnect(Duration::ZERO).await;
    let mut peer = session(&server).await;
    peer.send(&command("c1")).await;
    says(&mut peer, "c1", "received", "").await;
    assert_eq!(next(&mut commands).await.cmd(), "c1");
    nothing_else(&mut peer, &mut commands, "c2").await;
}
