//! What an edge needs from outside: NATS for bus and log, Redis for the registry.

use std::sync::Arc;

use prometheus::Registry;
use riser_bus::Bus as _;
use riser_bus::nats::{NatsClient, NatsConfig, NatsError};
use riser_core::TenantTable;
use riser_edge::Ports;
use riser_registry::redis::{ConnectError, RedisRegistry};
use riser_tenants::{FollowMetrics, Followed, Store};
use tokio::sync::watch;

use super::config::Settings;
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

/// Puts an edge's ports together.
pub(super) fn ports(
    nats: &NatsClient,
    registry: RedisRegistry,
    settings: &Settings,
    tenants: watch::Receiver<Arc<TenantTable>>,
) -> Ports {
    let registry = Arc::new(registry);
    Ports {
        bus: Arc::new(nats.bus()),
        registry: registry.clone(),
        store: registry.clone(),
        commands: registry.clone(),
        streams: registry,
        log: Arc::new(nats.log(settings.events.clone())),
        tenants,
        keep: None,
    }
}

/// Shows what the connections count.
pub(super) fn count(metrics: &Registry, nats: &NatsClient, redis: &RedisRegistry) -> prometheus::Result<()> {
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
