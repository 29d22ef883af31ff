//! `riser doctor`: looks at all that an edge needs, and at the edges that run. One line each, with what to do.

mod monitor;
mod nats;
mod redis;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use riser_bus::nats::NatsClient;
use riser_bus::{Bus as _, Filter, Subject};
use riser_core::EdgeId;
use riser_core::routed::{self, AmongEdges};
use riser_registry::redis::LeaseInfo;
use tokio::time::{Instant, interval, timeout_at};

use crate::cli::Doctor;
use crate::clock;
use crate::edge::config::{Settings, TenantsFrom};
use crate::edge::reload::Source as _;
use crate::edge::{self, connect};
use crate::exit::{self, Failure};
use crate::tenants::file as tenants_file;

/// How long edges have to give a sign of life. It takes them milliseconds, unless interest has not spread yet.
const EDGES_WAIT: Duration = Duration::from_secs(2);
/// Between two questions to the edges: the first may be lost before interest in the answers has spread.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Answers that wait: those of more edges than a cluster has.
const INBOX: usize = 4_096;
/// How far the clocks of two machines may be apart. Credentials are good for longer than that on either side, but logs of two
/// machines no longer tell what came first.
const CLOCKS_APART_MS: u64 = 1_000;

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, PartialEq, Eq)]
struct Line(Mark, String);

/// Judges two clocks.
fn clocks(whose: &str, theirs_ms: u64, now_ms: u64) -> Line {
    let apart = theirs_ms.abs_diff(now_ms);
    if apart <= CLOCKS_APART_MS {
        Line(Mark::Good, format!("clocks: this machine and {whose} are {apart} ms apart"))
    } else {
        Line(Mark::Bad, format!("clocks: this machine and {whose} are {apart} ms apart: let both follow NTP"))
    }
}

