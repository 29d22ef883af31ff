//! What is in `deploy/`: it can be built and prepared, servers take it, and the rights that it gives an edge are enough.

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use riser_bus::nats::{NatsAuth, NatsConfig};
use riser_registry::redis::{Password, RedisConfig};
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::folder::Folder;
use riser_testkit::real::nats::{NatsOptions, NatsServers, NatsWire};
use riser_testkit::real::redis::{RedisOptions, RedisServers};

use serde_json::json;

use super::{control, program};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    output
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder with everything that `compose.yaml` needs.
fn prepared() -> Folder {
    let folder = Folder::new("deploy").expect("a folder");
    run(Command::new("cp").arg("-r").arg(DEPLOY).arg(folder.path()));
    let script = folder.path().join("deploy/compose/prepare.sh");
    let said = run(Command::new("sh").arg(&script).env("RISER", program("RISER_BIN"))).stdout;
    assert!(String::from_utf8_lossy(&said).contains("rk_"), "the API key is shown");
    let again = Command::new("sh").arg(&script).output().expect("it starts");
    assert_eq!(again.status.code(), Some(1), "what is there is not overwritten");
    folder
}

/// The variables of a file of them.
fn variables(file: &str) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    file.lines().map(|line| pair(line).expect("a variable")).collect()
}

#[test]
fn the_binary_that_is_shipped_is_built_and_runs() {
    let folder = Folder::new("build").expect("a folder");
    run(Command::new("sh").arg(Path::new(DEPLOY).join("build.sh")).arg(folder.path()));
    let said = run(Command::new(folder.path().join("riser")).arg("--version")).stdout;
    assert!(String::from_utf8_lossy(&said).starts_with("riser "), "{said:?}");
    let said = run(Command::new(folder.path().join("riser-control")).arg("--version")).stdout;
    assert!(String::from_utf8_lossy(&said).starts_with("riser-control "), "{said:?}");
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder.path()));
    let usage = Command::new("sh").arg(Path::new(DEPLOY).join("build.sh")).output().expect("it starts");
    assert_eq!(usage.status.code(), Some(64));
}

#[test]
fn nats_and_an_edge_take_what_compose_gives_them() {
    let folder = prepared();
    let at = folder.path().join("deploy");
    let secrets = at.join("compose/secrets");
    let variables = variables(&text(&secrets.join("nats.env")));
    let nats = program("RISER_NATS_SERVER");
    run(Command::new(nats).arg("-t").arg("-c").arg(at.join("nats/nats.conf")).env("NATS_NAME", "n").envs(variables));
    // As the container of an edge sees it.
    let etc = folder.path().join("etc");
    run(Command::new("mkdir").arg(&etc));
    run(Command::new("cp").arg(at.join("compose/edge.toml")).arg(&etc));
    run(Command::new("cp").arg("-r").arg(secrets.join("edge")).arg(etc.join("secrets")));
    let check = ["edge", "check-config", "--config"];
    run(Command::new(program("RISER_BIN")).env_clear().args(check).arg(etc.join("edge.toml")));
}

/// The part of the configuration of NATS that says what an edge and the control plane may do, with these passwords.
pub(super) fn rights(edge: &str, control: &str) -> String {
    let conf = text(&Path::new(DEPLOY).join("nats/nats.conf"));
    let rights = conf.split_once("# What an edge does").expect("the rights").1;
    let rights = rights.replace("$RISER_NATS_PASSWORD", edge).replace("$RISER_CONTROL_NATS_PASSWORD", control);
    format!("# {rights}")
}

/// Servers with the rights that compose gives an edge, and what an edge's configuration says of them.
async fn rightful(at: &Path) -> (NatsServers, RedisServers, EdgesOptions) {
    let secrets = at.join("compose/secrets");
    let (of_nats, of_redis) = (text(&secrets.join("edge/nats.password")), text(&secrets.join("edge/redis.password")));
    let of_control = text(&secrets.join("control/nats.password"));
    let options = NatsOptions { extra: rights(&of_nats, &of_control), ..NatsOptions::default() };
    let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("NATS");
    // The launcher has ports of its own, and no replica.
    let own = |line: &&str| !["#", "port ", "min-replicas", "append"].iter().any(|begin| line.starts_with(begin));
    let conf = text(&at.join("redis/redis.conf")) + &text(&secrets.join("redis-auth.conf"));
    let extra = conf.lines().filter(own).filter(|line| !line.starts_with("master")).map(str::to_owned).collect();
    let login = Some(("edge".into(), of_redis));
    let options = RedisOptions { extra, login, ..RedisOptions::default() };
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &options).await.expect("Redis");
    let file = |key: &str, name: &str| format!("{key}={}", secrets.join("edge").join(name).display());
    let set = vec![
        "nats.user=edge".into(),
        file("nats.password_file", "nats.password"),
        "redis.user=edge".into(),
        file("redis.password_file", "redis.password"),
    ];
    let options = EdgesOptions { nats: nats.urls(), redis: redis.port(0), set, ..EdgesOptions::default() };
    (nats, redis, options)
}

