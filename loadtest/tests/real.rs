//! The scenarios that need a cluster, in tiny sizes, on real NATS and Redis. The test command's tier `real` brings the
//! servers and the edges, names them in the environment and runs this:
//! `RISER_NATS_SERVER=… RISER_REDIS_SERVER=… RISER_BIN=… cargo test -p riser-loadtest --test real`.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use riser_testkit::real::edges::{Edges, EdgesOptions, TENANT};
use riser_testkit::real::nats::NatsServers;
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use serde_json::Value;

use common::{LOADTEST, figures, folder, measured, none, runs, told};

fn program(variable: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "this is how the test command says where the servers are")]
    let path = std::env::var(variable);
    PathBuf::from(path.unwrap_or_else(|_| panic!("{variable} does not name a program: run `bash .ci/test real`")))
}

/// Runs a scenario, and gives its runs.
fn run(scenario: &str, args: &[&str], out: &Path) -> Vec<Value> {
    let mut command = Command::new(LOADTEST);
    command.args(["run", scenario, "--smoke", "--rounds", "1"]).args(args);
    command.arg("--nats-server").arg(program("RISER_NATS_SERVER"));
    command.arg("--redis-server").arg(program("RISER_REDIS_SERVER"));
    command.arg("--riser").arg(program("RISER_BIN")).arg("--out").arg(out).stdin(Stdio::null());
    let output = command.output().expect("it starts");
    let (table, errors) = told(&output);
    assert!(output.status.success(), "{errors}");
    assert!(table.contains(scenario), "{table}");
    runs(out)
}

/// Subjects and variants in the order in which they were measured.
fn titles(runs: &[Value]) -> Vec<String> {
    let text = |run: &Value, field: &str| run[field].as_str().unwrap_or_default().to_owned();
    runs.iter().map(|run| format!("{}, {}", text(run, "subject"), text(run, "variant"))).collect()
}

#[test]
fn state_is_shown_through_two_edges_and_every_part_of_it_is_measured_alone() {
    let runs = run("state", &[], &folder("real-state"));
    let expected = [
        "cluster, two edges",
        "stores, request and reply",
        "stores, script",
        "stores, script, then request and reply",
        "tcp, echo",
    ];
    assert_eq!(titles(&runs), expected);
    assert_eq!(measured(&runs), [25; 5]);
    none(&runs, "not_shown", 1);
    none(&runs, "unanswered", 3);
}

#[test]
fn commands_are_decided_through_two_edges_and_the_record_is_measured_alone() {
    let runs = run("command", &["--cluster", "2"], &folder("real-command"));
    let expected = [
        "cluster, same edge, open loop",
        "cluster, same edge, closed loop",
        "cluster, two edges, closed loop",
        "cluster, two edges, open loop",
        "stores, one call, then request and reply",
        "stores, new record, then request and reply",
        "tcp, echo, open loop",
    ];
    assert_eq!(titles(&runs), expected);
    none(&runs, "undecided", 4);
    none(&runs, "unanswered", 2);
    assert!(measured(&runs).iter().all(|count| *count > 1), "{:?}", measured(&runs));
}

#[test]
fn a_tenant_that_makes_every_noise_leaves_another_its_answers() {
    let runs = run("noisy", &["--cluster", "2"], &folder("real-noisy"));
    none(&runs, "not_shown", 3);
    none(&runs, "unanswered", 3);
    let kinds =
        ["noise_states_answered", "noise_events_answered", "noise_subscriptions_answered", "noise_rounds_of_storm"];
    for name in kinds {
        let noise = figures(&runs, name);
        assert!(noise["cluster, beside another tenant's noise"] > 0.0, "{name}: {noise:?}");
        assert!(noise["cluster, beside the same noise at another server"] > 0.0, "{name}: {noise:?}");
        assert!(noise["cluster, alone"].abs() < f64::EPSILON, "{name}: {noise:?}");
    }
}

#[test]
fn a_storm_is_spread_over_edges_that_are_all_killed() {
    let runs = run("storm", &["--cluster", "3"], &folder("real-storm"));
    assert_eq!(titles(&runs), ["cluster, clean end", "cluster, edge killed"]);
    for name in ["not_online_in_the_end", "lost_afterwards", "refused_without"] {
        none(&runs, name, 2);
    }
    assert_eq!(measured(&runs), [100, 100]);
}

#[tokio::test]
async fn a_cluster_that_runs_already_is_measured_by_what_peers_see_of_it() {
    let nats = NatsServers::start(&program("RISER_NATS_SERVER"), 1).await.expect("NATS");
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await.expect("Redis");
    let options = EdgesOptions { nats: nats.urls(), redis: redis.port(0), ..EdgesOptions::default() };
    let edges = Edges::start(&program("RISER_BIN"), 2, &options).await.expect("edges");
    let out = folder("real-given");
    let keys = serde_json::json!({
        "tenant": TENANT, "kid": "a", "signing_key": edges.secret, "api_key": edges.key,
    });
    let file = out.join("key.json");
    std::fs::write(&file, keys.to_string()).expect("a file");
    let urls = format!("{},{}", edges.url(0), edges.url(1));
    let at = ["--edges", &urls, "--key-file", &file.to_string_lossy()];
    let state = run("state", &at, &out);
    assert_eq!(titles(&state), ["given, two edges", "tcp, echo"]);
    assert_eq!(measured(&state), [25, 25]);
    assert!(figures(&state, "cpu_us_per_frame").keys().eq(["tcp, echo"]), "nobody saw what the edges cost");
    let storm = run("storm", &at, &out);
    assert_eq!(titles(&storm), ["given, clean end"], "edges of others are not killed");
    none(&storm, "not_online_in_the_end", 1);
}
