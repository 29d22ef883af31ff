//! What a restore does not take, what it does not write over, and that it goes on where it was cut off.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::time::timeout;

use super::{Ended, PATIENCE, Site, events, held, notice, of};

/// Events of a restore that takes longer than it takes to notice that it began.
const MANY: usize = 3_000;

/// A name, what is done to a backup, and what is said of it then.
type Broken = (&'static str, fn(&Path), [&'static str; 2]);

/// A cluster with a few events and a held command, and its backup.
async fn saved(count: usize) -> (Site, PathBuf) {
    let mut site = Site::prepare(1).await;
    site.launch().await;
    let api = site.api(0, &site.edges.key);
    for first in (0..count).step_by(50) {
        let told = (first..count.min(first + 50)).map(|number| {
            let api = api.clone();
            async move { api.event(&of("b1/g1"), &notice(format!("e{number}"))).await.expect("stored") }
        });
        futures_util::future::join_all(told).await;
    }
    api.command(&held("b1/g1", "k")).await.expect("held");
    let dir = site.back_up().await;
    (site, dir)
}

/// A copy of a backup, to be broken.
fn copy(site: &Site, from: &Path, name: &str) -> PathBuf {
    let to = site.edges.path(name);
    fs::create_dir(&to).expect("a folder");
    for file in fs::read_dir(from).expect("the folder") {
        let path = file.expect("a file").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
    to
}

/// The name of a backup.
fn id(dir: &Path) -> String {
    let manifest = fs::read_to_string(dir.join("manifest.json")).expect("a file");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["id"].as_str().expect("an id").to_owned()
}

fn check(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(parts.iter().all(|part| ended.err.contains(part)), "{parts:?} {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_not_whole_is_refused_before_anything_is_written() {
    let (old, dir) = saved(20).await;
    let new = Site::prepare(1).await;
    new.forget_tenants();
    let nothing = new.holds().await;
    let breaks: [Broken; 6] = [
        (
            "short",
            |dir| {
                let events = fs::read(dir.join("events-acme.jsonl")).expect("a file");
                fs::write(dir.join("events-acme.jsonl"), &events[..events.len() - 7]).expect("a file");
            },
            ["events-acme.jsonl is damaged: line 20: it breaks off", "take another backup"],
        ),
        (
            "flipped",
            |dir| {
                let events = fs::read_to_string(dir.join("events-acme.jsonl")).expect("a file");
                fs::write(dir.join("events-acme.jsonl"), events.replacen("e7", "e8", 1)).expect("a file");
            },
            ["events-acme.jsonl is damaged: its checksum is another", "nothing was restored"],
        ),
        (
            "cut",
            |dir| {
                let file = fs::read_to_string(dir.join("gateways-acme.jsonl")).expect("a file");
                fs::write(dir.join("gateways-acme.jsonl"), file.repeat(2)).expect("a file");
            },
            ["gateways-acme.jsonl is damaged: it has ", "when it was saved"],
        ),
        (
            "secret",
            |dir| fs::write(dir.join("file-1"), "t".repeat(43)).expect("a file"),
            ["file-1 is damaged", "checksum"],
        ),
        (
            "newer",
            |dir| {
                let text = fs::read_to_string(dir.join("manifest.json")).expect("a file");
                let text = text.replace("\"format\": 1", "\"format\": 2, \"more\": []");
                fs::write(dir.join("manifest.json"), text).expect("a file");
            },
            ["manifest.json has format 2, and this riser reads 1", "or newer"],
        ),
        (
            "unfinished",
            |dir| fs::remove_file(dir.join("manifest.json")).expect("a file"),
            ["is no whole backup", "manifest.json"],
        ),
    ];
    for (name, spoil, parts) in breaks {
        let broken = copy(&old, &dir, name);
        spoil(&broken);
        check(&new.run(&["restore"], &broken).await, 69, &parts);
        assert_eq!(new.holds().await, nothing, "{name}");
        assert!(!new.edges.path("tenants.toml").exists(), "{name}");
    }
    check(&new.run(&["restore"], &new.edges.path("nowhere")).await, 69, &["cannot read", "nowhere"]);
    // A backup is not written over another one.
    check(&old.run(&["backup"], &dir).await, 3, &["has files in it", "a new folder"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_not_empty_are_refused_by_name() {
    let (old, dir) = saved(20).await;
    // Where it comes from is not empty either, and its edges run.
    let before = old.holds().await;
    check(&old.run(&["restore"], &dir).await, 3, &["NATS has the stream riser-ev-acme", "stop all edges"]);
    assert_eq!(old.holds().await, before);

    let new = Site::prepare(1).await;
    check(&new.run(&["restore"], &dir).await, 3, &["tenants.toml is there, and is not the saved one"]);
    new.forget_tenants();
    let mut nats = new.nats.raw(0).await.expect("NATS");
    let bucket = r#"{"name":"KV_riser-held","subjects":["$KV.riser-held.>"]}"#;
    nats.ask("$JS.API.STREAM.CREATE.KV_riser-held", bucket).await.expect("an answer");
    check(&new.run(&["restore", "--resume"], &dir).await, 3, &["NATS has the stream KV_riser-held", "stop all edges"]);
    nats.ask("$JS.API.STREAM.DELETE.KV_riser-held", "").await.expect("an answer");
    let mut redis = new.redis.raw(0).await.expect("Redis");
    redis.call(&["SET", "another", "1"]).await.expect("an answer");
    redis.call(&["HSET", "riser:{acme/b1}:g", "g1", "x"]).await.expect("an answer");
    let before = new.holds().await;
    check(&new.run(&["restore", "--resume"], &dir).await, 3, &["Redis has riser:{acme/b1}:g", "FLUSHDB"]);
    assert_eq!(new.holds().await, before);
    redis.call(&["DEL", "riser:{acme/b1}:g"]).await.expect("an answer");
    redis.call(&["SET", "riser:{_restore}:m", "other"]).await.expect("an answer");
    check(&new.run(&["restore", "--resume"], &dir).await, 3, &["the restore of another backup was begun here"]);
    redis.call(&["SET", "riser:{_restore}:m", &id(&dir)]).await.expect("an answer");
    redis.call(&["HSET", "riser:{_leases}:l", "edge-7:1", "99999999999999 0 0"]).await.expect("an answer");
    check(&new.run(&["restore", "--resume"], &dir).await, 3, &["the edge edge-7 runs on these servers"]);
    redis.call(&["DEL", "riser:{_restore}:m", "riser:{_leases}:l"]).await.expect("an answer");
    let ended = new.run(&["restore"], &dir).await;
    assert_eq!(ended.code, Some(0), "what is not Riser's is no hindrance: {ended:?}");
    let again = new.run(&["restore", "--resume"], &dir).await;
    check(&again, 3, &["NATS has the stream KV_riser-held", "stop all edges"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_killed_goes_on_when_it_is_told_to() {
    let (old, dir) = saved(MANY).await;
    let mut new = Site::prepare(1).await;
    new.forget_tenants();
    let mut redis = new.redis.raw(0).await.expect("Redis");
    let mut nats = new.nats.raw(0).await.expect("NATS");
    let mut restore = new.command(&["restore"], Some(&dir)).spawn().expect("it starts");
    let some = async {
        loop {
            let info = nats.ask("$JS.API.STREAM.INFO.riser-ev-acme", "").await.expect("an answer");
            let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
            if info["state"]["messages"].as_u64().is_some_and(|count| count > 0) {
                return;
            }
        }
    };
    timeout(PATIENCE, some).await.expect("a first event in time");
    restore.kill().expect("killed");
    restore.wait().expect("it ended");
    let mark = redis.call(&["EXISTS", "riser:{_restore}:m"]).await.expect("an answer");
    assert_eq!(format!("{mark:?}"), "Number(1)", "it was killed too late");
    check(&new.run(&["restore"], &dir).await, 3, &["was begun before and not ended", "--resume"]);
    let ended = new.run(&["restore", "--resume"], &dir).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    new.launch().await;
    let key = old.edges.key.clone();
    assert_eq!(events(&new.api(0, &key), None).await, events(&old.api(0, &key), None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_somebody_else_stored_meanwhile_ends_a_restore() {
    let (_old, dir) = saved(20).await;
    let new = Site::prepare(1).await;
    new.forget_tenants();
    // A restore that was cut off after it had made the stream, in which an edge stored then.
    let id = id(&dir);
    let mut nats = new.nats.raw(0).await.expect("NATS");
    let stream = format!(
        r#"{{"name":"riser-ev-acme","subjects":["riser.v1.log.acme.00000000000000ab"],"storage":"file","allow_direct":true,"metadata":{{"riser-restore":"{id}"}}}}"#
    );
    nats.ask("$JS.API.STREAM.CREATE.riser-ev-acme", &stream).await.expect("an answer");
    nats.ask("riser.v1.log.acme.00000000000000ab", "{}").await.expect("an answer");
    let ended = new.run(&["restore", "--resume"], &dir).await;
    check(&ended, 3, &["acme: restoring events: somebody else stores in the stream"]);
}
