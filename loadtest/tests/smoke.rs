//! Every scenario in tiny sizes, against a `riser dev` of its own, without peers. What is asserted is what was counted, and
//! never a time.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use common::{LOADTEST, figures, folder, measured, none, runs, told};

/// How long what ends may take.
const END: Duration = Duration::from_secs(20);

/// The server, beside the program, and up to date: an old one would be measured without a word. The whole workspace is
/// named so that what its tests have compiled is used again.
static RISER: LazyLock<PathBuf> = LazyLock::new(|| {
    let beside = Path::new(LOADTEST).with_file_name("riser");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--bin", "riser", "--locked"]);
    if beside.parent().is_some_and(|folder| folder.ends_with("release")) {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo").success(), "riser does not build");
    beside
});

fn command(args: &[&str], out: &Path) -> Command {
    let mut command = Command::new(LOADTEST);
    command.args(args).args(["--smoke", "--rounds", "1"]);
    for peer in ["--npm", "--mosquitto", "--centrifugo", "--nats-server", "--redis-server"] {
        command.args([peer, "nowhere"]);
    }
    command.arg("--riser").arg(&*RISER).arg("--out").arg(out).stdin(Stdio::null());
    command
}

/// Runs a scenario, and gives its runs.
fn run(scenario: &str) -> Vec<Value> {
    let out = folder(scenario);
    let output = command(&["run", scenario], &out).output().expect("it starts");
    let (table, errors) = told(&output);
    assert!(output.status.success(), "{errors}");
    assert!(table.contains(scenario) && table.contains("uws is missing"), "{table}");
    let page = std::fs::read_to_string(out.join("loadtest.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains(scenario));
    runs(&out)
}

#[test]
fn idle_reads_memory_at_each_step() {
    let runs = run("idle");
    assert_eq!(figures(&runs, "pss_bytes_at_000020").len(), 2, "riser and the echo");
    assert_eq!(figures(&runs, "bytes_per_session").len(), 2);
}

#[test]
fn ingest_has_every_frame_answered() {
    let runs = run("ingest");
    none(&runs, "unanswered", 4);
    assert_eq!(measured(&runs), [50, 50, 50, 50]);
}

#[test]
fn fanout_delivers_every_frame_to_all_and_encodes_it_once() {
    let runs = run("fanout");
    none(&runs, "undelivered", 4);
    assert_eq!(measured(&runs), [200, 1_600, 200, 1_600]);
    let encodings = figures(&runs, "encodings_per_frame");
    assert_eq!(encodings.len(), 2);
    assert!(encodings.values().all(|value| *value <= 1.0), "{encodings:?}");
}

#[test]
fn state_without_nats_and_redis_has_its_echo_and_says_what_is_missing() {
    let out = folder("state-alone");
    let output = command(&["run", "state"], &out).output().expect("it starts");
    let (table, errors) = told(&output);
    assert!(output.status.success() && table.contains("cluster is missing: there is no nowhere"), "{table}{errors}");
    assert_eq!(measured(&runs(&out)), [25]);
}

#[test]
fn building_shows_every_value_on_every_dashboard() {
    let runs = run("building");
    none(&runs, "not_shown", 1);
    assert_eq!(measured(&runs), [100]);
}

#[test]
fn command_has_an_outcome_for_each() {
    let runs = run("command");
    none(&runs, "undecided", 4);
    assert!(measured(&runs).iter().all(|count| *count > 1), "{:?}", measured(&runs));
}

#[test]
fn storm_brings_all_back_and_presence_with_them() {
    let runs = run("storm");
    for name in ["not_online_in_the_end", "lost_afterwards", "refused_without"] {
        none(&runs, name, 2);
    }
    assert_eq!(measured(&runs), [100, 100]);
}

#[test]
fn slow_ends_with_the_last_values() {
    let runs = run("slow");
    none(&runs, "last_values_wrong", 1);
    none(&runs, "not_shown_to_reading", 1);
}

#[test]
fn noisy_answers_the_quiet_ones() {
    let runs = run("noisy");
    none(&runs, "unanswered", 3);
    none(&runs, "not_shown", 3);
    let noise = figures(&runs, "noise_sent");
    let beside = "riser, beside noise of its own tenant";
    assert!(noise[beside] > 1_000.0 && noise["riser, alone"] == 0.0, "{noise:?}");
    assert!(noise["riser, beside the same noise at another server"] > 1_000.0, "{noise:?}");
    assert!(figures(&runs, "noise_rounds_of_storm")[beside] > 0.0);
}

#[test]
fn poll_finds_every_command_both_ways() {
    let runs = run("poll");
    none(&runs, "commands_not_seen", 2);
    assert_eq!(measured(&runs), [10, 10]);
    assert!(figures(&runs, "questions_per_command")["riser, asks every 0.2 s"] > 1.0);
}

#[test]
fn budgets_end_in_a_table_that_a_result_gives_again() {
    let out = folder("budgets");
    let output = command(&["budgets"], &out).output().expect("it starts");
    let (table, errors) = told(&output);
    assert!(table.starts_with("what") && table.contains("verdict"), "{table}{errors}");
    for line in [
        "idle gateway session",
        "fan-out 20 × 1, state",
        "storm, edge killed",
        "last values",
        "beside 20 sessions at rest, to 10",
        "riser: per GiB of the server's own",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    for line in ["state through two edges, p99", "command round trip through two edges, p99"] {
        let line = table.lines().find(|told| told.starts_with(line)).expect("each budget has a line");
        assert!(line.contains("not measured: there is no nowhere"), "{line}");
    }
    let json = out.join("loadtest.json");
    let again = Command::new(LOADTEST).args(["budgets", "--from"]).arg(&json).output().expect("it starts");
    assert_eq!(told(&again).0, table);
    let same = Command::new(LOADTEST).arg("compare").args([&json, &json]).output().expect("it starts");
    assert!(told(&same).0.contains("storm, clean end, riser: cpu us per session"), "{}", told(&same).0);
}

#[tokio::test]
async fn interrupted_it_ends_what_it_started_and_keeps_what_it_found() {
    let out = folder("interrupted");
    let scenario = out.join("rest.toml");
    let text = include_str!("../scenarios/idle.toml").replace("rest_s = 0.2", "rest_s = 600.0");
    std::fs::write(&scenario, text).expect("a file");
    let name = scenario.to_string_lossy().into_owned();
    let child = command(&["run", "ingest", &name], &out).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("rest, riser"))), "it rests");
    let pid = child.0.id();
    let until = Instant::now() + END;
    // The server and the generator.
    let mut started = children(pid);
    while started.len() < 2 {
        assert!(Instant::now() < until, "{started:?}");
        sleep(Duration::from_millis(20)).await;
        started = children(pid);
    }
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process' id");
    kill_process(raw, Signal::INT).expect("it runs");
    let status = child.0.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    let until = Instant::now() + END;
    while started.iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()) {
        assert!(Instant::now() < until, "{started:?} still run");
        sleep(Duration::from_millis(20)).await;
    }
    let text = std::fs::read_to_string(out.join("loadtest.json")).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(result["runs"].as_array().map(Vec::len), Some(4), "those of the scenario before");
}

/// A process that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already when the test has not failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes that a process started.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn what_is_asked_wrongly_is_told() {
    let ask = |args: &[&str]| Command::new(LOADTEST).args(args).output().expect("it starts");
    assert_eq!(ask(&["run"]).status.code(), Some(64));
    assert_eq!(ask(&["--help"]).status.code(), Some(0));
    assert!(told(&ask(&["--help"])).0.contains("Examples:"));
    let unknown = ask(&["run", "fan"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(told(&unknown).1.contains("there are idle, ingest, fanout"), "{}", told(&unknown).1);
    assert_eq!(told(&ask(&["list"])).0.lines().count(), 10);
}
