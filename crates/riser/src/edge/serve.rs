//! The life of an edge's process: all that can be refused before a port is bound, serving, and the drain.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus::Registry;
use riser_bus::nats::NatsClient;
use riser_edge::{Edge, Metrics, Ports, ServerTls};
use riser_ops::admin::text;
use riser_ops::{Admin, Signals};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config::Settings;
use super::log::{Standing, WatchedLog};
use super::reload::{Followed, Source as _, Trouble};
use super::sources::{Certificate, Tenants};
use super::{connect, metrics};
use crate::bind::bind;
use crate::edge::config::{TenantsFrom, TlsFiles};
use crate::exit::{self, Failure};

/// How long what is left of an edge that ended may take.
const LEFTOVERS_WAIT: Duration = Duration::from_millis(100);

/// Runs an edge until it is drained.
pub(super) fn run(settings: Settings) -> Result<ExitCode, Failure> {
    let (format, level) = &settings.log;
    riser_ops::logs::init(level, *format).map_err(|error| Failure::Other(error.into()))?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(LEFTOVERS_WAIT);
    done
}

async fn serve(settings: Settings) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = start(settings) => started?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let Running { state, nats, grace, tasks: _tasks } = started;
    tokio::select! {
        asked = signals.next() => tracing::info!(?asked, "draining"),
        () = state.asked.notified() => tracing::info!("draining, because the admin port was asked to"),
    }
    tokio::select! {
        biased;
        _ = signals.next() => Ok(ExitCode::from(exit::INTERRUPTED)),
        drained = timeout(grace, drain(&state, &nats)) => match drained {
            Ok(()) => {
                tracing::info!("drained");
                Ok(ExitCode::SUCCESS)
            }
            Err(_) => Err(Failure::Other(anyhow::anyhow!("the drain took longer than edge.grace, and was cut off"))),
        },
    }
}

/// A started edge. Its tasks end with it.
struct Running {
    state: Arc<State>,
    nats: NatsClient,
    grace: Duration,
    tasks: JoinSet<()>,
}

/// What the admin port asks.
struct State {
    /// Gone once it drains.
    edge: Mutex<Option<Edge>>,
    draining: AtomicBool,
    /// Woken when the admin port is asked to drain.
    asked: Notify,
    /// What there is to say beside being ready.
    notes: Vec<(&'static str, Trouble)>,
    log: Arc<Standing>,
}

impl State {
    fn readiness(&self) -> Result<String, String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".into());
        }
        let edge = self.edge.lock();
        let ready = edge.as_ref().map_or_else(|| Err("the edge is starting".into()), Edge::readiness);
        let notes = self.notes.iter().map(|(name, trouble)| trouble.note(name));
        ready.map(|()| notes.chain([self.log.note()]).collect())
    }
}

async fn start(settings: Settings) -> Result<Running, Failure> {
    let registry = Registry::new();
    let registered = |error: prometheus::Error| Failure::Other(error.into());
    let outcomes = metrics::reloads(&registry).map_err(registered)?;
    let file = match &settings.tenants {
        TenantsFrom::File(file) => Some(Followed::open(Tenants(file.clone()), &outcomes)?),
        TenantsFrom::Bucket => None,
    };
    let tls = settings.tls.clone().map(|files| Followed::open(files, &outcomes)).transpose()?;
    let nats = connect::nats(&settings.nats).await?;
    let registry_of = connect::registry(&settings).await?;
    let (public, admin) = (bind(settings.listen)?, bind(settings.admin)?);
    let (listen, admin_listen) = (public.local_addr()?, admin.local_addr()?);

    let commands = connect::commands(&nats, &registry_of, &settings)?;
    connect::count(&registry, &nats, &registry_of, &commands).map_err(registered)?;
    let log = Standing::new(&registry).map_err(registered)?;
    let mut notes = vec![];
    let mut tasks = JoinSet::new();
    let (tenants, keep) = if let Some(file) = file {
        notes.push((Tenants::NAME, file.trouble()));
        let tenants = file.value();
        tasks.spawn(file.follow());
        (tenants, None)
    } else {
        let (bucket, keep) = connect::tenants(&nats, &settings, &registry).await?;
        let tenants = bucket.table();
        tasks.spawn(bucket.follow());
        (tenants, Some(keep))
    };
    let watched = WatchedLog::new(nats.log(settings.events.clone()).of_tenants(tenants.clone()), log.clone());
    tasks.spawn(watched.clone().keep_asking(tenants.clone()));
    let ports = Ports { keep, ..connect::ports(&nats, registry_of, watched, &commands, tenants) };
    let certificate = tls.map(|tls| {
        notes.push((TlsFiles::NAME, tls.trouble()));
        let (sender, receiver) = watch::channel(tls.value().borrow().tls.clone());
        tasks.spawn(pass_on(tls.value(), sender));
        tasks.spawn(tls.follow());
        receiver
    });
    let edge = edge(&settings, ports, public, certificate, &registry);
    let state = Arc::new(State {
        edge: Mutex::new(Some(edge)),
        draining: AtomicBool::new(false),
        asked: Notify::new(),
        notes,
        log,
    });
    tasks.spawn(pages(&state, registry).serve(admin, std::future::pending()));
    tracing::info!(edge = %settings.edge.id, %listen, admin = %admin_listen, tls = settings.tls.is_some(), "serving");
    Ok(Running { state, nats, grace: settings.grace, tasks })
}

fn edge(
    settings: &Settings,
    ports: Ports,
    listener: TcpListener,
    tls: Option<watch::Receiver<ServerTls>>,
    registry: &Registry,
) -> Edge {
    let (config, metrics) = (settings.edge.clone(), Metrics::new(registry));
    match tls {
        Some(tls) => Edge::start_tls(config, ports, listener, tls, metrics),
        None => Edge::start(config, ports, listener, metrics),
    }
}

/// Gives each new certificate to the listener.
async fn pass_on(mut from: watch::Receiver<Arc<Certificate>>, to: watch::Sender<ServerTls>) {
    while from.changed().await.is_ok() {
        to.send_replace(from.borrow_and_update().tls.clone());
    }
}

fn pages(state: &Arc<State>, registry: Registry) -> Admin {
    let (ready, drained) = (state.clone(), state.clone());
    Admin::new(move || ready.readiness(), registry).post("/drain", move || {
        // Whoever asks twice means the same.
        drained.asked.notify_one();
        std::future::ready(text(StatusCode::ACCEPTED, "draining\n"))
    })
}

/// Ends the edge without losing anything.
async fn drain(state: &State, nats: &NatsClient) {
    state.draining.store(true, Ordering::Relaxed);
    let edge = state.edge.lock().take();
    if let Some(edge) = edge {
        edge.drain().await;
    }
    if !nats.flush().await {
        tracing::warn!("what was published last may not have left for NATS");
    }
}