/// Runs the command.
pub(crate) fn run(args: &Doctor) -> Result<ExitCode, Failure> {
    let settings = edge::settings(&args.from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lines = runtime.block_on(examine(&settings));
    let mut text = String::new();
    for Line(mark, line) in &lines {
        let sign = match mark {
            Mark::Good => '✓',
            Mark::Warning => '!',
            Mark::Bad => '✗',
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{sign} {}", riser_ops::visible(line));
    }
    exit::print(&text)?;
    let bad = lines.iter().any(|Line(mark, _)| *mark == Mark::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(settings: &Settings) -> Vec<Line> {
    let mut lines = files(settings);
    let redis = connect::registry(settings).await;
    let leases = match &redis {
        Ok(redis) => redis.leases().await.unwrap_or_default(),
        Err(_) => vec![],
    };
    match connect::nats(&settings.nats).await {
        Err(failure) => lines.push(Line(Mark::Bad, text_of(failure))),
        Ok(nats) => {
            lines.extend(nats::look(&nats, settings).await);
            lines.extend(of_edges(&nats, &leases, clock::now_ms()).await);
        }
    }
    match redis {
        Err(failure) => lines.push(Line(Mark::Bad, text_of(failure))),
        Ok(redis) => lines.extend(redis::look(&redis).await),
    }
    lines
}

fn text_of(failure: Failure) -> String {
    match failure {
        Failure::Usage(text) | Failure::Unavailable(text) | Failure::Denied(text) | Failure::Rejected(text) => text,
        Failure::Other(error) => format!("{error:#}"),
    }
}

fn files(settings: &Settings) -> Vec<Line> {
    let mut lines = vec![match &settings.tenants {
        TenantsFrom::Bucket => Line(Mark::Good, "tenants: from the bucket riser-tenants".into()),
        TenantsFrom::File(file) => match tenants_file::read(file) {
            Err(error) => Line(Mark::Bad, format!("tenants: {error}")),
            Ok(table) if table.is_empty() => {
                Line(Mark::Warning, "tenants: there are none, so that nobody can connect".into())
            }
            Ok(table) => Line(Mark::Good, format!("tenants: {}", table.len())),
        },
    }];
    for files in settings.tls.iter().chain(&settings.shown) {
        lines.push(match files.load() {
            Ok(_) => Line(Mark::Good, format!("tls: {} and its key go together", files.cert.display())),
            Err(error) => Line(Mark::Bad, error.to_string()),
        });
    }
    lines
}

/// The edges that gave a sign of life, and those that should have.
async fn of_edges(nats: &NatsClient, leases: &[LeaseInfo], now_ms: u64) -> Vec<Line> {
    match ask_edges(nats).await {
        None => {
            let text = "edges: NATS takes no subscription: the user must publish and subscribe below riser.v1.>";
            vec![Line(Mark::Bad, text.into())]
        }
        Some(edges) => judge_edges(&edges, leases, now_ms),
    }
}

fn judge_edges(edges: &BTreeMap<EdgeId, Duration>, leases: &[LeaseInfo], now_ms: u64) -> Vec<Line> {
    let mut lines = vec![];
    for (edge, after) in edges {
        let after = after.as_millis().max(1);
        lines.push(if leases.iter().any(|lease| lease.lease.edge == *edge && !lease.ended) {
            Line(Mark::Good, format!("edges: {edge} answered within {after} ms"))
        } else {
            let text =
                format!("edges: {edge} answered within {after} ms, and has no lease: see whether it reaches Redis");
            Line(Mark::Bad, text)
        });
    }
    if edges.is_empty() {
        let text = format!("edges: none gave a sign of life within {} s", EDGES_WAIT.as_secs());
        lines.push(Line(Mark::Warning, text));
    }
    for LeaseInfo { lease, ends_at_ms, drained, ended } in leases {
        let edge = &lease.edge;
        if *ended {
            let ago = now_ms.saturating_sub(*ends_at_ms) / 1_000;
            let text = format!("edges: {edge} is dead for {ago} s, and its gateways are not all marked offline yet");
            let remedy = if edges.is_empty() { ": start an edge, which does it" } else { ": a minute is too long" };
            lines.push(Line(Mark::Warning, text + remedy));
        } else if !drained && !edges.contains_key(edge) {
            let text = format!(
                "edges: {edge} has a lease and did not answer within {} s: it hangs, is cut off from NATS, or died just now",
                EDGES_WAIT.as_secs()
            );
            lines.push(Line(Mark::Bad, text));
        }
    }
    lines
}

/// Asks all edges for a sign of life; who gave one, and after how long.
async fn ask_edges(nats: &NatsClient) -> Option<BTreeMap<EdgeId, Duration>> {
    let me: EdgeId = format!("doctor-{:016x}", fastrand::u64(..)).parse().ok()?;
    let bus = nats.bus();
    let (inbox, mut answers) = riser_bus::inbox(INBOX);
    let _subscription = bus.subscribe(&Filter::Edges, &inbox).await.ok()?;
    let give_up = Instant::now() + EDGES_WAIT;
    let mut ask = interval(ASK_EVERY);
    let (mut number, mut asked, mut edges) = (0, Instant::now(), BTreeMap::new());
    loop {
        tokio::select! {
            _ = ask.tick() => {
                number += 1;
                asked = Instant::now();
                let ping = routed::encode(&AmongEdges::Ping { from: me.clone(), to: None, n: number });
                bus.publish(&Subject::Edges, Bytes::from(ping)).await.ok()?;
            }
            answer = timeout_at(give_up, answers.recv()) => {
                let Ok(Some(delivery)) = answer else { return Some(edges) };
                if let Ok(AmongEdges::Pong { from, to, n }) = routed::decode(&delivery.payload)
                    && to == me
                    && n == number
                {
                    edges.entry(from).or_insert_with(|| asked.elapsed());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use riser_registry::Lease;

    use super::*;

    fn marks(answered: &[&str], leases: &[(&str, bool, bool)]) -> Vec<(Mark, String)> {
        let edge = |name: &str| -> EdgeId { name.parse().expect("an edge") };
        let answered = answered.iter().map(|name| (edge(name), Duration::from_millis(3))).collect();
        let lease = |&(name, drained, ended): &(&str, bool, bool)| LeaseInfo {
            lease: Lease { edge: edge(name), start: 1 },
            ends_at_ms: 1_000,
            drained,
            ended,
        };
        let leases: Vec<_> = leases.iter().map(lease).collect();
        let lines = judge_edges(&answered, &leases, 8_000).into_iter();
        lines.map(|Line(mark, text)| (mark, text.split_once(": ").expect("a topic").1.to_owned())).collect()
    }

    #[test]
    fn edges_that_should_answer_and_do_not_are_named() {
        let all =
            marks(&["a", "b"], &[("a", false, false), ("c", false, false), ("d", true, false), ("e", false, true)]);
        let begins = [
            (Mark::Good, "a answered within 3 ms"),
            (Mark::Bad, "b answered within 3 ms, and has no lease"),
            (Mark::Bad, "c has a lease and did not answer within 2 s"),
            (Mark::Warning, "e is dead for 7 s, and its gateways are not all marked offline yet: a minute"),
        ];
        assert_eq!(all.len(), begins.len(), "{all:?}");
        for ((mark, text), (expected, begin)) in all.iter().zip(begins) {
            assert!(*mark == expected && text.starts_with(begin), "{text}");
        }
        let none = marks(&[], &[("e", false, true)]);
        assert!(none[1].1.ends_with("start an edge, which does it"), "{none:?}");
    }
}
