//! `riser watch`, `sim` and `token`, and how all of them end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use riser_client::{Config, Gateway};
use riser_core::frame::Credential;
use serde_json::Value;

use super::{Dev, Ended, Riser, nowhere, riser};

const SEND: &[&str] = &["send", "b1/g", "hall/lock", "unlock"];
const EVENTS: &[&str] = &["events", "*/*"];
const NOTIFY: &[&str] = &["notify", "b1/_", "notice"];

fn ends(args: &[&str]) -> Ended {
    Riser::start(riser(args)).ended()
}

#[test]
fn bad_usage_ends_with_64_and_help_with_0() {
    for args in [
        &[][..],
        &["fly"],
        &["dev", "--edges", "0"],
        &["dev", "--edges", "17"],
        &["dev", "--heartbeat", "1ms"],
        &["dev", "--listen", "here"],
        &["dev", "--log-filter", "riser=loud"],
        &["dev", "--listen", "127.0.0.1:65534", "--edges", "2"],
        &["watch", "b12/**", "--key", "k"],
        &["watch", "*/*"],
        &["watch", "*/*", "--key", "two words"],
        &["watch", "*/*", "--key", "k", "--url", "https://example.org"],
        &["watch", "*/*", "--key-file", "/nowhere/at/all"],
        &["send", "b12/_", "hall/lock", "unlock", "--key", "k"],
        &["send", "b12/g", "hall//lock", "unlock", "--key", "k"],
        &["send", "b12/g", "hall/lock", "", "--key", "k"],
        &["send", "b12/g", "hall/lock", "unlock", "{", "--key", "k"],
        &["send", "b12/g", "hall/lock", "unlock", "--deadline", "0s", "--key", "k"],
        &["send", "b12/g", "hall/lock", "unlock", "--deadline", "365d", "--key", "k"],
        &["send", "b12/g", "hall/lock", "unlock", "--command-key", "rk_a-credential", "--key", "k"],
        &["send", "b12/g", "hall/lock", "unlock"],
        &["events", "b12/**", "--key", "k"],
        &["events", "*/*", "--since", "", "--key", "k"],
        &["notify", "b12/*", "notice", "--key", "k"],
        &["notify", "b12/_", "notice", "text", "--key", "k"],
        &["token", "gateway", "b12/*", "--key", "k"],
        &["token", "client", "alice", "--key", "k", "--grant", "b12/*:fly"],
        &["token", "client", "alice", "--key", "k"],
        &["completions", "abacus"],
    ] {
        let ended = ends(args);
        assert_eq!(ended.status.code(), Some(64), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "dev"],
        &["watch", "--help"],
        &["send", "--help"],
        &["events", "--help"],
        &["notify", "--help"],
        &["version"],
        &["completions", "bash"],
    ] {
        let ended = ends(args);
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_credential_in_the_wrong_place_is_not_printed() {
    for args in [
        &["--command-key", "rk_very-secret", "--key", "k"][..],
        &["--command-key", "eyJ2ZXJ5.c2VjcmV0.very-secret", "--key", "k"],
        &["--key", "very-secret but bad"],
        &["--key-file", "rk_very-secret"],
        &["--url", "http://user:very-secret@127.0.0.1:1", "--key", "k"],
        &["--url", "http://127.0.0.1:1/?token=very-secret", "--key", "k"],
    ] {
        let ended = ends(&[SEND, args].concat());
        assert_eq!(ended.status.code(), Some(64), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("very-secret"), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn what_people_get_wrong_is_answered_with_what_is_right() {
    let rows: [(&[&str], &str, &str); 4] = [
        (&["send", "b1/g", "hall/lock", "unlock", "--deadline", "-1s"], "k", "500ms, 20s"),
        (&["notify", "b1/_", "notice", "text"], "k", "double quotes"),
        (&["send", "b1/g", "hall/lock", "unlock", "level=40"], "k", "double quotes"),
        (SEND, "", "empty"),
    ];
    for (args, key, hint) in rows {
        let mut command = riser(args);
        command.env("RISER_KEY", key);
        let ended = Riser::start(command).ended();
        assert_eq!(ended.status.code(), Some(64), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn a_send_that_is_interrupted_before_it_is_sent_ends_with_130() {
    // It takes the connection, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let sending = Riser::start(riser(&[SEND, &["--url", &url, "--key", "k"]].concat()));
    let _connection = silent.accept().expect("a connection");
    sending.signal("INT");
    assert_eq!(sending.ended().status.code(), Some(130));
}

#[test]
fn what_cannot_be_reached_ends_with_69_and_one_line() {
    let url = nowhere();
    for args in [&["watch", "*/*"][..], &["sim"], &["token", "gateway", "b1/g"], SEND, EVENTS, NOTIFY] {
        let ended = ends(&[args, &["--url", &url, "--api-key", "rk_secret"]].concat());
        assert_eq!(ended.status.code(), Some(69), "{args:?}: {}", ended.stderr);
        let one = ended.stderr.starts_with("riser: cannot reach 127.0.0.1:") && ended.stderr.lines().count() == 1;
        assert!(one && !ended.stderr.contains("rk_secret"), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn a_wrong_key_ends_with_77_and_is_not_repeated() {
    let dev = Dev::start(&["--flats", "0"]);
    for args in [&["watch", "*/*"][..], &["sim"], &["token", "gateway", "b1/g"], SEND, EVENTS, NOTIFY] {
        let mut command = dev.tool(args);
        command.env("RISER_KEY", "rk_not-the-key-of-this-cluster");
        let ended = Riser::start(command).ended();
        assert_eq!(ended.status.code(), Some(77), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("rk_not"), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn the_building_of_dev_is_seen_in_frames() {
    let dev = Dev::start(&["--edges", "2", "--flats", "3"]);
    let watch = Riser::start(dev.tool(&["watch", "*/*", "--output", "json"]));
    let (mut of, mut synced) = (BTreeSet::new(), false);
    while !synced || of.len() < 3 {
        let frame: Value = serde_json::from_str(&watch.line().expect("a frame")).expect("JSON");
        match frame["t"].as_str().expect("a type") {
            "snapshot" if frame["state"].get("meter").is_some() && frame["devices"].get("meter").is_some() => {
                of.insert(frame["of"].as_str().expect("an address").to_owned());
            }
            "synced" => synced = true,
            _ => {}
        }
    }
    assert_eq!(of.iter().map(String::as_str).collect::<Vec<_>>(), ["b1/f0101", "b1/f0102", "b1/f0103"]);
    // Life goes on: a meter reports every ten seconds.
    watch.until(|line| line.contains(r#""t":"state""#) && line.contains("kwh"));
    watch.signal("INT");
    let ended = watch.ended();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_building_can_be_simulated_against_any_cluster() {
    let dev = Dev::start(&["--flats", "0"]);
    let sim = Riser::start(dev.tool(&["sim", "--flats", "2", "--building", "north", "--seed", "7"]));
    let watch = Riser::start(dev.tool(&["watch", "north/*"]));
    watch.until(|line| line.starts_with("north/f0101 hall/lock \""));
    watch.until(|line| line.starts_with("north/f0102 hall/lock \""));
    sim.signal("INT");
    assert_eq!(sim.ended().status.code(), Some(0));
    watch.until(|line| line.ends_with("offline (closed)"));
}

#[tokio::test]
async fn a_closed_pipe_ends_a_watch_quietly() {
    let dev = Dev::start(&["--flats", "0"]);
    let token = Riser::start(dev.tool(&["token", "gateway", "b9/g", "--ttl", "1h"])).line().expect("a token");
    let config = Config::new(dev.url("http", 0).parse().expect("an endpoint"), Credential::new(token));
    let gateway = Gateway::connect(config).await.expect("a session");
    let mut watch = Riser::start(dev.tool(&["watch", "b9/g", "--output", "json"]));
    watch.until(|line| line.contains("synced"));
    // From here on nobody reads: the thread that does ends with its receiver, and closes the pipe.
    drop(std::mem::replace(&mut watch.lines, std::sync::mpsc::sync_channel(1).1));
    let mut i = 0;
    while watch.child.try_wait().expect("it was started").is_none() {
        i += 1;
        let value = riser_core::Json::parse(&i.to_string()).expect("JSON");
        let stored = gateway.set(BTreeMap::from([("p".parse().expect("a path"), Some(value))])).await;
        stored.expect("stored");
        assert!(i < 100_000, "it goes on without a reader");
    }
    let ended = watch.ended();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_watch_ends_after_its_time() {
    let dev = Dev::start(&["--flats", "0"]);
    let ended = Riser::start(dev.tool(&["watch", "*/*", "--for", "1ms"])).ended();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}
