//! An edge: its parts put together, and its life from start to drain or kill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use riser_bus::Filter;
use riser_core::frame::outbound;
use riser_core::{CloseCode, Identity};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::EdgeConfig;
use crate::metrics::Metrics;
use crate::quota::{fairness, report};
use crate::session::{Session, Upgrade};
use crate::shared::{Ports, Shared};
use crate::tls::ServerTls;
use crate::ws::{self, CLOSE_WAIT, Conn, WriteHalf, frame};
use crate::{commands, echo, heartbeat, http, live, presence, standing, token_ends};

/// Connections that the kernel keeps for an edge that is busy accepting: a burst of reconnects is not refused.
const BACKLOG: u32 = 4_096;
/// Messages to this edge that wait: each is a notice of some hundred bytes.
const INBOX: usize = 4_096;
/// The least time between two early looks because messages were lost.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How soon a subscription at boot is tried again when the bus does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Binds a listener with the backlog that a storm needs.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// One edge of the cluster. Dropping it is the same as [`Edge::kill`].
pub struct Edge {
    shared: Arc<Shared>,
}

impl Edge {
    /// Starts serving a listener. Must be called within a runtime.
    pub fn start(config: EdgeConfig, ports: Ports, listener: TcpListener, metrics: Arc<Metrics>) -> Self {
        let edge = Self::without_listener(config, ports, metrics);
        edge.shared.tasks.spawn(http::accept(edge.shared.clone(), listener, None));
        edge
    }

    /// The same over TLS. Each connection is served with the certificate that `tls` holds when it comes.
    pub fn start_tls(
        config: EdgeConfig,
        ports: Ports,
        listener: TcpListener,
        tls: watch::Receiver<ServerTls>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let edge = Self::without_listener(config, ports, metrics);
        edge.shared.tasks.spawn(http::accept(edge.shared.clone(), listener, Some(tls)));
        edge
    }

    /// Starts an edge that serves only what [`Edge::attach`] gives it: for simulations without sockets.
    pub fn without_listener(config: EdgeConfig, ports: Ports, metrics: Arc<Metrics>) -> Self {
        let shared = Shared::new(config, ports, metrics);
        shared.tasks.spawn(boot(shared.clone()));
        shared.tasks.spawn(presence::keep_lease(shared.clone()));
        shared.tasks.spawn(presence::keep_audit(shared.clone()));
        shared.tasks.spawn(presence::keep_sweeping(shared.clone()));
        shared.tasks.spawn(heartbeat::run(shared.clone()));
        shared.tasks.spawn(fairness::keep(shared.clone()));
        if let Some(every) = shared.config.usage {
            shared.tasks.spawn(report::keep(shared.clone(), every));
        }
        if let Some(store) = shared.ports.keep.clone() {
            shared.tasks.spawn(token_ends::keep(shared.clone(), store));
        }
        shared.tasks.spawn(live::hear(shared.clone()));
        shared.tasks.spawn(standing::keep(shared.clone()));
        shared.tasks.spawn(commands::keeper::keep_waiting(shared.clone()));
        shared.tasks.spawn(commands::keeper::keep_sweeping(shared.clone()));
        Self { shared }
    }

    /// Serves one connection whose WebSocket handshake is done. `identity` is what a header would have proved.
    pub fn attach<R, W>(&self, read: R, write: W, identity: Option<Identity>)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + WriteHalf + 'static,
    {
        attach(&self.shared, read, write, &Bytes::new(), Upgrade { identity, ..Upgrade::default() });
    }

