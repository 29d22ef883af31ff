//! Connections that were pushed to under a lock, and are flushed when it is gone.

use std::sync::Arc;

use super::Conn;
use super::conn::{PUSHED, PUSHED_LIVE};

/// Connections that were pushed to, each once. They are flushed when this is dropped, also by a panic: let it be after the lock
/// under which they were pushed to.
///
/// A connection is marked and not looked for in a set: to tell ten thousand of something costs ten thousand entries less. Who
/// finds it marked by somebody else leaves the flush to them, which then comes after both pushed.
pub(crate) struct Pushed {
    mark: u8,
    marked: Vec<Marked>,
}

/// A connection that is to be flushed.
struct Marked {
    conn: Arc<Conn>,
    mark: u8,
}

impl Pushed {
    /// For messages.
    pub(crate) fn messages() -> Self {
        Self { mark: PUSHED, marked: Vec::new() }
    }

    /// For live frames, which have a mark of their own: they must not wait until all are told of something else.
    pub(crate) fn live() -> Self {
        Self { mark: PUSHED_LIVE, marked: Vec::new() }
    }

    /// Adds a connection, after it was pushed to.
    pub(crate) fn to(&mut self, conn: &Arc<Conn>) {
        if conn.mark(self.mark) {
            self.marked.push(Marked { conn: conn.clone(), mark: self.mark });
        }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.conn.flush_marked(self.mark);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::super::Settings;
    use super::*;

    /// What has arrived until now.
    fn arrived(far: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = [0; 64];
        let read = far.read(&mut bytes).now_or_never().map_or(0, |read| read.expect("read"));
        bytes[..read].to_vec()
    }

    #[tokio::test]
    async fn one_flush_writes_what_two_pushed_and_live_frames_wait_for_no_messages() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let (_read, write) = tokio::io::split(near);
        let conn = Conn::new(write, Arc::new(Settings::default()));
        let (mut first, mut second) = (Pushed::messages(), Pushed::messages());
        conn.push(Bytes::from_static(b"a"));
        first.to(&conn);
        conn.push(Bytes::from_static(b"b"));
        second.to(&conn);
        first.to(&conn);
        drop(second);
        assert!(arrived(&mut far).is_empty(), "the first one flushes");
        drop(first);
        assert_eq!(arrived(&mut far), b"ab");
        // What comes later is marked anew, and a live frame by itself.
        let (mut messages, mut live) = (Pushed::messages(), Pushed::live());
        conn.push(Bytes::from_static(b"c"));
        messages.to(&conn);
        conn.push_live(1, Bytes::from_static(b"d"));
        live.to(&conn);
        drop(live);
        assert_eq!(arrived(&mut far), b"cd");
        drop(messages);
        let mut again = Pushed::messages();
        conn.push(Bytes::from_static(b"e"));
        again.to(&conn);
        drop(again);
        assert_eq!(arrived(&mut far), b"e");
    }
}
