//! Ends the sessions that a new tenant table does not allow any more.

use std::sync::Arc;

use crate::auth::Standing;
use crate::session::revoke;
use crate::shared::Shared;

/// How many sessions are ended before others run.
const AT_ONCE: usize = 256;

/// Looks at all sessions whenever the table changes, as long as the edge lives.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut tenants = shared.ports.tenants.clone();
    while tenants.changed().await.is_ok() {
        let table = tenants.borrow_and_update().clone();
        shared.key_uses.forget(&table);
        let standing = Standing::of(&table);
        let over: Vec<_> = {
            let sessions = shared.sessions.lock();
            let open = sessions.values().filter_map(|session| Some((&session.conn, session.open.as_ref()?)));
            open.filter_map(|(conn, open)| Some((conn.clone(), standing.lapse(&open.identity, open.proof.as_ref())?)))
                .collect()
        };
        if !over.is_empty() {
            tracing::info!(sessions = over.len(), "ending sessions that the tenant table no longer allows");
        }
        // Closing calls back into the session, which takes the lock.
        for some in over.chunks(AT_ONCE) {
            for (conn, lapse) in some {
                revoke(&shared, conn, *lapse);
            }
            tokio::task::yield_now().await;
        }
    }
}
