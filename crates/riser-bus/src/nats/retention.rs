//! How much is kept of a tenant's events: what the cluster's settings or the tenant's own say, whichever is less.
//!
//! A stream is made so, and follows with its tenant's next event. So that events that are to be gone do not wait for one, every
//! process that knows the tenants has the streams of those follow whose retention changed while it ran.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use riser_core::tenant::Retention;
use riser_core::{TenantId, TenantTable};
use tokio::sync::watch;
use tokio::time::sleep;

use super::LogConfig;
use super::jetstream::{JetStream, Trouble};
use super::log::trim;

/// Between two tries to have streams follow that could not.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// All tenants, now and later.
pub(super) type Tables = watch::Receiver<Arc<TenantTable>>;

/// The settings of one tenant's stream.
pub(super) fn settings(config: &LogConfig, own: Retention) -> LogConfig {
    let age = own.age_ms.map_or(Duration::MAX, Duration::from_millis);
    LogConfig {
        max_age: config.max_age.min(age),
        max_bytes: config.max_bytes.min(own.bytes.unwrap_or(u64::MAX)),
        ..config.clone()
    }
}

/// Has streams follow their tenants, until nobody tells of tenants any more.
pub(super) async fn keep(jetstream: JetStream, config: Arc<LogConfig>, mut tables: Tables) {
    let mut known = tables.borrow_and_update().clone();
    let mut due = BTreeSet::new();
    loop {
        let again = async { if due.is_empty() { std::future::pending().await } else { sleep(TRY_EVERY).await } };
        tokio::select! {
            told = tables.changed() => if told.is_err() {
                return;
            },
            () = again => {}
        }
        let table = tables.borrow_and_update().clone();
        due.extend(changed(&known, &table));
        known = table;
        let mut left = BTreeSet::new();
        for tenant in due {
            // Who is gone from the table is erased by whoever deleted it.
            let Some(own) = known.get(&tenant).map(|tenant| tenant.retention) else { continue };
            if follow(&jetstream, &tenant, &settings(&config, own)).await.is_err() {
                left.insert(tenant);
            }
        }
        due = left;
    }
}

/// Tenants of whose events something else is to be kept than before.
fn changed(before: &TenantTable, now: &TenantTable) -> Vec<TenantId> {
    let of = |table: &TenantTable, id: &TenantId| table.get(id).map(|tenant| tenant.retention).unwrap_or_default();
    now.iter().map(|(id, _)| id).filter(|id| of(before, id) != of(now, id)).cloned().collect()
}

/// Has a stream follow, if there is one.
async fn follow(jetstream: &JetStream, tenant: &TenantId, settings: &LogConfig) -> Result<(), Trouble> {
    let Some(stream) = jetstream.stream(tenant).await? else { return Ok(()) };
    let window = stream.window;
    let stream = jetstream.follow(tenant, stream, settings, window).await?;
    if stream.bytes > settings.max_bytes {
        trim(jetstream, tenant, settings.max_bytes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use riser_core::Tenant;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_tenant_has_less_kept_than_the_cluster_has_and_never_more() {
        let config = LogConfig { max_age: Duration::from_secs(86_400), max_bytes: 64 << 20, ..LogConfig::default() };
        let of = |age_ms: Option<u64>, bytes: Option<u64>| {
            let LogConfig { max_age, max_bytes, max_events, replicas } = settings(&config, Retention { age_ms, bytes });
            assert_eq!((max_events, replicas), (config.max_events, config.replicas));
            (max_age, max_bytes)
        };
        assert_eq!(of(None, None), (config.max_age, config.max_bytes));
        assert_eq!(of(Some(HOUR_MS), Some(1 << 20)), (Duration::from_millis(HOUR_MS), 1 << 20));
        assert_eq!(of(Some(48 * HOUR_MS), Some(1 << 30)), (config.max_age, config.max_bytes));
    }

    #[test]
    fn streams_follow_of_tenants_whose_retention_changed_and_of_no_others() {
        let tenant = |age_ms: Option<u64>| Tenant { retention: Retention { age_ms, bytes: None }, ..Tenant::default() };
        let table = |tenants: &[(&str, Option<u64>)]| -> TenantTable {
            tenants.iter().map(|(id, age_ms)| (id.parse().expect("a tenant"), tenant(*age_ms))).collect()
        };
        let before =
            table(&[("gone", Some(HOUR_MS)), ("longer", Some(HOUR_MS)), ("none", Some(HOUR_MS)), ("same", None)]);
        let now =
            table(&[("longer", Some(2 * HOUR_MS)), ("new", None), ("none", None), ("own", Some(1)), ("same", None)]);
        let names: Vec<_> = changed(&before, &now).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["longer", "none", "own"]);
    }
}
