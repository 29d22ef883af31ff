//! What an edge needs from outside: NATS for bus, log, ledger and copies of held commands, Redis for the registry.

use std::sync::Arc;

use prometheus::Registry;
use riser_bus::Bus as _;
use riser_bus::nats::{NatsClient, NatsConfig, NatsError, NatsLedger};
use riser_core::TenantTable;
use riser_edge::Ports;
use riser_registry::HeldCommands;
use riser_registry::redis::{ConnectError, RedisRegistry};
use riser_tenants::{FollowMetrics, Followed, Store};
use tokio::sync::watch;

use super::config::Settings;
use super::log::WatchedLog;
use super::metrics;
use crate::exit::Failure;

/// Connects to NATS.
pub(crate) async fn nats(config: &NatsConfig) -> Result<NatsClient, Failure> {
    NatsClient::connect(config).await.map_err(|error| {
        let bad = matches!(error, NatsError::Url(_));
        let text = format!("nats ({}): {:#}", config.urls.join(", "), anyhow::Error::new(error));
        if bad { Failure::Usage(text) } else { Failure::Unavailable(text) }
    })
}

/// Connects to Redis.
pub(crate) async fn registry(settings: &Settings) -> Result<RedisRegistry, Failure> {
    RedisRegistry::connect(settings.redis.clone()).await.map_err(|error| {
        let bad = matches!(error, ConnectError::Config(_));
        let text = format!("redis: {:#}", anyhow::Error::new(error));
        if bad { Failure::Usage(text) } else { Failure::Unavailable(text) }
    })
}

/// Reads the bucket of tenants for the first time.
pub(super) async fn tenants(
    nats: &NatsClient,
    settings: &Settings,
    metrics: &Registry,
) -> Result<(Followed, Store), Failure> {
    let kv = Arc::new(nats.kv(settings.kv.clone()));
    let counted = FollowMetrics::new(metrics).map_err(|error| Failure::Other(error.into()))?;
    let followed = Followed::open(kv.clone(), counted).await;
    let followed = followed.map_err(|error| Failure::Unavailable(format!("tenants: {error}")))?;
    Ok((followed, Store::new(kv)))
}

/// Where an edge's commands are recorded, and what became of them written down.
pub(super) struct Commands {
    pub(super) held: HeldCommands,
    pub(super) ledger: NatsLedger,
}

/// Puts the copies of held commands and the ledger before the registry's records.
pub(super) fn commands(nats: &NatsClient, registry: &RedisRegistry, settings: &Settings) -> Result<Commands, Failure> {
    let ledger = nats.ledger(settings.ledger.clone());
    let ledger = ledger.ok_or_else(|| Failure::Other(anyhow::anyhow!("the ledger's task cannot be started")))?;
    let (kv, writer) = (Arc::new(nats.kv(settings.kv.clone())), ledger.clone());
    let held = HeldCommands::new(Arc::new(registry.clone()), kv, Arc::new(move |key, record| writer.note(key, record)));
    Ok(Commands { held, ledger })
}

/// Puts an edge's ports together.
pub(super) fn ports(
    nats: &NatsClient,
    registry: RedisRegistry,
    log: WatchedLog,
    commands: &Commands,
    tenants: watch::Receiver<Arc<TenantTable>>,
) -> Ports {
    let registry = Arc::new(registry);
    Ports {
        bus: Arc::new(nats.bus()),
        registry: registry.clone(),
        store: registry.clone(),
        commands: Arc::new(commands.held.clone()),
        streams: registry,
        log: Arc::new(log),
        tenants,
        keep: None,
    }
}

/// Shows what the connections count.
pub(super) fn count(
    metrics: &Registry,
    nats: &NatsClient,
    redis: &RedisRegistry,
    commands: &Commands,
) -> prometheus::Result<()> {
    let of_commands = [
        ("riser_held_copies_total", "Copies of held commands' records that were written to JetStream."),
        ("riser_held_adopted_total", "Held commands that Redis had lost and was given back."),
        ("riser_held_failures_total", "Copies of held commands' records that JetStream did not give or take."),
        ("riser_held_bad_copies_total", "Copies of held commands' records that no edge wrote, and that were ignored."),
        ("riser_ledger_written_total", "Entries written to the ledger."),
        ("riser_ledger_lost_total", "Entries that the ledger lacks, because JetStream did not take them in time."),
    ];
    let (held, ledger) = (commands.held.clone(), commands.ledger.clone());
    metrics::copied(metrics, &of_commands, move || {
        let (c, (written, lost)) = (held.counts(), ledger.counts());
        vec![c.copies, c.adopted, c.failures, c.bad, written, lost]
    })?;
    let (client, health) = (nats.clone(), nats.bus().health());
    let of_nats = [
        ("riser_nats_ignored_total", "Messages on Riser's subjects and in its streams that no edge wrote."),
        ("riser_nats_reconnects_total", "Times that NATS was reached again after it could not be."),
    ];
    metrics::copied(metrics, &of_nats, move || vec![client.ignored(), health.borrow().reconnects])?;
    let of_redis = [
        ("riser_redis_calls_total", "Calls to Redis."),
        ("riser_redis_errors_total", "Calls to Redis that nobody answered, or that it refused."),
        ("riser_redis_bad_values_total", "Values in Redis that no edge wrote, and that were treated as missing."),
        ("riser_redis_script_errors_total", "Scripts in Redis that failed, each of which is a defect."),
        ("riser_redis_conflicts_total", "Steps of commands that were decided again because another came in between."),
        ("riser_redis_reconnects_total", "New connections to Redis after the first."),
    ];
    let redis = redis.clone();
    metrics::copied(metrics, &of_redis, move || {
        let c = redis.counts();
        vec![c.calls, c.errors, c.bad_values, c.script_errors, c.conflicts, c.reconnects]
    })
}