    /// Why the edge should not be sent new connections; `Ok` when it should.
    pub fn readiness(&self) -> Result<(), String> {
        let shared = &self.shared;
        if shared.is_draining() {
            return Err("draining".into());
        }
        match shared.lease.lock().silent_for() {
            None => Err("the registry has not answered yet".into()),
            Some(silent) if silent >= shared.config.lease => {
                Err(format!("the registry has not answered for {} s", silent.as_secs()))
            }
            Some(_) => {
                let health = *shared.ports.bus.health().borrow();
                if !health.connected {
                    Err("the bus cannot be reached".into())
                } else if !shared.echo.is_heard_since(health.reconnects) {
                    Err("no message of this edge came back to it through the bus yet".into())
                } else {
                    Ok(())
                }
            }
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.sessions.lock().len()
    }

    /// Bytes that wait in connections' own queues.
    pub fn queued_bytes(&self) -> usize {
        self.shared.sessions.lock().values().map(|s| s.conn.queued_bytes()).sum()
    }

    /// Ends the edge without losing anything: tells every peer when it will be closed, closes them spread over the
    /// drain window, and leaves their gateways online while they move.
    pub async fn drain(self) {
        let shared = &self.shared;
        shared.draining.store(true, Ordering::Relaxed);
        let lease = shared.lease();
        let _ = shared.call(shared.ports.registry.drain(&lease, shared.config.moving())).await;
        self.close_all().await;
        let gone = async {
            loop {
                let left = shared.someone_left.notified();
                let sessions = shared.sessions.lock().len();
                // A session is gone before its end was told to everybody.
                let gateways = {
                    let gateways = shared.gateways.lock();
                    gateways.opening.len() + gateways.closing + gateways.ending.len()
                };
                // And what it asked for is done by tasks of their own.
                if sessions + gateways + shared.live.open() + shared.tasks_busy() == 0 {
                    return;
                }
                left.await;
            }
        };
        let _ = timeout(CLOSE_WAIT * 2, gone).await;
        let _ = timeout(CLOSE_WAIT, token_ends::finish(shared)).await;
        self.kill().await;
    }

    async fn close_all(&self) {
        let shared = &self.shared;
        let conns: Vec<Arc<Conn>> = shared.sessions.lock().values().map(|s| s.conn.clone()).collect();
        let started = Instant::now();
        let count = u32::try_from(conns.len().max(1)).unwrap_or(u32::MAX);
        let mut plan: Vec<(Duration, Arc<Conn>)> =
            conns.into_iter().map(|conn| (shared.jitter(shared.config.drain_window), conn)).collect();
        plan.sort_by_key(|(after, _)| *after);
        for (after, conn) in &plan {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            conn.send(frame::text(&outbound::goaway(after_ms, "drain")));
        }
        // A client that is told to come back comes back spread as the closes are, wherever it goes.
        let retry = shared.config.drain_window / count;
        for (after, conn) in plan {
            // Who heeds the notice leaves before, and need not be waited for.
            if conn.is_ending() {
                continue;
            }
            sleep_until(started + after).await;
            conn.close(CloseCode::Drain.number(), &format!("{{\"retry_after_ms\":{}}}", retry.as_millis()));
        }
    }

    /// Ends the edge where it stands, without a word to anybody: what a power cut would leave behind.
    pub async fn kill(self) {
        self.shared.killed.store(true, Ordering::Relaxed);
        self.shared.tasks.shutdown().await;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.killed.store(true, Ordering::Relaxed);
        self.shared.tasks.abort();
    }
}

/// Subscribes to what other edges say to this one, and takes it.
async fn boot(shared: Arc<Shared>) {
    let (inbox, receiver) = riser_bus::inbox(INBOX);
    let mut subscriptions = Vec::new();
    for filter in [Filter::Edge(shared.config.id.clone()), Filter::Edges] {
        loop {
            match shared.ports.bus.subscribe(&filter, &inbox).await {
                Ok(subscription) => {
                    subscriptions.push(subscription);
                    break;
                }
                Err(_) => sleep(RETRY).await,
            }
        }
    }
    let watched = watch_bus(shared.clone());
    let echoed = echo::keep_calling(shared.clone());
    let listened = presence::listen(shared, receiver);
    futures_util::future::join3(watched, echoed, listened).await;
    drop(subscriptions);
}

/// Shows the bus' health in the metrics, and has all hubs look again whenever messages may be missing. One task waits
/// for all of them, because a watch channel wakes many in an order that no seed decides.
async fn watch_bus(shared: Arc<Shared>) {
    let mut health = shared.ports.bus.health();
    let (mut connected, mut reconnects, mut overflowed) = (false, 0, 0);
    loop {
        let now = *health.borrow_and_update();
        let lost = now.overflowed > overflowed;
        if (now.connected && !connected) || now.reconnects > reconnects || lost {
            shared.look_again();
        }
        (connected, reconnects) = (now.connected, now.reconnects);
        shared.metrics.bus_up.set(i64::from(now.connected));
        shared.metrics.bus_overflowed.inc_by(now.overflowed.saturating_sub(overflowed));
        overflowed = now.overflowed;
        if lost {
            // A queue that overflows does so again and again: looking each time would add load to overload.
            sleep(LOOK_PAUSE).await;
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// Serves a connection in a task of its own.
pub(crate) fn attach<R, W>(shared: &Arc<Shared>, read: R, write: W, head: &Bytes, upgrade: Upgrade)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + WriteHalf + 'static,
{
    // The tenant is not known before `hello`, so that all connections have the limits that every tenant has.
    let limits = riser_core::limits::Limits::default();
    let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let settings =
        shared.settings(ws::Limits { text_bytes: bytes(limits.text_bytes), binary_bytes: bytes(limits.binary_bytes) });
    let conn = Conn::new(write, settings);
    let session = Session::new(shared.clone(), &conn, upgrade);
    shared.tasks.spawn(ws::serve(conn, read, head, session).map(drop));
}
