//! A cluster of real servers that takes the command line of `riser dev` and answers as it does: three NATS servers, a
//! Redis with its replica and Sentinels, and each edge a process of its own. So programs that know only the protocol and
//! `riser dev` are run against what is operated, unchanged.
//!
//! Where the servers are is said by `REAL_RISER`, `REAL_NATS_SERVER` and `REAL_REDIS_SERVER`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use http::StatusCode;
use riser_client::Api;
use riser_core::Grant;
use riser_core::frame::Credential;
use riser_ops::admin::{Answer, json, text};
use riser_ops::{Admin, Signals};
use riser_testkit::real::edges::{Edges, EdgesOptions, TENANT};
use riser_testkit::real::http as http_of;
use riser_testkit::real::nats::NatsServers;
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// How long the client's token lasts, in seconds.
const CLIENT_TTL_S: u64 = 3_600;

/// A cluster of real servers that answers to the command line of `riser dev`.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Edges that a cluster has at least, so that there is always one that neither of two peers is connected to.
const EDGES: usize = 3;

#[derive(Subcommand)]
enum Command {
    /// Runs it until SIGINT or SIGTERM, which drain its edges.
    Dev(Dev),
}

#[derive(Args)]
struct Dev {
    /// Edges that are asked for; there are never fewer than [`EDGES`].
    #[arg(long, default_value_t = 1)]
    edges: usize,
    /// None are simulated here: 0.
    #[arg(long)]
    flats: usize,
    /// Any free ports are taken: 127.0.0.1:0.
    #[arg(long)]
    listen: SocketAddr,
    /// The same for the admin ports.
    #[arg(long)]
    admin: SocketAddr,
    /// Between two pings to a peer.
    #[arg(long, default_value = "20s")]
    heartbeat: String,
    /// Over how long closes are spread when it ends.
    #[arg(long, default_value = "3s")]
    drain_window: String,
    /// Written once it serves: one JSON object with URLs and keys.
    #[arg(long)]
    ready_file: PathBuf,
}

/// The edges, and who may kill or start one at a time.
type Shared = Arc<Mutex<Edges>>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Command::Dev(args) = Cli::parse().command;
    ensure!(args.flats == 0, "flats are not simulated here");
    ensure!(args.listen.port() == 0 && args.admin.port() == 0, "only free ports are taken here");
    let mut signals = Signals::listen()?;
    let nats = NatsServers::start(&program("REAL_NATS_SERVER")?, 3).await?;
    let redis = RedisServers::start_with_sentinels(&program("REAL_REDIS_SERVER")?, &RedisOptions::default()).await?;
    let count = args.edges.max(EDGES);
    let edges = Edges::start(&program("REAL_RISER")?, count, &options(&args, &nats, &redis)).await?;
    let addresses: Vec<_> = (0..count).map(|n| SocketAddr::from((Ipv4Addr::LOCALHOST, edges.port(n)))).collect();
    let facts = facts(&edges).await?;
    let edges = Arc::new(Mutex::new(edges));
    let (admins, _pages) = serve_pages(&edges, addresses.len()).await?;
    write_ready(&args.ready_file, &addresses, &admins, &facts)?;
    signals.next().await;
    let ended = tokio::select! {
        biased;
        _ = signals.next() => Ok(ExitCode::from(130)),
        ended = drain(&edges, addresses.len()) => ended,
    };
    // The servers end before this program does, so that nothing is left of it.
    drop((edges, redis, nats));
    ended
}

fn program(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).with_context(|| format!("{variable} does not say where the program is"))?;
    Ok(PathBuf::from(path))
}

fn options(args: &Dev, nats: &NatsServers, redis: &RedisServers) -> EdgesOptions {
    let set = [
        format!("edge.heartbeat={}", args.heartbeat),
        format!("edge.drain_window={}", args.drain_window),
        "edge.grace=20s".into(),
        "events.replicas=3".into(),
        "log.level=debug".into(),
    ];
    let (nats, sentinels) = (nats.urls(), redis.sentinels());
    EdgesOptions { nats, sentinels, set: set.into(), output: Some("/dev/stdout".into()), ..EdgesOptions::default() }
}

