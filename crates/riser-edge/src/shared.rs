//! What all parts of one edge share: its settings, its ports, its clock, and who is connected.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use parking_lot::Mutex;
use riser_bus::log::Log;
use riser_bus::{Bus, Subject};
use riser_core::frame::Credential;
use riser_core::live::StreamId;
use riser_core::{Epoch, GatewayKey, Identity, Reason, Snapshot, Tenant, TenantId, TenantTable};
use riser_registry::{CommandStore, Lease, Registry, RegistryError, StateStore, StreamStore};
use riser_tenants::Store;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::admission::{Door, Turnstile};
use crate::auth::{self, AuthError, KeyUses, Lockout, Proof, Seen};
use crate::clock::Clock;
use crate::commands::keeper;
use crate::commands::waiters::Waiters;
use crate::config::EdgeConfig;
use crate::echo::Echo;
use crate::events::feed::Feed;
use crate::forwarded;
use crate::gateway::Gateway;
use crate::http::busy::Busy as BusyAnswers;
use crate::hub::Hub;
use crate::hub::names::Silence;
use crate::live::LiveStreams;
use crate::metrics::Metrics;
use crate::presence::LeaseState;
use crate::quota::Meters;
use crate::session::SessionHandle;
use crate::tasks::Tasks;
use crate::token_ends::TokenEnds;
use crate::ws::{self, Settings};

/// Bytes that may wait for one connection. A snapshot of a gateway that uses all its limits, with every path escaped and
/// named as stale, fits in beside what waits already.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// How long a hint may wait for the bus. Handing a message over takes microseconds while the bus is there.
const HINT: Duration = Duration::from_millis(100);
/// HTTP calls that wait for commands' outcomes: each keeps a connection for as long as its deadline.
const WAITS: usize = 1_024;
/// Of these, the calls of one tenant.
const TENANT_WAITS: usize = 256;

/// What an edge needs from outside. Each port has an in-memory twin.
#[derive(Clone)]
pub struct Ports {
    /// Routed frames.
    pub bus: Arc<dyn Bus>,
    /// Epochs, leases, presence.
    pub registry: Arc<dyn Registry>,
    /// Last values.
    pub store: Arc<dyn StateStore>,
    /// Records of commands.
    pub commands: Arc<dyn CommandStore>,
    /// Open live streams.
    pub streams: Arc<dyn StreamStore>,
    /// Stored events.
    pub log: Arc<dyn Log>,
    /// Who may connect.
    pub tenants: watch::Receiver<Arc<TenantTable>>,
    /// Where the tenants are kept, when they come from a bucket: gateways that leave are revoked there. None when they come
    /// from a file, which nobody here writes.
    pub keep: Option<Store>,
}

pub(crate) struct Shared {
    pub(crate) config: EdgeConfig,
    pub(crate) ports: Ports,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) lease: Mutex<LeaseState>,
    pub(crate) sessions: Mutex<IndexMap<u64, SessionHandle>>,
    pub(crate) gateways: Mutex<Gateways>,
    /// Who wants to know what becomes of which command.
    pub(crate) waiters: Waiters,
    /// Who speaks and who hears.
    pub(crate) live: LiveStreams,
    /// Woken when something ends, for who waits until nobody is left.
    pub(crate) someone_left: Notify,
    /// Whether messages of this edge come back to it.
    pub(crate) echo: Echo,
    /// Places for connections whose session has not begun.
    pub(crate) door: Arc<Door>,
    /// Gateways that wait to be fenced.
    pub(crate) turnstile: Arc<Turnstile>,
    /// What a connection beyond the bounds is told.
    pub(crate) answers: BusyAnswers,
    /// Places for HTTP calls that wait for a command's outcome, in all and by tenant.
    waits: (Arc<Semaphore>, Mutex<HashMap<TenantId, Arc<Semaphore>>>),
    /// Tasks that do what a session asked for, and should be let finish when the edge drains.
    busy: AtomicUsize,
    pub(crate) draining: AtomicBool,
    /// Set when the edge ends without a goodbye: then nothing that ends with it may be told to anybody.
    pub(crate) killed: AtomicBool,
    /// False while this edge's sessions are being registered again after the registry lost its lease.
    registered: AtomicBool,
    registered_again: Notify,
    /// Where wrong API keys come from.
    lockout: Lockout,
    /// Where wrong enrolment codes come from. Apart from keys: who mistypes codes in a house must not stop its back end.
    wrong_codes: Lockout,
    /// When API keys were used last.
    pub(crate) key_uses: KeyUses,
    /// When gateways' tokens end, to be noted with their flats.
    pub(crate) token_ends: TokenEnds,
    /// Whether calls over HTTP go without names.
    pub(crate) names_silence: Silence,
    /// What tenants use of this edge.
    pub(crate) meters: Meters,
    settings: Mutex<Vec<Arc<Settings>>>,
    hubs: Mutex<IndexMap<TenantId, Arc<Hub>>>,
    feeds: Mutex<IndexMap<TenantId, Arc<Feed>>>,
    /// Bytes that pages of stored events take, of all tenants.
    pub(crate) event_pages: Arc<AtomicUsize>,
    rng: Mutex<fastrand::Rng>,
    next: AtomicU64,
}

