//! Connections that were pushed to under a lock, and are flushed when it is gone.

use std::sync::Arc;

use super::Conn;

/// Connections that were pushed to, each once. They are flushed when this is dropped, also by a panic: let it be after the lock
/// under which they were pushed to.
///
/// A connection is marked and not looked for in a set: to tell ten thousand of something costs ten thousand entries less. Who
/// finds it marked by somebody else leaves the flush to them, which then comes after both pushed.
#[derive(Default)]
pub(crate) struct Pushed(Vec<Arc<Conn>>);

impl Pushed {
    /// Adds a connection, after it was pushed to.
    pub(crate) fn to(&mut self, conn: &Arc<Conn>) {
        if conn.mark_pushed() {
            self.0.push(conn.clone());
        }
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        for conn in self.0.drain(..) {
            conn.flush_pushed();
        }
    }
}
