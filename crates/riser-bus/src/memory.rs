//! A bus inside one process: what `riser dev` and the simulation run on.
//!
//! Without faults a publisher puts its message straight into the inboxes of the subscriptions that match, and
//! nothing runs in between. Faults ([`Faults`], [`MemoryNet::cut`], [`MemoryNet::block`]) are drawn from a
//! seeded generator and timed by tokio's clock, so that the same seed under a paused clock loses, delays and
//! repeats the same messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use riser_core::EdgeId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Bus, BusError, Delivery, Filter, Health, Inbox, Subject, Subscription};

mod faults;
mod flight;
mod routes;

pub use faults::{FaultCounts, Faults};
pub use flight::IN_FLIGHT;

use faults::FaultTable;
use flight::Flight;
use routes::{Routes, Sub};

/// The network of one cluster. Clones are the same network.
#[derive(Clone)]
pub struct MemoryNet(Arc<Net>);

/// One edge's connection to a [`MemoryNet`]. Clones are the same connection.
#[derive(Clone)]
pub struct MemoryBus {
    net: MemoryNet,
    client: Arc<Client>,
}

struct Net {
    shared: Arc<Shared>,
    /// Lands delayed messages. It starts with the first of them, so that a network without faults has no task.
    pump: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// Tells the pump that a message took off, which may be due before what it waits for.
    took_off: Notify,
}

struct State {
    rng: Rng,
    /// Numbers clients and subscriptions.
    next: u64,
    routes: Routes,
    clients: BTreeMap<EdgeId, Vec<Weak<Client>>>,
    cut: BTreeSet<EdgeId>,
    faults: FaultTable,
    flight: Flight,
    counts: FaultCounts,
}

struct Client {
    id: u64,
    edge: EdgeId,
    cut: AtomicBool,
    health: watch::Sender<Health>,
}