/// The gateways of this edge.
#[derive(Default)]
pub(crate) struct Gateways {
    /// The newest session of each.
    pub(crate) held: IndexMap<GatewayKey, Arc<Gateway>>,
    /// Sessions that are being fenced, by gateway, how many and the newest of them: what the registry shows of them is
    /// not yet known here.
    pub(crate) opening: HashMap<GatewayKey, (usize, u64)>,
    /// How many ends are under way: what waits for the store, the registry's answer, and those who watch.
    pub(crate) closing: usize,
    /// Ended sessions of which the registry could not be told yet. One per gateway: a newer one makes an older moot.
    pub(crate) ending: IndexMap<GatewayKey, (Epoch, Reason)>,
}

/// Held by a task that a drain should let finish.
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.someone_left.notify_waiters();
    }
}

impl Shared {
    pub(crate) fn new(config: EdgeConfig, ports: Ports, metrics: Arc<Metrics>) -> Arc<Self> {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let lease = Lease { edge: config.id.clone(), start: rng.u64(1..) };
        Arc::new(Self {
            clock: Clock::new(),
            tasks: Tasks::default(),
            lease: Mutex::new(LeaseState::new(lease)),
            sessions: Mutex::default(),
            gateways: Mutex::default(),
            waiters: Waiters::default(),
            live: LiveStreams::default(),
            someone_left: Notify::new(),
            echo: Echo::default(),
            door: Door::new(config.handshakes, config.handshakes_each),
            turnstile: Turnstile::new(config.openings, config.handshakes),
            answers: BusyAnswers::new(),
            waits: (Arc::new(Semaphore::new(WAITS)), Mutex::default()),
            busy: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            registered_again: Notify::new(),
            lockout: Lockout::default(),
            wrong_codes: Lockout::default(),
            key_uses: KeyUses::default(),
            token_ends: TokenEnds::default(),
            names_silence: Silence::default(),
            meters: Meters::default(),
            settings: Mutex::default(),
            hubs: Mutex::default(),
            feeds: Mutex::default(),
            event_pages: Arc::default(),
            rng: Mutex::new(rng),
            next: AtomicU64::new(1),
            config,
            ports,
            metrics,
        })
    }

