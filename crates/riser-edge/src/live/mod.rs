//! Live streams: what is said now or never, from one socket to many, past every store.
//!
//! A session that speaks has a [`speaker::Speaker`], and each of its open streams a [`line::Line`], whose task alone tells
//! the others of it. Whoever hears is in the tenant's [`room::Room`]: sessions that subscribe to the live lane, and the
//! gateways of this edge at whose address somebody speaks. Nobody is handed a frame of a stream of which it was not told
//! that it is open. What the bus lost of `opened` and `closed` is made good by [`keeper`], which compares with the store.

pub(crate) mod ear;
mod keeper;
pub(crate) mod line;
pub(crate) mod metrics;
mod rate;
pub(crate) mod room;
pub(crate) mod speaker;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use riser_bus::{Delivery, Filter};
use riser_core::live::StreamId;
use riser_core::{GatewayKey, TenantId};
use riser_registry::Holder;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::gateway::Gateway;
use crate::shared::Shared;
use crate::ws::Conn;
use line::Line;
use metrics::Dropped;
use room::{Room, Side};

/// How often an opener's edge tells the store that a stream is open, and a listener's edge asks which are.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);
/// Messages that wait for one watched pattern, or for the gateways of this edge: a fifth of a second of a hundred
/// streams. Older ones are of no use, so what overflows is lost and counted, and nobody looks for it.
const INBOX: usize = 1_024;
/// Messages taken from an inbox at once, so that a burst is written to each connection once.
const BATCH: usize = 64;
/// Streams that are not open here, or not yet, and whose openers are known all the same. It is a matter of seconds.
const OPENERS: usize = 256;
/// How soon the subscription at boot is tried again when the bus does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What an edge knows of live streams.
#[derive(Default)]
pub(crate) struct LiveStreams {
    rooms: Mutex<IndexMap<TenantId, Arc<Room>>>,
    /// The streams whose openers are here. Each session has a few at most.
    lines: Mutex<BTreeMap<(TenantId, StreamId), Arc<Line>>>,
    /// Who asked for the newest streams, and opened those that were over last: the store may tell of a stream before its
    /// opener knows, and the bus carries it a little longer than it lasts. Neither must bring it back to its speaker.
    openers: Mutex<VecDeque<(TenantId, StreamId, Weak<Conn>)>>,
}

impl LiveStreams {
    /// The room of a tenant, made when somebody first hears something.
    pub(crate) fn room(&self, shared: &Arc<Shared>, tenant: &TenantId) -> Arc<Room> {
        self.rooms.lock().entry(tenant.clone()).or_insert_with(|| Room::start(shared, tenant.clone())).clone()
    }

    fn add(&self, line: &Arc<Line>) {
        self.lines.lock().insert((line.key.tenant.clone(), line.stream.id), line.clone());
    }

    fn remove(&self, line: &Line) {
        self.note(&line.key.tenant, line.stream.id, &line.conn);
        self.lines.lock().remove(&(line.key.tenant.clone(), line.stream.id));
    }

    /// A session that holds the gateway of an address is to be told of the streams that were opened here, and to get their
    /// frames.
    pub(crate) fn gateway_came(&self, key: &GatewayKey, holder: &Holder) {
        for line in self.lines.lock().values().filter(|line| line.key == *key) {
            line.gateway_came(holder);
        }
    }

    /// Notes whose stream it is, before the store knows it and when it is over.
    fn note(&self, tenant: &TenantId, stream: StreamId, opener: &Arc<Conn>) {
        let mut openers = self.openers.lock();
        if openers.len() >= OPENERS {
            openers.pop_front();
        }
        openers.push_back((tenant.clone(), stream, Arc::downgrade(opener)));
    }

    /// How many streams were opened here and are not over.
    pub(crate) fn open(&self) -> usize {
        self.lines.lock().len()
    }

    /// Whether this connection opened the stream, and so does not hear itself.
    fn opened_by(&self, tenant: &TenantId, stream: StreamId, conn: &Arc<Conn>) -> bool {
        if let Some(line) = self.lines.lock().get(&(tenant.clone(), stream)) {
            return Arc::ptr_eq(&line.conn, conn);
        }
        let openers = self.openers.lock();
        let opened = openers.iter().rev().find(|(of, id, _)| *id == stream && of == tenant);
        opened.is_some_and(|(_, _, opener)| std::ptr::eq(opener.as_ptr(), Arc::as_ptr(conn)))
    }

    /// Whether the opener of a stream is told what all are told of it.
    fn hears(&self, line: &Line) -> bool {
        let room = self.rooms.lock().get(&line.key.tenant).cloned();
        room.is_some_and(|room| room.hears(line.stream.id, &line.conn))
    }

    /// Has all rooms compare what they know with the store: messages may be missing.
    pub(crate) fn look_again(&self) {
        for room in self.rooms.lock().values() {
            room.look_again();
        }
    }
}

/// A gateway came at whose address streams are open.
pub(crate) fn gateway_came(shared: &Arc<Shared>, gateway: &Arc<Gateway>) {
    shared.live.room(shared, &gateway.key.tenant).gateway_came(gateway);
}

/// Hears what is said at the addresses of this edge's gateways, for as long as the edge lives.
pub(crate) async fn hear(shared: Arc<Shared>) {
    let (inbox, mut receiver, lost) = riser_bus::lossy_inbox(INBOX);
    let filter = Filter::EdgeLive(shared.config.id.clone());
    let _subscription = loop {
        match shared.ports.bus.subscribe(&filter, &inbox).await {
            Ok(subscription) => break subscription,
            Err(_) => sleep(RETRY).await,
        }
    };
    let mut batch = Vec::with_capacity(BATCH);
    while take(&shared, &mut receiver, &mut batch, &lost).await {
        let mut by_tenant: IndexMap<TenantId, Vec<Delivery>> = IndexMap::new();
        for delivery in batch.drain(..) {
            if let riser_bus::Subject::EdgeLive(_, key) = &delivery.subject {
                by_tenant.entry(key.tenant.clone()).or_default().push(delivery);
            }
        }
        for (tenant, deliveries) in by_tenant {
            shared.live.room(&shared, &tenant).take(&shared, Side::Gateways, deliveries);
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what waits in an inbox; false when nothing will come any more.
async fn take(
    shared: &Shared,
    receiver: &mut mpsc::Receiver<Delivery>,
    batch: &mut Vec<Delivery>,
    lost: &AtomicU64,
) -> bool {
    let count = receiver.recv_many(batch, BATCH).await;
    shared.metrics.live.dropped(Dropped::SlowEdge, lost.swap(0, Ordering::Relaxed));
    count > 0
}