/// Runs a command of `riser` with an edge's configuration.
fn with_config(word: &str, edges: &Edges, options: &EdgesOptions, dir: &Path) {
    let mut command = Command::new(program("RISER_BIN"));
    command.env_clear().arg(word).arg("--config").arg(edges.path("riser.toml"));
    for set in &options.set {
        command.arg("--set").arg(set);
    }
    run(command.arg(dir));
}

#[tokio::test]
async fn the_rights_that_compose_gives_an_edge_are_all_that_it_and_a_backup_need() {
    let folder = prepared();
    let at = folder.path().join("deploy");
    let (_nats, _redis, options) = rightful(&at).await;
    let edges = Edges::start(&program("RISER_BIN"), 2, &options).await.expect("edges that are ready");
    let key = edges.key.clone();
    let url = edges.url(0);
    let api = riser_client::Api::new(url.parse().expect("a URL"), riser_core::frame::Credential::new(key));
    let notice = riser_client::Notice::new("test");
    api.event(&"b/_".parse().expect("an address"), &notice).await.expect("an event is stored");
    for number in 0..2 {
        let (_, metrics) = edges.admin(number, "GET", "/metrics").await.expect("metrics");
        for name in ["riser_redis_errors_total", "riser_redis_script_errors_total"] {
            assert!(metrics.lines().any(|line| line == format!("{name} 0")), "{metrics}");
        }
        assert!(!edges.log(number).contains("ermission"), "{}", edges.log(number));
    }
    let dir = folder.path().join("backup");
    with_config("backup", &edges, &options, &dir);
    let (_nats, _redis, options) = rightful(&at).await;
    let other = Edges::prepare(&program("RISER_BIN"), 1, &options).expect("files");
    for name in ["tenants.toml", "acme.secret"] {
        std::fs::remove_file(other.path(name)).expect("a file");
    }
    with_config("restore", &other, &options, &dir);
}

#[tokio::test]
async fn the_rights_that_compose_gives_the_control_plane_are_all_that_it_needs() {
    let folder = prepared();
    let at = folder.path().join("deploy");
    let (nats, redis, options) = rightful(&at).await;
    let secret = |name: &str| text(&at.join("compose/secrets").join(name));
    let auth = NatsAuth::User { user: "control".into(), password: secret("control/nats.password") };
    let of_nats = NatsConfig { auth, ..NatsConfig::new(nats.urls(), "control") };
    let (user, password) = (Some("edge".into()), Some(Password(secret("edge/redis.password"))));
    let of_redis = RedisConfig { user, password, ..RedisConfig::new(control::server(&redis)) };
    let plane = control::plane_of(&of_nats, of_redis).await;
    plane.ask(Method::POST, "/tenants", &json!({ "tenant": "acme" })).await;
    let (_, key) = plane.key("one").await;
    let flats = json!({ "flats": [{ "address": "b1/f1" }], "codes": "missing" });
    let registered = plane.ask(Method::POST, "/tenants/acme/flats", &flats).await;
    assert!(registered["flats"][0]["code"].is_string(), "{registered}");
    // An edge follows the bucket with its own rights.
    let set = [options.set.clone(), vec!["tenants.source=kv".into()]].concat();
    let edges = Edges::start(&program("RISER_BIN"), 1, &EdgesOptions { set, ..options }).await.expect("an edge");
    drop(control::link(&edges, 0, &key).await);
    let erased = plane.ask(Method::DELETE, "/tenants/acme", &serde_json::Value::Null).await;
    assert!(erased["events"].as_u64() >= Some(2), "the audit was there: {erased}");
    let password = secret("control/nats.password");
    let wire = NatsWire::connect(nats.address(0).port(), Some(("control", &password))).await;
    let mut wire = wire.expect("a connection");
    wire.subscribe("riser.v1.>", 1).await.expect("a subscription");
    assert_eq!(wire.settled().await.expect("an answer"), []);
    wire.subscribe(">", 2).await.expect("a subscription");
    assert!(!wire.settled().await.expect("an answer").is_empty(), "more than that it may not");
}
