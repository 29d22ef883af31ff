//! What edges tell of what tenants use.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::TenantId;
use riser_core::tenant::KeyHash;

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

/// The last word counts, a forgotten key is gone, and another tenant's uses are its own.
pub async fn uses_of_keys_are_noted_by_tenant_and_erased_with_it<S: Registry + StateStore>(bench: &Bench<S>) {
    let [t, u] = ["t", "u"].map(|tenant| bench.tenant(tenant));
    let [plain, keyed] = [KeyHash::Sha256([1; 32]), KeyHash::HmacSha256([1; 32])];
    let note = async |tenant: &TenantId, uses: &[(KeyHash, Option<u64>)]| {
        let uses = uses.iter().copied().collect();
        bench.one.note_key_uses(tenant, &uses).await.expect("an answer");
    };
    let noted = async |tenant: &TenantId| {
        let uses = bench.two.key_uses(tenant).await.expect("an answer");
        uses.into_iter().collect::<Vec<_>>()
    };
    note(&t, &[]).await;
    assert_eq!(noted(&t).await, []);
    note(&t, &[(plain, Some(5)), (keyed, Some(7))]).await;
    note(&u, &[(plain, Some(9))]).await;
    note(&t, &[(plain, Some(6))]).await;
    assert_eq!(noted(&t).await, [(plain, 6), (keyed, 7)]);
    note(&t, &[(plain, None)]).await;
    assert_eq!(noted(&t).await, [(keyed, 7)]);
    bench.one.erase(&t).await.expect("an answer");
    assert_eq!((noted(&t).await, noted(&u).await), (vec![], vec![(plain, 9)]));
}
