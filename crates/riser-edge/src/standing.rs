//! Ends the sessions that a new tenant table does not allow any more.

use std::sync::Arc;
use std::time::Duration;

use riser_core::{TenantId, TenantTable};
use tokio::time::sleep;

use crate::auth::Standing;
use crate::session::{OpenHandle, revoke};
use crate::shared::Shared;

/// How many sessions are ended before others run.
const AT_ONCE: usize = 256;
/// Between two such batches: who was sent away comes back to something that is not a storm, and 16 000 sessions still end
/// within the 5 s that are promised.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at the sessions of the tenants that have changed whenever the table does, as long as the edge lives.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut tenants = shared.ports.tenants.clone();
    // All sessions are looked at once, since nobody knows which table they began with.
    let mut before = Arc::<TenantTable>::default();
    while tenants.changed().await.is_ok() {
        let table = tenants.borrow_and_update().clone();
        shared.key_uses.forget(&table);
        shared.meters.refresh(&table);
        let standing = Standing::of(&table);
        let same = |of: &TenantId| match (before.get(of), table.get(of)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let over: Vec<_> = {
            let sessions = shared.sessions.lock();
            let open = sessions.values().filter_map(|session| Some((&session.conn, session.open.as_ref()?)));
            let open = open.filter(|(_, open)| !same(&open.identity.tenant));
            let lapse = |open: &OpenHandle| standing.lapse(&open.identity, open.proof.as_ref());
            open.filter_map(|(conn, open)| Some((conn.clone(), lapse(open)?))).collect()
        };
        if !over.is_empty() {
            tracing::info!(sessions = over.len(), "ending sessions that the tenant table no longer allows");
        }
        // Closing calls back into the session, which takes the lock.
        for (batch, some) in over.chunks(AT_ONCE).enumerate() {
            if batch > 0 {
                sleep(PAUSE).await;
            }
            for (conn, lapse) in some {
                revoke(&shared, conn, *lapse);
            }
            tokio::task::yield_now().await;
        }
        before = table;
    }
}