/// What a program needs to get in.
struct Facts {
    api_key: String,
    client_token: String,
    signing_key: String,
}

async fn facts(edges: &Edges) -> Result<Facts> {
    let api = Api::new(edges.url(0).parse()?, Credential::new(edges.key.clone()));
    let minted = api.client_token("dev", &[Grant::everything()], Some(CLIENT_TTL_S)).await?;
    Ok(Facts {
        api_key: edges.key.clone(),
        client_token: minted.token.expose().to_owned(),
        signing_key: edges.secret.clone(),
    })
}

/// Serves pages for each edge that are there also while it is not.
async fn serve_pages(edges: &Shared, count: usize) -> Result<(Vec<SocketAddr>, JoinSet<()>)> {
    let (mut at, mut serving) = (Vec::new(), JoinSet::new());
    for number in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        at.push(listener.local_addr()?);
        serving.spawn(pages(edges, number, count).serve(listener, std::future::pending()));
    }
    Ok((at, serving))
}

fn pages(edges: &Shared, number: usize, count: usize) -> Admin {
    let mut admin = Admin::default();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let edges = edges.clone();
        admin = admin.get(path, move || {
            let edges = edges.clone();
            async move { passed_on(&edges, number, path).await }
        });
    }
    for n in 0..count {
        let (to_kill, to_start) = (edges.clone(), edges.clone());
        admin = admin
            .post(format!("/dev/edges/{n}/kill"), move || {
                let edges = to_kill.clone();
                async move {
                    edges.lock().await.kill(n);
                    json(StatusCode::OK, json!({"edge": n, "running": false}).to_string())
                }
            })
            .post(format!("/dev/edges/{n}/start"), move || {
                let edges = to_start.clone();
                async move { started(&edges, n).await }
            });
    }
    admin
}

async fn started(edges: &Shared, n: usize) -> Answer {
    let mut edges = edges.lock().await;
    let started = match edges.launch(n) {
        Ok(()) => edges.ready(n).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(()) => json(StatusCode::OK, json!({"edge": n, "running": true}).to_string()),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("edge {n}: {error:#}\n")),
    }
}

/// What an edge answers itself. One that is down counts nothing.
async fn passed_on(edges: &Shared, number: usize, path: &str) -> Answer {
    let port = edges.lock().await.admin_port(number);
    match http_of::ask(port, "GET", path).await {
        Ok((status, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            text(status, body)
        }
        Err(_) if path == "/metrics" => text(StatusCode::OK, ""),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("edge {number}: {error:#}\n")),
    }
}

fn write_ready(file: &Path, addresses: &[SocketAddr], admins: &[SocketAddr], facts: &Facts) -> Result<()> {
    let urls = |scheme: &str, at: &[SocketAddr], path: &str| -> Vec<String> {
        at.iter().map(|at| format!("{scheme}://{at}{path}")).collect()
    };
    let object = json!({
        "ws": urls("ws", addresses, riser_client::endpoint::WS_PATH),
        "http": urls("http", addresses, ""),
        "admin": urls("http", admins, ""),
        "tenant": TENANT,
        "api_key": facts.api_key,
        "client_token": facts.client_token,
        "signing_key": facts.signing_key,
    });
    let beside = file.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    std::io::Write::write_all(&mut written, object.to_string().as_bytes())?;
    std::fs::rename(&beside, file).context("the ready file cannot be written")
}

/// Drains all edges at once. One that does not end well makes this program fail.
async fn drain(edges: &Shared, count: usize) -> Result<ExitCode> {
    let mut edges = edges.lock().await;
    let running: Vec<_> = (0..count).filter(|n| edges.is_running(*n)).collect();
    for n in &running {
        edges.terminate(*n)?;
    }
    for n in running {
        let code = edges.ended(n).await?;
        ensure!(code == Some(0), "edge {n} ended with {code:?}");
    }
    Ok(ExitCode::SUCCESS)
}
