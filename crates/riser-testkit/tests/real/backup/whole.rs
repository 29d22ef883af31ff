//! A backup of a cluster that runs, restored onto new servers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use riser_client::Link;
use riser_core::Epoch;
use riser_testkit::real::edges::TENANT;
use tokio::time::timeout;

use super::{PATIENCE, Site, events, held, notice, of};

/// Events of one tenant: more than a page of the log, and more than a batch of the restore.
const EVENTS: usize = 600;
/// A greater epoch than any clock gives.
const AHEAD: u64 = 9_000_000_000_000_000;

/// Reads until a frame of this type, which is given.
async fn frame(link: &mut Link, kind: &str) -> String {
    let begin = format!(r#"{{"t":"{kind}""#);
    let reading = async {
        loop {
            let frame = link.next().await.expect("a frame");
            if frame.starts_with(&begin) {
                return frame;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("a frame in time")
}

async fn say(link: &mut Link, text: &str) {
    link.send(text).expect("sent");
    let answer = frame(link, "ok").await;
    assert!(answer.contains(r#""n":1"#), "{answer}");
}

/// Every snapshot of a tenant.
async fn snapshots(site: &Site, edge: usize, key: &str) -> Vec<String> {
    let (mut link, _) = site.edges.link(edge, key).await.expect("a session");
    link.send(r#"{"t":"subscribe","n":1,"to":"*/*","lanes":["state","presence"]}"#).expect("sent");
    let mut seen = vec![];
    loop {
        let next = timeout(PATIENCE, link.next()).await.expect("in time").expect("a frame");
        if next.starts_with(r#"{"t":"snapshot""#) {
            seen.push(next);
        } else if next.starts_with(r#"{"t":"synced""#) {
            seen.sort();
            return seen;
        }
    }
}

/// A gateway's session with a full state, and its epoch.
async fn gateway(site: &Site, key: &str, address: &str, value: &str) -> (Link, Epoch) {
    let token = site.api(1, key).gateway_token(&of(address), None).await.expect("a token").token;
    let (mut link, welcome) = site.edges.link(0, token.expose()).await.expect("a session");
    say(&mut link, &format!(r#"{{"t":"state","n":1,"full":true,"set":{{"hall/lock":{value}}}}}"#)).await;
    (link, welcome.epoch.expect("an epoch"))
}

/// Writes the files of two tenants; the key of the second one.
fn two_tenants(site: &Site) -> String {
    let (key, hash) = riser_edge::auth::new_api_key(None);
    let hash = riser_core::hex(hash.bytes());
    let file = std::fs::read_to_string(site.edges.path("tenants.toml")).expect("the tenants file");
    let second = format!(
        "[tenants.zeta]\nsigning_keys = [{{ kid = \"z\", secret_file = \"keys/zeta.secret\" }}]\n\
         [[tenants.zeta.api_keys]]\nname = \"all\"\nsha256 = \"{hash}\"\n\
         scope = [\"*/*:read,command,event,listen,speak\"]\n"
    );
    std::fs::create_dir(site.edges.path("keys")).expect("a folder");
    std::fs::write(site.edges.path("keys/zeta.secret"), "z".repeat(43)).expect("a file");
    site.edges.write("tenants.toml", &format!("{file}{second}")).expect("a file");
    key
}

fn check_modes(dir: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(dir), 0o700);
    for file in std::fs::read_dir(dir).expect("the folder") {
        let path = file.expect("a file").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_back_on_new_servers_with_all_that_must_not_be_lost() {
    let mut old = Site::prepare(3).await;
    let (acme, zeta) = (old.edges.key.clone(), two_tenants(&old));
    old.launch().await;
    let (mut one, epoch) = gateway(&old, &acme, "b1/g1", "\"locked\"").await;
    let devices = r#"{"hall/lock":{"kind":"lock","name":"Front door"}}"#;
    say(&mut one, &format!(r#"{{"t":"describe","n":1,"devices":{devices}}}"#)).await;
    let (two, _) = gateway(&old, &acme, "b2/g1", "[1,2]").await;
    drop(two);
    let (mut other, _) = gateway(&old, &zeta, "b1/g1", "\"of zeta\"").await;
    let api = old.api(0, &acme);
    let mut cursor = None;
    for number in 0..EVENTS {
        let stored = api.event(&of("b1/g1"), &notice(format!("e{number}"))).await.expect("stored");
        cursor = (number == EVENTS / 2).then_some(stored).or(cursor);
    }
    old.api(1, &zeta).event(&of("b1/_"), &notice("z".into())).await.expect("stored");
    // One is held for a gateway that was there, one for a gateway that never was, and one was done.
    let offline = held("b9/never", "k2");
    api.command(&offline).await.expect("held");
    let done = riser_client::Order { hold: false, ..held("b1/g1", "k3") };
    let done_cmd = api.command(&done).await.expect("recorded");
    let told = frame(&mut one, "command").await;
    assert!(told.contains(&done_cmd), "{told}");
    say(&mut one, &format!(r#"{{"t":"result","n":1,"cmd":"{done_cmd}","status":"succeeded"}}"#)).await;
    say(&mut other, r#"{"t":"state","n":1,"set":{"hall/light":true}}"#).await;
    one.close(1000, "").await;
    let waiting = held("b1/g1", "k1");
    let cmd = loop {
        // Until the gateway is offline, the command is sent to nobody.
        let cmd = api.command(&waiting).await.expect("held");
        let recorded = api.recorded(&cmd).await.expect("a record");
        if recorded.outcomes.iter().any(|step| step.status.as_str() == "held") {
            break cmd;
        }
    };
    // One whose epoch is ahead of the clock, which may have been wrong once.
    let mut redis = old.redis.raw(0).await.expect("Redis");
    let ahead = format!("{AHEAD} 3 45 40 closed - 0 0 0 0 0 0 0");
    redis.call(&["HSET", "riser:{acme/b3}:g", "ahead", &ahead]).await.expect("an answer");
    redis.call(&["SADD", "riser:{acme}:b", "b3"]).await.expect("an answer");
    let before = (events(&api, None).await, snapshots(&old, 1, &acme).await, snapshots(&old, 1, &zeta).await);
    assert_eq!(before.0.0.len(), EVENTS);

    // The cluster runs, and zeta's gateway is online.
    let dir = old.back_up().await;
    check_modes(&dir);
    let mut new = Site::prepare(3).await;
    new.forget_tenants();
    let ended = new.run(&["restore"], &dir).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "2 tenant(s), 601 event(s), 5 gateway(s) with 4 value(s), 3 command(s)";
    assert!(ended.out.contains(said), "{ended:?}");
    for file in ["tenants.toml", "acme.secret", "keys/zeta.secret"] {
        let read = |site: &Site| std::fs::read(site.edges.path(file)).expect("a file");
        assert!(read(&old) == read(&new), "{file}");
    }
    // What is held is kept twice, as it was: Redis may lose it before it is sent.
    let mut nats = new.nats.raw(0).await.expect("NATS");
    let info = nats.ask("$JS.API.STREAM.INFO.KV_riser-held", "").await.expect("an answer");
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["state"]["messages"], 2, "{info}");
    drop((other, old));
    new.launch().await;

    let (api, of_zeta) = (new.api(1, &acme), new.api(0, &zeta));
    assert_eq!(events(&api, None).await, before.0, "events, their order and their times");
    let cursor = cursor.expect("a cursor");
    assert_eq!(events(&api, Some(&cursor)).await, (before.0.0.clone(), true), "an old cursor is told of a gap");
    assert_eq!(events(&of_zeta, None).await.0.len(), 1);
    assert_eq!(snapshots(&new, 0, &acme).await, before.1, "what was offline is as it was");
    let of_zeta_now = snapshots(&new, 0, &zeta).await;
    assert!(of_zeta_now[0].contains(r#""online":false"#) && of_zeta_now[0].contains(r#""of zeta""#), "{of_zeta_now:?}");
    assert_eq!(of_zeta_now.len(), before.2.len());

    let again = api.recorded(&done_cmd).await.expect("a record");
    assert_eq!(again.decided().map(|step| step.status.as_str()), Some("succeeded"));
    assert_eq!(api.command(&done).await.expect("known"), done_cmd, "the same key is the same command");
    let token = api.gateway_token(&of("b1/g1"), None).await.expect("a token").token;
    let (mut one, welcome) = new.edges.link(1, token.expose()).await.expect("a session");
    assert!(welcome.epoch.expect("an epoch") > epoch && welcome.have.is_none(), "{welcome:?}");
    let told = frame(&mut one, "command").await;
    assert!(told.contains(&cmd), "{told}");
    say(&mut one, &format!(r#"{{"t":"result","n":1,"cmd":"{cmd}","status":"succeeded"}}"#)).await;
    let recorded = api.recorded(&cmd).await.expect("a record");
    assert_eq!(recorded.decided().map(|step| step.status.as_str()), Some("succeeded"));
    let token = api.gateway_token(&of("b3/ahead"), None).await.expect("a token").token;
    let (_ahead, welcome) = new.edges.link(0, token.expose()).await.expect("a session");
    assert_eq!(welcome.epoch, Some(Epoch(AHEAD + 1)));
    let token = api.gateway_token(&of("b9/never"), None).await.expect("a token").token;
    let (mut never, _) = new.edges.link(0, token.expose()).await.expect("a session");
    frame(&mut never, "command").await;

    // New events follow the old ones.
    api.event(&of("b1/g1"), &notice("after".into())).await.expect("stored");
    let (all, gap) = events(&api, None).await;
    assert!(!gap && all.len() == EVENTS + 1 && all[EVENTS].1 == "after", "{TENANT} has {} events", all.len());

    // The restored streams have all their copies, until a server is gone.
    let said = new.doctor().await;
    assert!(said.contains("✓ events: 2 stream(s) with 3 copies each, all of them whole"), "{said}");
    new.nats.kill(2);
    let missed = async {
        loop {
            let said = new.doctor().await;
            if said.contains("too few whole copies") {
                return said;
            }
        }
    };
    let said = timeout(PATIENCE, missed).await.expect("a copy that is missed");
    assert!(said.contains("✗ events: ") && said.contains("(not on n2)"), "{said}");
}