    /// A call of the registry or the store, answered in time or not at all.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let answer = timeout(self.config.call, call).await.unwrap_or(Err(RegistryError::Unavailable));
        self.metrics.registry_up.set(i64::from(answer.is_ok()));
        if answer.is_err() {
            self.metrics.store_failures.inc();
        }
        answer
    }

    /// Everything the store knows of a gateway.
    pub(crate) async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError> {
        self.call(self.ports.store.read(key)).await
    }

    /// Hands a message to the bus. What is lost is repaired from the store.
    /// False when it did not take it in time.
    pub(crate) async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> bool {
        self.publish_within(self.config.call, subject, payload).await
    }

    /// The same with little patience: who waits for the bus here keeps others waiting, and a hint that is lost costs only
    /// time.
    pub(crate) async fn hint(&self, subject: &Subject, payload: Vec<u8>) {
        self.publish_within(HINT, subject, payload).await;
    }

    async fn publish_within(&self, time: Duration, subject: &Subject, payload: Vec<u8>) -> bool {
        let published = timeout(time, self.ports.bus.publish(subject, Bytes::from(payload))).await;
        let published = matches!(published, Ok(Ok(())));
        if !published {
            self.metrics.publish_failures.inc();
        }
        published
    }

    /// Whom a credential proves that came from this address.
    pub(crate) fn verify(&self, credential: &Credential, from: Option<IpAddr>) -> Result<(Identity, Proof), AuthError> {
        let now_ms = self.clock.now_ms();
        let guesser = from.filter(|from| self.is_one(*from));
        if auth::is_api_key_like(credential) && guesser.is_some_and(|from| self.lockout.holds(from)) {
            return Err(AuthError::LockedOut);
        }
        let seen = Seen { now_ms, from, hash_key: self.config.hash_key.as_ref() };
        let verified = auth::verify_with_proof(&self.table(), credential, &seen);
        match (&verified, guesser) {
            (Ok((identity, proof)), _) => {
                if let Some(hash) = proof.api_key() {
                    self.key_uses.note(&identity.tenant, hash, now_ms);
                }
            }
            (Err(AuthError::UnknownApiKey), Some(from)) => {
                if self.lockout.count(from) {
                    tracing::warn!(%from, "too many wrong API keys: further ones from this address are not looked at");
                }
            }
            (Err(_), _) => {}
        }
        verified
    }

    /// Whether an address is one site's: behind a proxy that does not say for whom it asks stand many.
    fn is_one(&self, from: IpAddr) -> bool {
        !forwarded::is_trusted(from, &self.config.trusted_proxies)
    }

    /// Whether codes from this address are not even looked at.
    pub(crate) fn is_locked_out_of_enrolment(&self, from: IpAddr) -> bool {
        self.is_one(from) && self.wrong_codes.holds(from)
    }

    /// Counts a wrong code.
    pub(crate) fn count_wrong_code(&self, from: IpAddr) {
        if self.is_one(from) && self.wrong_codes.count(from) {
            tracing::warn!(%from, "too many wrong codes: further ones from this address are not looked at");
        }
    }

    /// The tenants as they are now.
    pub(crate) fn table(&self) -> Arc<TenantTable> {
        self.ports.tenants.borrow().clone()
    }

    /// A tenant as it is now.
    pub(crate) fn with_tenant<T>(&self, id: &TenantId, then: impl FnOnce(&Tenant) -> T) -> Option<T> {
        self.ports.tenants.borrow().get(id).map(|tenant| then(tenant))
    }

    /// The hub of a tenant, made when its first listener comes.
    pub(crate) fn hub(self: &Arc<Self>, tenant: &TenantId) -> Arc<Hub> {
        let mut hubs = self.hubs.lock();
        hubs.entry(tenant.clone()).or_insert_with(|| Hub::start(self, tenant.clone())).clone()
    }

    /// The hub of a tenant, if anybody ever listened.
    pub(crate) fn known_hub(&self, tenant: &TenantId) -> Option<Arc<Hub>> {
        self.hubs.lock().get(tenant).cloned()
    }

    /// The events of a tenant.
    pub(crate) fn feed(&self, tenant: &TenantId) -> Arc<Feed> {
        self.feeds.lock().entry(tenant.clone()).or_insert_with(|| Feed::new(self, tenant.clone())).clone()
    }

    /// The settings of a connection before its tenant is known, shared by all that have the same.
    pub(crate) fn settings(&self, limits: ws::Limits) -> Arc<Settings> {
        let mut known = self.settings.lock();
        if let Some(settings) = known.iter().find(|s| s.limits == limits) {
            return settings.clone();
        }
        let settings = Arc::new(Settings { limits, max_queue_bytes: QUEUE_BYTES, ..Settings::default() });
        known.push(settings.clone());
        settings
    }

    /// A place for an HTTP call of a tenant that waits for a command's outcome; none when too many do.
    pub(crate) fn wait_place(&self, tenant: &TenantId) -> Option<[OwnedSemaphorePermit; 2]> {
        let (all, tenants) = &self.waits;
        let new = || Arc::new(Semaphore::new(TENANT_WAITS));
        let own = tenants.lock().entry(tenant.clone()).or_insert_with(new).clone();
        Some([own.try_acquire_owned().ok()?, all.clone().try_acquire_owned().ok()?])
    }

    /// A number that no other session of this edge has.
    pub(crate) fn next_session(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Any number.
    pub(crate) fn any(&self) -> usize {
        self.rng.lock().usize(..)
    }

    /// Anything from zero to `most`, so that many who wait do not come at once.
    pub(crate) fn jitter(&self, most: Duration) -> Duration {
        most.mul_f64(self.rng.lock().f64())
    }

    /// A number that no other life of this edge has.
    pub(crate) fn next_start(&self) -> u64 {
        self.rng.lock().u64(1..)
    }

    /// A key for a command that came without one, which nobody else uses.
    pub(crate) fn next_key(&self) -> String {
        format!("{}-{:032x}", self.config.id, self.rng.lock().u128(..))
    }

    /// A number for a stream that probably no other has. 0 is none, so that a frame of zeros is nobody's.
    pub(crate) fn next_stream(&self) -> StreamId {
        StreamId(self.rng.lock().u32(1..))
    }

    /// Counts a task that a drain should let finish.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// How many such tasks there are.
    pub(crate) fn tasks_busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until what this edge holds is registered, so that no new session is fenced below an older one. Not for
    /// ever: the floor of an epoch protects a gateway that this edge knows in any case.
    pub(crate) async fn registered(&self) {
        let registered = async {
            loop {
                let again = self.registered_again.notified();
                if self.registered.load(Ordering::Relaxed) {
                    return;
                }
                again.await;
            }
        };
        let _ = timeout(self.config.call, registered).await;
    }

    /// Says whether what this edge holds is registered.
    pub(crate) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
        if registered {
            self.registered_again.notify_waiters();
        }
    }

    /// Has all hubs compare what they mirror with the store.
    pub(crate) fn look_again(&self) {
        for hub in self.hubs.lock().values() {
            hub.look_again();
        }
        keeper::look_again(self);
        self.live.look_again();
    }

    /// Which lease new sessions are registered under.
    pub(crate) fn lease(&self) -> Lease {
        self.lease.lock().lease.clone()
    }
}
