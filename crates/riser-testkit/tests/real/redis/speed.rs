//! How much of Redis' own speed is left. It prints, and asserts nothing: run it by name, with `--ignored --nocapture`.

use riser_core::Version;
use riser_registry::Registry;
use riser_registry::redis::RedisRegistry;
use riser_testkit::real::redis::{RawRedis, RedisServers};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::trouble::{apply, set};
use super::{config, connect, key, lease, start};

const TASKS: usize = 64;
const CALLS: u64 = 2_000;

#[expect(clippy::cast_precision_loss, reason = "there are not so many")]
fn rate(began: Instant) -> f64 {
    (TASKS as u64 * CALLS) as f64 / began.elapsed().as_secs_f64()
}

fn address(task: usize) -> (String, String) {
    (format!("b{}", task % 8), format!("g{task}"))
}

/// Begins a session of each task's gateway, and gives their epochs.
async fn begin(registry: &RedisRegistry) -> Vec<Version> {
    let mut versions = vec![];
    for task in 0..TASKS {
        let (building, gateway) = address(task);
        let key = key("t", &format!("{building}/{gateway}"));
        let acquired = registry.acquire(&lease("one", 1), &key, None).await.expect("an answer");
        versions.push(Version::start(acquired.epoch));
    }
    versions
}

/// Changes that so many tasks store a second over one connection, each one after the other.
async fn through_registry(registry: &RedisRegistry) -> f64 {
    let versions = begin(registry).await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (task, mut version) in versions.into_iter().enumerate() {
        let registry = registry.clone();
        let (building, gateway) = address(task);
        tasks.spawn(async move {
            let key = key("t", &format!("{building}/{gateway}"));
            for number in 0..CALLS {
                version = version.next();
                apply(&registry, &key, version, &set("kitchen/light", usize::try_from(number).unwrap_or(0))).await;
            }
        });
    }
    tasks.join_all().await;
    rate(began)
}

/// What Redis calls the script with so many keys that a connection hears of which monitors it.
pub(super) async fn script(monitor: &mut RawRedis, keys: usize) -> String {
    loop {
        let line = monitor.hear().await.expect("a line");
        let words: Vec<_> = line.text().unwrap_or_default().split('"').collect();
        if words.get(1) == Some(&"EVALSHA") && words.get(5) == Some(&&keys.to_string()[..]) {
            return words[3].to_owned();
        }
    }
}

/// What Redis calls the script that stores a change.
async fn apply_script(servers: &RedisServers, registry: &RedisRegistry) -> String {
    let mut monitor = servers.raw(0).await.expect("a connection");
    monitor.call(&["MONITOR"]).await.expect("an answer");
    let version = begin(registry).await[0].next();
    let (building, gateway) = address(0);
    apply(registry, &key("t", &format!("{building}/{gateway}")), version, &set("a", 1)).await;
    script(&mut monitor, 2).await
}

/// The same script, called without a client library: so many calls at once, and the next when all are answered.
async fn by_hand(servers: &RedisServers, registry: &RedisRegistry) -> f64 {
    let script = apply_script(servers, registry).await;
    let versions = begin(registry).await;
    let mut raw = servers.raw(0).await.expect("a connection");
    let began = Instant::now();
    for number in 0..CALLS {
        let call = |(task, version): (usize, &Version)| {
            let (building, gateway) = address(task);
            let (heads, values) = (format!("riser:{{t/{building}}}:g"), format!("riser:{{t/{building}}}:s:{gateway}"));
            let (epoch, rev, value) = (version.epoch.0.to_string(), (number + 1).to_string(), format!("0{number}"));
            let words =
                ["EVALSHA", &script, "2", &heads, &values, &gateway, &epoch, &rev, "0", "2048", "262144", "0", "", "0"];
            words.into_iter().chain(["kitchen/light", &value]).map(str::to_owned).collect()
        };
        let calls: Vec<Vec<String>> = versions.iter().enumerate().map(call).collect();
        raw.call_all(&calls).await.expect("answers");
    }
    rate(began)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn changes_stored_a_second_beside_the_same_script_called_by_hand() {
    let servers = start().await;
    let registry = connect(config(&servers)).await;
    for round in 0..3 {
        let through_registry = through_registry(&registry).await;
        let by_hand = by_hand(&servers, &registry).await;
        let ratio = through_registry / by_hand;
        println!("round {round}: {through_registry:.0}/s, by hand {by_hand:.0}/s, ratio {ratio:.2}");
    }
}
