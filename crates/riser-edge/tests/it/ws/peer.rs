//! A connection under test: a handler that records, and a transport that can be stopped.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use riser_edge::ws::{Conn, End, Handler, Serve, Settings, WriteHalf, frame, serve};
use tokio::io::{AsyncWrite, DuplexStream, ReadHalf, split};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a handler saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Drained,
    Paced,
    Ended(End),
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) seen: Vec<Seen>,
    /// When each text came.
    pub(crate) at: Vec<Instant>,
    pub(crate) frames: u32,
    /// What `drained` is to push, one after the other.
    pub(crate) owed: Vec<&'static str>,
}

impl Log {
    pub(crate) fn count(&self, what: &Seen) -> usize {
        self.seen.iter().filter(|seen| *seen == what).count()
    }
}

/// Records everything. The texts `echo …`, `pause`, `close` and `panic` have it do so.
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Log>>);

impl Handler for Recorder {
    fn text(&mut self, conn: &Arc<Conn>, text: &str) {
        {
            let mut log = self.0.lock();
            log.seen.push(Seen::Text(text.into()));
            log.at.push(Instant::now());
        }
        match text.split_once(' ') {
            Some(("echo", rest)) => {
                conn.push(frame::text(rest));
            }
            _ if text == "pause" => conn.pause(),
            _ if text == "close" => {
                conn.close(4003, "asked");
            }
            _ => assert_ne!(text, "panic", "as the peer wanted"),
        }
    }

    fn binary(&mut self, _: &Arc<Conn>, data: &[u8]) {
        self.0.lock().seen.push(Seen::Binary(data.into()));
    }

    fn drained(&mut self, conn: &Arc<Conn>) -> bool {
        let owed = {
            let mut log = self.0.lock();
            log.seen.push(Seen::Drained);
            log.owed.pop()
        };
        owed.is_some_and(|owed| conn.push(frame::text(owed)))
    }

    fn received(&mut self, _: &Arc<Conn>, _: usize, frames: u32) -> Duration {
        self.0.lock().frames += frames;
        Duration::ZERO
    }

    fn paced(&mut self, _: &Arc<Conn>) {
        self.0.lock().seen.push(Seen::Paced);
    }

    fn ended(&mut self, _: &Arc<Conn>, end: End) {
        self.0.lock().seen.push(Seen::Ended(end));
    }
}

/// A connection that runs over a pipe.
pub(crate) struct Piped {
    pub(crate) client: DuplexStream,
    pub(crate) conn: Arc<Conn>,
    pub(crate) log: Arc<Mutex<Log>>,
    tasks: JoinSet<End>,
}

impl Piped {
    /// The pipe holds `bytes` in each direction.
    pub(crate) fn new(bytes: usize, settings: Settings, head: &[u8]) -> Self {
        let (client, server) = tokio::io::duplex(bytes);
        let (read, write) = split(server);
        let conn = Conn::new(write, Arc::new(settings));
        let log = Arc::default();
        let mut tasks = JoinSet::new();
        let head = head.to_vec().into();
        tasks.spawn(serve(conn.clone(), read, &head, Recorder(Arc::clone(&log))));
        Self { client, conn, log, tasks }
    }

    /// Waits for the end of the connection's task.
    pub(crate) async fn end(&mut self) -> End {
        self.ended().await.expect("the task panicked")
    }

    pub(crate) async fn ended(&mut self) -> Result<End, tokio::task::JoinError> {
        self.tasks.join_next().await.expect("it has ended before")
    }
}

/// A writer that records each write, and takes nothing while it is shut.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Mutex<Written>>);

pub(crate) struct Written {
    pub(crate) writes: Vec<Vec<u8>>,
    pub(crate) attempts: usize,
    /// How many bytes are still taken.
    room: usize,
    vectored: bool,
    waker: Option<Waker>,
    pub(crate) fails_with: Option<io::ErrorKind>,
    pub(crate) flushes: usize,
    /// What was called at the end, in order.
    pub(crate) end: Vec<&'static str>,
}

impl Gate {
    pub(crate) fn new(vectored: bool) -> Self {
        Self(Arc::new(Mutex::new(Written {
            writes: Vec::new(),
            attempts: 0,
            room: usize::MAX,
            vectored,
            waker: None,
            fails_with: None,
            flushes: 0,
            end: Vec::new(),
        })))
    }

    /// From now on takes `room` bytes.
    pub(crate) fn open(&self, room: usize) {
        let mut written = self.0.lock();
        written.room = room;
        if let Some(waker) = written.waker.take() {
            waker.wake();
        }
    }

    /// The writes since the last call, as text.
    pub(crate) fn take(&self) -> Vec<String> {
        let writes = std::mem::take(&mut self.0.lock().writes);
        writes.iter().map(|bytes| bytes.escape_ascii().to_string()).collect()
    }
}

pub(crate) struct GateHalf(Gate);

impl GateHalf {
    fn take(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut written = self.0.0.lock();
        written.attempts += 1;
        if let Some(kind) = written.fails_with {
            return Poll::Ready(if kind == io::ErrorKind::WriteZero { Ok(0) } else { Err(kind.into()) });
        }
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(written.room);
        if bytes.is_empty() {
            written.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        written.room -= bytes.len();
        let count = bytes.len();
        written.writes.push(bytes);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for GateHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.0.lock().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.0.lock().flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl WriteHalf for GateHalf {
    fn abandon(&mut self) {
        self.0.0.lock().end.push("abandoned");
    }

    fn settle(&mut self) {
        self.0.0.lock().end.push("settled");
    }
}

impl Drop for GateHalf {
    fn drop(&mut self) {
        self.0.0.lock().end.push("dropped");
    }
}

/// A connection that reads from a pipe, writes to a gate, and is polled by the test.
pub(crate) struct Gated {
    pub(crate) client: DuplexStream,
    pub(crate) gate: Gate,
    pub(crate) conn: Arc<Conn>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) task: by_hand::Task<Serve<Recorder>>,
}

impl Gated {
    pub(crate) fn new(settings: Settings, vectored: bool) -> Self {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (read, _): (ReadHalf<_>, _) = split(server);
        let gate = Gate::new(vectored);
        let conn = Conn::new(GateHalf(gate.clone()), Arc::new(settings));
        let log = Arc::default();
        let session = serve(conn.clone(), read, &bytes::Bytes::new(), Recorder(Arc::clone(&log)));
        let mut task = by_hand::Task::new(session);
        assert!(task.poll().is_pending());
        Self { client, gate, conn, log, task }
    }
}

/// Polls a future by hand and tells whether it was woken.
pub(crate) mod by_hand {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    pub(crate) struct Task<F> {
        future: F,
        woken: Arc<Flag>,
    }

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl<F: Future + Unpin> Task<F> {
        pub(crate) fn new(future: F) -> Self {
            Self { future, woken: Arc::default() }
        }

        pub(crate) fn poll(&mut self) -> Poll<F::Output> {
            self.woken.0.store(false, Ordering::SeqCst);
            let waker = Waker::from(self.woken.clone());
            Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
        }

        /// Polls for as long as it is woken. Bounded, so that a spin is a failure and not a hang.
        pub(crate) fn run(&mut self) -> Poll<F::Output> {
            for _ in 0..100_000 {
                let polled = self.poll();
                if polled.is_ready() || !self.is_woken() {
                    return polled;
                }
            }
            panic!("it does not come to rest");
        }

        pub(crate) fn is_woken(&self) -> bool {
            self.woken.0.load(Ordering::SeqCst)
        }
    }
}
