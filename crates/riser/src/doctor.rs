//! `riser doctor`: looks at all that an edge needs, and at the edges that run. One line each, with what to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use riser_bus::nats::NatsClient;
use riser_bus::{Bus as _, Filter, Subject};
use riser_core::EdgeId;
use riser_core::routed::{self, AmongEdges};
use riser_registry::redis::{RedisRegistry, ServerInfo};
use tokio::time::{Instant, interval, timeout_at};

use crate::cli::Doctor;
use crate::clock;
use crate::edge::config::{Settings, TenantsFrom, TlsFiles};
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
/// How far the machine's clock and that of Redis may be apart. Credentials are good for longer than that on either side,
/// but logs of two machines no longer tell what came first.
const CLOCKS_APART_MS: u64 = 1_000;

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

struct Line(Mark, String);

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
    match connect::nats(&settings.nats).await {
        Err(failure) => lines.push(Line(Mark::Bad, text_of(failure))),
        Ok(nats) => {
            lines.extend(of_nats(&nats).await);
            lines.extend(of_edges(&nats).await);
        }
    }
    match connect::registry(settings).await {
        Err(failure) => lines.push(Line(Mark::Bad, text_of(failure))),
        Ok(redis) => lines.extend(of_redis(&redis).await),
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
    match settings.tls.as_ref().map(TlsFiles::load) {
        Some(Ok(_)) => lines.push(Line(Mark::Good, "tls: the certificate and its key go together".into())),
        Some(Err(error)) => lines.push(Line(Mark::Bad, error.to_string())),
        None => {}
    }
    lines
}

async fn of_nats(nats: &NatsClient) -> [Line; 2] {
    let server = nats.server();
    let (name, version) = (&server.name, &server.version);
    let reached = if server.has_advisories {
        let text = format!("nats: {name} has version {version} with known advisories: run 2.12.12, 2.14.3 or newer");
        Line(Mark::Warning, text)
    } else {
        Line(Mark::Good, format!("nats: {name} has version {version}"))
    };
    let jetstream = if nats.has_jetstream().await {
        Line(Mark::Good, "nats: JetStream answers".into())
    } else {
        let text =
            "nats: JetStream does not answer: enable it, and let the user publish to $JS.API.> and hear _INBOX.>";
        Line(Mark::Bad, text.into())
    };
    [reached, jetstream]
}

async fn of_edges(nats: &NatsClient) -> Vec<Line> {
    match ask_edges(nats).await {
        None => {
            let text = "edges: NATS takes no subscription: the user must publish and subscribe below riser.v1.>";
            vec![Line(Mark::Bad, text.into())]
        }
        Some(edges) if edges.is_empty() => {
            let text = format!("edges: none gave a sign of life within {} s", EDGES_WAIT.as_secs());
            vec![Line(Mark::Warning, text)]
        }
        Some(edges) => {
            let line = |(edge, after): (EdgeId, Duration)| {
                Line(Mark::Good, format!("edges: {edge} answered within {} ms", after.as_millis().max(1)))
            };
            edges.into_iter().map(line).collect()
        }
    }
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

async fn of_redis(redis: &RedisRegistry) -> Vec<Line> {
    match redis.server_info().await {
        Err(_) => {
            let text = "redis: it does not say how it runs: let the user run INFO and CONFIG GET";
            vec![Line(Mark::Warning, text.into())]
        }
        Ok(info) => judge(&info, clock::now_ms()),
    }
}

fn judge(info: &ServerInfo, now_ms: u64) -> Vec<Line> {
    let ServerInfo { server, version, replicas, .. } = info;
    let mut lines = vec![Line(Mark::Good, format!("redis: {server} has version {version} and {replicas} replica(s)"))];
    let snapshots = info.snapshots.as_ref().is_some_and(|snapshots| !snapshots.is_empty());
    lines.push(if info.append_only {
        Line(Mark::Good, "redis: an append-only file is written".into())
    } else if snapshots {
        let text = "redis: only snapshots are written, so that a restart loses minutes: set appendonly yes";
        Line(Mark::Warning, text.into())
    } else {
        let text =
            "redis: nothing is written to disk, so that a restart loses all state and commands: set appendonly yes";
        Line(Mark::Warning, text.into())
    });
    if info.max_memory > 0 && info.max_memory_policy != "noeviction" {
        let policy = &info.max_memory_policy;
        let text = format!("redis: maxmemory-policy is {policy}, which forgets gateways: set it to noeviction");
        lines.push(Line(Mark::Bad, text));
    }
    if info.now_ms > 0 {
        let apart = info.now_ms.abs_diff(now_ms);
        lines.push(if apart <= CLOCKS_APART_MS {
            Line(Mark::Good, format!("clocks: this machine and Redis are {apart} ms apart"))
        } else {
            Line(Mark::Bad, format!("clocks: this machine and Redis are {apart} ms apart: let both follow NTP"))
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ServerInfo {
        ServerInfo {
            server: "r:6379".into(),
            version: "7.0.15".into(),
            now_ms: 1_000_000,
            is_master: true,
            replicas: 1,
            max_memory: 0,
            max_memory_policy: "noeviction".into(),
            append_only: true,
            snapshots: None,
        }
    }

    fn marks(info: &ServerInfo) -> Vec<Mark> {
        judge(info, 1_000_100).into_iter().map(|Line(mark, _)| mark).collect()
    }

    #[test]
    fn what_redis_may_lose_is_found() {
        use Mark::{Bad, Good, Warning};
        assert_eq!(marks(&info()), [Good, Good, Good]);
        assert_eq!(marks(&ServerInfo { append_only: false, ..info() }), [Good, Warning, Good]);
        let snapshots = ServerInfo { append_only: false, snapshots: Some("60 1".into()), ..info() };
        assert_eq!(marks(&snapshots), [Good, Warning, Good]);
        let limited = ServerInfo { max_memory: 1, ..info() };
        assert_eq!(marks(&limited), [Good, Good, Good]);
        let forgetful = ServerInfo { max_memory_policy: "allkeys-lru".into(), ..limited };
        assert_eq!(marks(&forgetful), [Good, Good, Bad, Good]);
        assert_eq!(marks(&ServerInfo { now_ms: 1_002_000, ..info() }), [Good, Good, Bad]);
        assert_eq!(marks(&ServerInfo { now_ms: 0, ..info() }), [Good, Good]);
    }
}
