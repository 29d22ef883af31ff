//! What edges tell of what tenants use.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::TenantId;

use super::{Bench, LONG, SHORT};
use crate::{Lease, Registry, StateStore, Usage};

impl<S: Registry + StateStore> Bench<S> {
    /// An edge tells of clients of tenants.
    async fn tell(&self, lease: &Lease, clients: &[(&str, u64)], ttl: Duration) {
        let told: BTreeMap<TenantId, Usage> = clients
            .iter()
            .map(|(tenant, count)| (self.tenant(tenant), Usage { client_sessions: *count, ..Usage::default() }))
            .collect();
        self.one.tell_usage(lease, &told, ttl).await.expect("an answer");
    }

    /// The clients of a tenant at each edge.
    async fn clients(&self, tenant: &str) -> Vec<u64> {
        let told = self.two.usage(&self.tenant(tenant)).await.expect("an answer");
        let mut clients: Vec<_> = told.iter().map(|usage| usage.client_sessions).collect();
        clients.sort_unstable();
        clients
    }
}

/// What each edge told last, and only of the tenant that is asked for.
pub async fn what_edges_tell_of_a_tenant_is_given<S: Registry + StateStore>(bench: &Bench<S>) {
    let leases = [bench.held("one").await, bench.held("two").await];
    assert_eq!(bench.clients("t").await, [0; 0]);
    bench.tell(&leases[0], &[("t", 3), ("u", 5)], LONG).await;
    bench.tell(&leases[1], &[("t", 4)], LONG).await;
    assert_eq!((bench.clients("t").await, bench.clients("u").await), (vec![3, 4], vec![5]));
    bench.tell(&leases[0], &[("t", 1)], LONG).await;
    assert_eq!((bench.clients("t").await, bench.clients("u").await), (vec![1, 4], vec![]));
}

/// "For `ttl`": what an edge told that is gone is not counted for ever.
pub async fn what_an_edge_told_is_forgotten<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    bench.tell(&lease, &[("t", 3)], SHORT).await;
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(bench.clients("t").await, [0; 0]);
}