impl Default for MemoryNet {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNet {
    /// A network without clients or faults; what its faults draw starts from a fixed seed.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// A network whose faults draw from this seed.
    pub fn seeded(seed: u64) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            next: 0,
            routes: Routes::default(),
            clients: BTreeMap::new(),
            cut: BTreeSet::new(),
            faults: FaultTable::default(),
            flight: Flight::default(),
            counts: FaultCounts::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), took_off: Notify::new() });
        Self(Arc::new(Net { shared, pump: Mutex::new(None) }))
    }

    /// Connects an edge. An edge that starts again connects again: its new connection counts its own health and
    /// shares the faults that are set for its name.
    pub fn client(&self, edge: EdgeId) -> MemoryBus {
        let mut state = self.0.shared.state.lock();
        let cut = state.cut.contains(&edge);
        let health = watch::Sender::new(Health { connected: !cut, ..Health::default() });
        let client = Arc::new(Client { id: state.number(), edge: edge.clone(), cut: AtomicBool::new(cut), health });
        let of_edge = state.clients.entry(edge).or_default();
        of_edge.retain(|c| c.strong_count() > 0);
        of_edge.push(Arc::downgrade(&client));
        drop(state);
        MemoryBus { net: self.clone(), client }
    }

    /// Sets what happens to messages on every link that has no faults of its own.
    pub fn set_faults(&self, faults: Faults) {
        self.0.shared.state.lock().faults.set_all(faults);
    }

    /// Sets what happens to messages that `from` publishes and `to` subscribed to, whatever
    /// [`MemoryNet::set_faults`] says; the default faults are none.
    pub fn set_link_faults(&self, from: &EdgeId, to: &EdgeId, faults: Faults) {
        self.0.shared.state.lock().faults.set_link(from, to, faults);
    }

    /// Sets after how long a subscription takes effect, drawn for each subscription made from now on. This is what
    /// a cluster does whose servers tell each other of new subscriptions.
    pub fn set_interest_delay(&self, range: RangeInclusive<Duration>) {
        self.0.shared.state.lock().faults.set_interest(range);
    }

    /// Ends all faults of links, blocks included, and the delay of subscriptions. What is on its way still lands
    /// when it is due, and cut edges stay cut.
    pub fn clear_faults(&self) {
        self.0.shared.state.lock().faults = FaultTable::default();
    }

    /// Silently loses everything that `from` publishes and `to` subscribed to, what is on its way included.
    /// Neither is told.
    pub fn block(&self, from: &EdgeId, to: &EdgeId) {
        let state = &mut *self.0.shared.state.lock();
        state.faults.block(from, to);
        state.counts.dropped += state.flight.lose(|f| f.from == *from && f.to == *to);
    }

    /// Ends a [`MemoryNet::block`].
    pub fn unblock(&self, from: &EdgeId, to: &EdgeId) {
        self.0.shared.state.lock().faults.unblock(from, to);
    }

    /// Cuts an edge off: it is told, cannot publish or subscribe, and loses what is on its way to it. What it
    /// published before still arrives elsewhere. Its subscriptions stand again after [`MemoryNet::heal`].
    pub fn cut(&self, edge: &EdgeId) {
        let state = &mut *self.0.shared.state.lock();
        if !state.cut.insert(edge.clone()) {
            return;
        }
        state.counts.dropped += state.flight.lose(|f| f.to == *edge);
        for client in state.clients_of(edge) {
            client.cut.store(true, Ordering::Relaxed);
            client.health.send_modify(|h| h.connected = false);
        }
    }

    /// Ends a [`MemoryNet::cut`].
    pub fn heal(&self, edge: &EdgeId) {
        let state = &mut *self.0.shared.state.lock();
        if !state.cut.remove(edge) {
            return;
        }
        for client in state.clients_of(edge) {
            client.cut.store(false, Ordering::Relaxed);
            client.health.send_modify(|h| {
                h.connected = true;
                h.reconnects += 1;
            });
        }
    }

    /// How often each fault took effect, so that a test can tell that its faults happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.0.shared.state.lock().counts
    }

    /// How many subscriptions stand, over all clients.
    pub fn subscriptions(&self) -> usize {
        self.0.shared.state.lock().routes.len()
    }

    /// Wakes the pump for what took off, and starts it the first time.
    fn wake_pump(&self) {
        let mut pump = self.0.pump.lock();
        // A runtime that ended took its pump with it; the next message starts another one.
        if pump.as_ref().is_none_or(JoinHandle::is_finished) {
            #[expect(clippy::disallowed_methods, reason = "the network owns the task and aborts it when it is dropped")]
            let task = tokio::spawn(land_when_due(self.0.shared.clone()));
            *pump = Some(task);
        }
        self.0.shared.took_off.notify_one();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get_mut() {
            pump.abort();
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        let delivery = Delivery { subject: subject.clone(), payload };
        let took_off = self.net.0.shared.state.lock().publish(&self.client, &delivery)?;
        if took_off {
            self.net.wake_pump();
        }
        Ok(())
    }

    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        let shared = &self.net.0.shared;
        let id = shared.state.lock().subscribe(&self.client, filter, inbox)?;
        let (shared, filter) = (Arc::downgrade(shared), filter.clone());
        Ok(Subscription::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.state.lock().routes.remove(&filter, id);
            }
        }))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.client.health.subscribe()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn clients_of(&self, edge: &EdgeId) -> impl Iterator<Item = Arc<Client>> {
        self.clients.get(edge).into_iter().flatten().filter_map(Weak::upgrade)
    }

    /// Hands a message to all whom it is for; `true` when some of it is on its way for later.
    fn publish(&mut self, from: &Client, delivery: &Delivery) -> Result<bool, BusError> {
        if from.cut.load(Ordering::Relaxed) {
            return Err(BusError::Unavailable);
        }
        let calm = self.faults.is_calm() && self.flight.is_empty();
        let mut took_off = false;
        for sub in self.routes.matching(&delivery.subject) {
            if sub.owner.cut.load(Ordering::Relaxed) {
                continue;
            }
            if calm && sub.takes_effect.is_none() {
                sub.hand(delivery.clone());
            } else {
                let now = Instant::now();
                let fate = self.faults.fate(&from.edge, sub, now, &mut self.rng);
                took_off |= self.flight.send(from, sub, delivery, now, fate, &mut self.counts);
            }
        }
        Ok(took_off)
    }

    fn subscribe(&mut self, client: &Arc<Client>, filter: &Filter, inbox: &Inbox) -> Result<u64, BusError> {
        if client.cut.load(Ordering::Relaxed) {
            return Err(BusError::Unavailable);
        }
        let id = self.number();
        let takes_effect = self.faults.interest(&mut self.rng).map(|delay| Instant::now() + delay);
        self.routes.add(filter, Arc::new(Sub { id, owner: client.clone(), inbox: inbox.clone(), takes_effect }));
        Ok(id)
    }
}

/// Hands over what is on its way when it is due, for as long as the network lives.
async fn land_when_due(shared: Arc<Shared>) {
    loop {
        let next = shared.state.lock().flight.land(Instant::now());
        match next {
            // Whichever comes first, the loop looks again.
            Some(due) => drop(tokio::time::timeout_at(due, shared.took_off.notified()).await),
            None => shared.took_off.notified().await,
        }
    }
}
