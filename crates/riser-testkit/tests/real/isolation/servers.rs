//! What lies in the servers, seen from beside: no code of an edge reads it here.

use std::collections::BTreeSet;

use riser_testkit::real::nats::NatsWire;
use riser_testkit::real::redis::{RawRedis, Reply};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::pair::{Finding, Pair};
use super::world::{LOOK_EVERY, World};

/// What follows the tenant in keys of Redis, of which each tenant has some.
const KINDS_OF_KEYS: [&str; 17] =
    ["g", "q", "f", "s", "c", "d", "x", "b", "k", "l", "z", "a", "oa", "os", "ob", "ra", "rs"];
/// What stands before the tenant in subjects, of which each tenant has some.
const KINDS_OF_SUBJECTS: [&str; 9] = [
    "riser.v1.up.",
    "riser.v1.edge.",
    "riser.v1.live.",
    "riser.v1.edge-live.",
    "riser.v1.log.",
    "riser.v1.ledger.",
    "$KV.riser-held.",
    "$KV.riser-tenants.",
    "$KV.riser-flats.",
];

/// Checks all that lies in Redis and all that went through NATS since its line of this number.
pub(super) async fn check(world: &World, pair: &Pair, since: usize, until: Instant) -> Result<(), Finding> {
    let lost = |_| Finding::Missing("what lies in the servers".into());
    let look = async {
        redis(world, pair).await?;
        streams(world, pair).await?;
        nats(world, pair, since).await
    };
    timeout_at(until, look).await.map_err(lost)?
}

/// Nothing of one tenant stands beside anything of the other, and nothing without its name.
fn check_line(pair: &Pair, line: &str) -> Result<(), Finding> {
    let (named, marked) = pair.shown(line);
    let both = |whose: usize| (named[whose] || marked[whose]) && (named[1 - whose] || marked[1 - whose]);
    if both(0) || (0..2).any(|whose| marked[whose] && !named[whose]) {
        return Err(Finding::Foreign(format!("there is {line}")));
    }
    Ok(())
}

fn missing(what: &str) -> impl Fn(anyhow::Error) -> Finding {
    move |error| Finding::Missing(format!("{what}: {error:#}"))
}

async fn redis(world: &World, pair: &Pair) -> Result<(), Finding> {
    let failed = missing("what lies in Redis");
    let mut raw = world.redis_servers.raw(0).await.map_err(&failed)?;
    let keys = raw.call(&["KEYS", &format!("*{}*", pair.run)]).await.map_err(&failed)?;
    let mut keys: Vec<String> = keys.texts().into_iter().map(str::to_owned).collect();
    // What all tenants share.
    keys.push("riser:{_due}:z".into());
    let mut kinds: [BTreeSet<String>; 2] = Default::default();
    for line in dump(&mut raw, &keys).await.map_err(&failed)? {
        check_line(pair, &line)?;
    }
    for key in &keys {
        let parts = key.strip_prefix("riser:{").and_then(|key| key.split_once("}:"));
        let Some((of, rest)) = parts else { return Err(Finding::Foreign(format!("there is {key}"))) };
        let kind = rest.split(':').next().unwrap_or_default();
        for (whose, one) in pair.of.iter().enumerate() {
            if of.split('/').next() == Some(one.id.as_str()) {
                kinds[whose].insert(kind.to_owned());
            }
        }
    }
    for (kinds, one) in kinds.iter().zip(&pair.of) {
        let lacks: Vec<_> = KINDS_OF_KEYS.iter().filter(|kind| !kinds.contains(**kind)).collect();
        if !lacks.is_empty() {
            return Err(Finding::Missing(format!("keys of {}: {lacks:?}", one.id)));
        }
    }
    Ok(())
}

/// Each thing that these keys hold, behind its key.
async fn dump(raw: &mut RawRedis, keys: &[String]) -> anyhow::Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let types: Vec<_> = keys.iter().map(|key| words(&["TYPE", key])).collect();
    let types = raw.call_all(&types).await?;
    let read = |(key, kind): (&String, &Reply)| match kind.text() {
        Some("hash") => words(&["HGETALL", key]),
        Some("set") => words(&["SMEMBERS", key]),
        Some("zset") => words(&["ZRANGE", key, "0", "-1"]),
        _ => words(&["GET", key]),
    };
    let commands: Vec<_> = keys.iter().zip(&types).map(read).collect();
    let mut lines = vec![];
    for ((key, kind), reply) in keys.iter().zip(&types).zip(raw.call_all(&commands).await?) {
        let size = if kind.text() == Some("hash") { 2 } else { 1 };
        lines.extend(reply.texts().chunks(size).map(|item| format!("{key} {}", item.join(" "))));
        lines.extend(reply.text().map(|text| format!("{key} {text}")));
    }
    Ok(lines)
}

/// Each tenant's events are in the stream of its name, and nowhere else.
async fn streams(world: &World, pair: &Pair) -> Result<(), Finding> {
    let failed = missing("the streams");
    let mut raw = world.nats_servers.raw(0).await.map_err(&failed)?;
    for one in &pair.of {
        let subjects = json!({"subject": format!("riser.v1.log.{}.*", one.id)}).to_string();
        let names = raw.ask("$JS.API.STREAM.NAMES", &subjects).await.map_err(&failed)?;
        let names: Value = serde_json::from_str(&names).unwrap_or_default();
        if names["streams"] != json!([format!("riser-ev-{}", one.id)]) {
            return Err(Finding::Foreign(format!("the events of {} are in {}", one.id, names["streams"])));
        }
    }
    Ok(())
}

async fn nats(world: &World, pair: &Pair, since: usize) -> Result<(), Finding> {
    let failed = missing("what went through NATS");
    // What was published before this is heard before it.
    let end = format!("riser.v1.end.{}", pair.run);
    let port = world.nats_servers.address(0).port();
    let mut wire = NatsWire::connect(port, None).await.map_err(&failed)?;
    wire.publish(&end, "", "").await.map_err(&failed)?;
    wire.settled().await.map_err(&failed)?;
    while !world.heard.lock()[since..].iter().any(|line| line.starts_with(&end)) {
        sleep(LOOK_EVERY).await;
    }
    let heard: Vec<String> = world.heard.lock()[since..].to_vec();
    heard.iter().try_for_each(|line| check_line(pair, line))?;
    for one in &pair.of {
        let names = |subject: &str| subject.split('.').any(|token| token == one.id.as_str());
        let own: Vec<_> = heard.iter().filter_map(|line| line.split(' ').next()).filter(|&line| names(line)).collect();
        let lacks = |kind: &&&str| !own.iter().any(|subject| subject.starts_with(**kind));
        let lacks: Vec<_> = KINDS_OF_SUBJECTS.iter().filter(lacks).collect();
        if !lacks.is_empty() {
            return Err(Finding::Missing(format!("subjects of {}: {lacks:?}", one.id)));
        }
    }
    Ok(())
}
