//! The owner of an edge's tasks: what is spawned here ends with the edge at the latest.

use std::future::Future;

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// How many finished tasks are collected whenever one is spawned: more than one, so that they never pile up.
const REAP: usize = 4;

#[derive(Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Runs a future until it ends or the edge does.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.0.lock();
        for _ in 0..REAP {
            if set.try_join_next().is_none() {
                break;
            }
        }
        set.spawn(future);
    }

    /// Ends all tasks where they stand.
    pub(crate) fn abort(&self) {
        self.0.lock().abort_all();
    }

    /// Ends all tasks where they stand, and waits until they are gone with all they held.
    pub(crate) async fn shutdown(&self) {
        let mut set = std::mem::take(&mut *self.0.lock());
        set.shutdown().await;
    }
}
