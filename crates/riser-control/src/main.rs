//! `riser-control`: the control plane as a process. This file wires.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use parking_lot::RwLock;
use prometheus::Registry;
use riser_bus::Bus as _;
use riser_bus::nats::NatsClient;
use riser_config::{Reader, Sources, read_file};
use riser_control::{Control, Credentials, Ports, Server};
use riser_ops::{Admin, Signals};
use riser_registry::redis::RedisRegistry;
use riser_tenants::{FollowMetrics, Followed};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::interval;

/// Largest file of credentials, in bytes: each has a line of at most 1 KiB.
const CREDENTIAL_BYTES: u64 = 64 * 1024;
/// Between two looks at the file of credentials. With it one that is taken out is refused within seconds.
const LOOK: Duration = Duration::from_secs(2);

/// The control plane: tenants, their keys and quotas, published to every edge.
#[derive(Debug, Parser)]
#[command(name = "riser-control", version)]
#[command(after_help = "\
Examples:
  riser edge default-config > riser.toml        every option, with its default
  riser-control --config riser.toml
  riser-control --config riser.toml --set control.listen=127.0.0.1:0 --check

It takes the edges' configuration file, and reads the sections control, nats, redis, events, tenants and log of it. Edges \
need `source = \"kv\"` in [tenants]. SIGTERM and Ctrl-C end it; edges go on without it.")]
struct Args {
    /// The configuration file, in TOML; without it, defaults and the environment.
    #[arg(long, env = "RISER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// An option that goes before the file and the environment; lists have commas. Not for secrets.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Check the configuration and the files that it names, and start nothing.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("riser-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let sources = Sources::gather(args.config.as_deref(), &args.set)?;
    let values = sources.values()?;
    let reader = Reader { values: &values, folder: sources.folder() };
    let (format, level) = riser_config::log(&reader)?;
    let Some(file) = reader.file("control", "credential_file")? else {
        bail!("control.credential_file must be set: on each of its lines a secret of 43 characters or more");
    };
    let credentials = credentials(&file)?;
    let (listen, health) = (reader.address("control", "listen")?, reader.address("control", "health")?);
    let (nats, redis) = (riser_config::nats(&reader, "control")?, riser_config::redis(&reader)?);
    let (events, kv) = (riser_config::events(&reader)?, riser_config::kv(&reader)?);
    let hash_key = riser_config::hash_key(&reader)?;
    if args.check {
        println!("good: the admin API on {listen}");
        return Ok(());
    }
    riser_ops::logs::init(&level, format)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let nats = NatsClient::connect(&nats).await.context("nats")?;
        let registry = Arc::new(RedisRegistry::connect(redis).await.context("redis")?);
        let metrics = Registry::new();
        let kv = Arc::new(nats.kv(kv));
        let tenants = Followed::open(kv.clone(), FollowMetrics::new(&metrics)?).await.context("tenants")?;
        let ports = Ports {
            kv,
            log: Arc::new(nats.log(events).of_tenants(tenants.table())),
            registry: registry.clone(),
            state: registry.clone(),
            commands: registry.clone(),
            bus: Arc::new(nats.bus()),
            now_ms: Arc::new(now_ms),
            hash_key,
        };
        let server = Server::new(Control::new(ports, &metrics)?, credentials);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(file, server.credentials()));
        tasks.spawn(tenants.follow());
        let admin = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let pages = TcpListener::bind(health).await.with_context(|| format!("cannot listen on {health}"))?;
        let (at, health) = (admin.local_addr()?, pages.local_addr()?);
        let bus = nats.bus().health();
        let ready = move || {
            if !bus.borrow().connected {
                return Err("NATS cannot be reached".to_owned());
            }
            if registry.is_connected() { Ok(String::new()) } else { Err("Redis cannot be reached".to_owned()) }
        };
        tasks.spawn(Admin::new(ready, metrics).serve(pages, std::future::pending()));
        tracing::info!(listen = %at, %health, "serving");
        server.serve(admin, async { _ = signals.next().await }).await;
        tracing::info!("ended");
        Ok(())
    })
}

fn credentials(file: &Path) -> Result<Credentials> {
    let text = read_file("the credentials", file, CREDENTIAL_BYTES)?;
    Credentials::read(&text).with_context(|| format!("control.credential_file: {}", file.display()))
}

/// Takes the credentials anew when their file has changed. What cannot be used changes nothing.
async fn follow(file: PathBuf, known: Arc<RwLock<Credentials>>) {
    let mut looks = interval(LOOK);
    let mut trouble = None;
    loop {
        looks.tick().await;
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || credentials(&path)).await;
        match read {
            Ok(Ok(fresh)) => {
                *known.write() = fresh;
                trouble = None;
            }
            Ok(Err(error)) => {
                let text = format!("{error:#}");
                if trouble.as_ref() != Some(&text) {
                    tracing::error!(error = text, "the credentials are refused, and those from before stay");
                }
                trouble = Some(text);
            }
            Err(_) => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the binary reads this machine's clock")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
