//! What each tenant uses of this edge, against its share of what it may use of the cluster.
//!
//! A limit for the whole cluster is shared out evenly: each edge lets a tenant have limit / edges, rounded up, where the
//! number of edges is that of the leases in the registry, a few seconds old. So all edges together never let more through
//! than limit + edges − 1, and for as long as an edge that joined is not seen yet, limit × (1 + 1 / edges). A tenant whose
//! sessions are spread unevenly is refused at the fuller edge before it has reached its limit; who comes back may find
//! another one.
//!
//! Sessions and subscriptions are counted, and refused one by one. Rates work in two steps, because a socket must not be
//! left unread for long: first reading pauses, up to a second, which costs nobody anything; who is more than a second
//! ahead gets `rate_limited` for what can be sent again. State is never refused: it merges.
//!
//! Besides, and without any quota, tenants share the edge's [processor](fairness).

pub(crate) mod bucket;
pub(crate) mod fairness;
pub(crate) mod metrics;
pub(crate) mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use riser_core::tenant::quota::{QUOTAS, Sharing};
use riser_core::tenant::{Quota, Quotas, TenantTable};
use riser_core::{GatewayKey, Identity, Json, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::events;
use crate::events::audit::AUDITS_WAITING;
use crate::shared::Shared;
use bucket::Bucket;
use fairness::Turns;
use report::Counted;

/// The longest pause in reading. A socket is never left unread for longer, since heartbeats come through it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The shortest: what is owed for less is waited for together with what follows, so that a flood costs few wake-ups.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How long at least a session waits that found no place, and as much again at random.
const AGAIN: Duration = Duration::from_secs(15);
/// From which part of a limit on its use is near, in hundredths.
const NEAR: u64 = 80;
/// Between two events that tell so of the same quota.
const TELL_EVERY: Duration = Duration::from_secs(3_600);

/// What all tenants use. Bounded by the tenants of the table: who is gone from it is forgotten.
#[derive(Default)]
pub(crate) struct Meters {
    uses: Mutex<HashMap<TenantId, Arc<Use>>>,
    edges: AtomicUsize,
}

/// What one tenant uses.
pub(crate) struct Use {
    tenant: TenantId,
    /// This edge's share of each limit; 0 where there is none.
    shares: [AtomicU64; Quota::COUNT],
    gateways: AtomicU64,
    clients: AtomicU64,
    rates: Mutex<Rates>,
    turns: Turns,
    counted: Counted,
    told: Mutex<[Option<Instant>; Quota::COUNT]>,
    /// A place for each event of its audit that waits to be stored.
    audits: Arc<Semaphore>,
}

/// Made with the first use, so that a new limit begins with a full second.
#[derive(Default)]
struct Rates {
    frames: Option<Bucket>,
    bytes: Option<Bucket>,
    calls: Option<Bucket>,
}

/// One session's own buckets. Without memory until the tenant has such a quota.
#[derive(Default)]
pub(crate) struct Own(Option<Box<[Bucket; 2]>>);

/// A session that is counted, until this is dropped.
pub(crate) struct Seat {
    of: Arc<Use>,
    quota: Quota,
}

impl Seat {
    /// What all sessions of the tenant use.
    pub(crate) fn usage(&self) -> &Arc<Use> {
        &self.of
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.counter(self.quota).fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Charged {
    /// For how long nothing is to be read.
    pub(crate) pause: Duration,
    /// Until when what can be sent again is refused, and which quota says so.
    pub(crate) refuse: Option<(Instant, Quota)>,
}

/// Where a tenant stands with its calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    pub(crate) limit: u64,
    pub(crate) left: u64,
    /// When there will be another, if there is none now.
    pub(crate) wait: Option<Duration>,
}

impl Calls {
    /// In how many whole seconds there will be another call, at least.
    pub(crate) fn again_s(&self) -> u32 {
        u32::try_from(self.wait.unwrap_or_default().as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
    }

    /// `RateLimit` and `RateLimit-Policy`, as the draft of the IETF's HTTPAPI group has them: calls in a second.
    pub(crate) fn headers(&self) -> HeaderMap {
        let texts = [
            ("ratelimit-policy", format!("\"api\";q={};w=1", self.limit)),
            ("ratelimit", format!("\"api\";r={};t=1", self.left)),
        ];
        let header = |(name, text): (&'static str, String)| Some((HeaderName::from_static(name), text.parse().ok()?));
        texts.into_iter().filter_map(header).collect()
    }
}

impl Meters {
    /// What a tenant uses.
    fn of(&self, tenant: &TenantId, quotas: impl FnOnce() -> Quotas) -> Arc<Use> {
        let mut uses = self.uses.lock();
        if let Some(found) = uses.get(tenant) {
            return found.clone();
        }
        let new = Arc::new(Use {
            tenant: tenant.clone(),
            shares: std::array::from_fn(|_| AtomicU64::new(0)),
            gateways: AtomicU64::new(0),
            clients: AtomicU64::new(0),
            rates: Mutex::default(),
            turns: Turns::default(),
            counted: Counted::default(),
            told: Mutex::new([None; Quota::COUNT]),
            audits: Arc::new(Semaphore::new(AUDITS_WAITING)),
        });
        new.set(&quotas(), self.edges());
        uses.insert(tenant.clone(), new.clone());
        new
    }

    fn edges(&self) -> usize {
        self.edges.load(Ordering::Relaxed).max(1)
    }

    /// Notes how many edges there are.
    pub(crate) fn set_edges(&self, edges: usize, table: &TenantTable) {
        if self.edges.swap(edges, Ordering::Relaxed) != edges {
            self.refresh(table);
        }
    }

    /// Shares the limits out anew.
    pub(crate) fn refresh(&self, table: &TenantTable) {
        let mut uses = self.uses.lock();
        uses.retain(|id, _| table.get(id).is_some());
        for (id, of) in uses.iter() {
            of.set(&table.get(id).map_or(Quotas::NONE, |tenant| tenant.quotas), self.edges());
        }
    }
}

impl Use {
    fn set(&self, quotas: &Quotas, edges: usize) {
        for about in &QUOTAS {
            let limit = quotas.get(about.quota).unwrap_or(0);
            let share = if about.sharing == Sharing::Shared { limit.div_ceil(edges as u64) } else { limit };
            self.shares[about.quota as usize].store(share, Ordering::Relaxed);
        }
    }

    /// A place for an event of the audit for whose storing nobody waits; none when as many wait as may.
    pub(crate) fn audit_place(&self) -> Option<OwnedSemaphorePermit> {
        self.audits.clone().try_acquire_owned().ok()
    }

    /// This edge's share of a limit, if there is one.
    pub(crate) fn share(&self, quota: Quota) -> Option<u64> {
        Some(self.shares[quota as usize].load(Ordering::Relaxed)).filter(|share| *share > 0)
    }

    fn counter(&self, quota: Quota) -> &AtomicU64 {
        if quota == Quota::GatewaySessions { &self.gateways } else { &self.clients }
    }

    /// Counts a session, unless there are as many as may be. One that takes the place of another is always counted.
    fn seat(self: &Arc<Self>, quota: Quota, replaces: bool) -> Option<Seat> {
        let most = self.share(quota).filter(|_| !replaces).unwrap_or(u64::MAX);
        let more = |count: u64| (count < most).then(|| count + 1);
        self.counter(quota).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat { of: self.clone(), quota })
    }

    /// Counts what was read from a session.
    fn charge(&self, own: &mut Own, frames: u64, bytes: u64, now: Instant) -> Charged {
        let mut worst = (Duration::ZERO, Quota::FramesPerS);
        let mut owes = |bucket: &mut Bucket, rate: u64, amount: u64, quota: Quota| {
            worst = worst.max((bucket.charge(rate, now, amount), quota));
        };
        {
            let mut rates = self.rates.lock();
            if let Some(rate) = self.share(Quota::FramesPerS) {
                owes(rates.frames.get_or_insert_with(|| Bucket::full(rate, now)), rate, frames, Quota::FramesPerS);
            }
            if let Some(rate) = self.share(Quota::BytesPerS) {
                owes(rates.bytes.get_or_insert_with(|| Bucket::full(rate, now)), rate, bytes, Quota::BytesPerS);
            }
        }
        let [of_frames, of_bytes] = [self.share(Quota::SessionFramesPerS), self.share(Quota::SessionBytesPerS)];
        if of_frames.is_some() || of_bytes.is_some() {
            let full = |rate: Option<u64>| Bucket::full(rate.unwrap_or(0), now);
            let [own_frames, own_bytes] =
                &mut **own.0.get_or_insert_with(|| Box::new([full(of_frames), full(of_bytes)]));
            if let Some(rate) = of_frames {
                owes(own_frames, rate, frames, Quota::SessionFramesPerS);
            }
            if let Some(rate) = of_bytes {
                owes(own_bytes, rate, bytes, Quota::SessionBytesPerS);
            }
        }
        let (owed, quota) = worst;
        Charged {
            pause: if owed < PAUSE_MIN { Duration::ZERO } else { owed.min(PAUSE_MAX) },
            refuse: (owed > PAUSE_MAX).then_some((now + owed, quota)),
        }
    }

    /// Counts a call of the HTTP API; none when they are not limited.
    fn call(&self, now: Instant) -> Option<Calls> {
        let limit = self.share(Quota::ApiCallsPerS)?;
        let mut rates = self.rates.lock();
        let bucket = rates.calls.get_or_insert_with(|| Bucket::full(limit, now));
        let wait = bucket.take(limit, now).err();
        Some(Calls { limit, left: bucket.left(), wait })
    }

    /// How much of a quota is used now, if this edge counts it.
    fn used(&self, quota: Quota) -> Option<u64> {
        let limit = self.share(quota)?;
        let rates = self.rates.lock();
        let bucket = match quota {
            Quota::GatewaySessions | Quota::ClientSessions => {
                return Some(self.counter(quota).load(Ordering::Relaxed));
            }
            Quota::FramesPerS => rates.frames,
            Quota::BytesPerS => rates.bytes,
            Quota::ApiCallsPerS => rates.calls,
            _ => return None,
        };
        Some(limit.saturating_sub(bucket?.left()))
    }

    /// Whether so much is near the limit, and nobody was told for an hour. Then it counts as told.
    fn is_to_be_told(&self, quota: Quota, used: u64, now: Instant) -> bool {
        let near =
            self.share(quota).is_some_and(|limit| u128::from(used) * 100 >= u128::from(limit) * u128::from(NEAR));
        if !near {
            return false;
        }
        let told = &mut self.told.lock()[quota as usize];
        let due = told.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if due {
            *told = Some(now);
        }
        due
    }
}

impl Shared {
    /// What a tenant uses of this edge.
    pub(crate) fn usage(&self, tenant: &TenantId) -> Arc<Use> {
        self.meters.of(tenant, || self.with_tenant(tenant, |tenant| tenant.quotas).unwrap_or_default())
    }

    /// Counts a session; none when the tenant has as many of its kind as it may.
    pub(crate) fn seat(self: &Arc<Self>, identity: &Identity) -> Option<Seat> {
        let of = self.usage(&identity.tenant);
        // A gateway whose link broke comes back before the old session is found dead, and ends it.
        let replaces = identity.address().is_some_and(|address| {
            let key = GatewayKey { tenant: identity.tenant.clone(), address: address.clone() };
            self.gateways.lock().held.contains_key(&key)
        });
        let quota = if identity.address().is_some() { Quota::GatewaySessions } else { Quota::ClientSessions };
        let seat = of.seat(quota, replaces);
        if seat.is_none() {
            self.metrics.quotas.refused(&identity.tenant, quota);
        }
        self.look_at_use(&of, &[quota]);
        seat
    }

    /// When a session that found no place may try again: not at once, since places become free by sessions that end.
    pub(crate) fn after_quota(&self) -> Duration {
        AGAIN + self.jitter(AGAIN)
    }

    /// Counts what was read from a session.
    pub(crate) fn charge(self: &Arc<Self>, of: &Arc<Use>, own: &mut Own, frames: u32, bytes: usize) -> Charged {
        of.counted.read(u64::from(frames), bytes as u64);
        let charged = self.charge_rates(of, own, frames, bytes);
        Charged { pause: charged.pause.max(self.throttled(of)), ..charged }
    }

    /// For how long nothing more is to be read of a tenant that takes more of the processor than there is for it.
    pub(crate) fn throttled(&self, of: &Use) -> Duration {
        let pause = of.turns.pause(Instant::now());
        if !pause.is_zero() {
            self.metrics.quotas.throttled(&of.tenant);
        }
        pause
    }

    fn charge_rates(self: &Arc<Self>, of: &Arc<Use>, own: &mut Own, frames: u32, bytes: usize) -> Charged {
        const RATES: [Quota; 4] =
            [Quota::FramesPerS, Quota::BytesPerS, Quota::SessionFramesPerS, Quota::SessionBytesPerS];
        if RATES.iter().all(|&rate| of.share(rate).is_none()) {
            return Charged::default();
        }
        let charged = of.charge(own, u64::from(frames), bytes as u64, Instant::now());
        self.look_at_use(of, &[Quota::FramesPerS, Quota::BytesPerS]);
        charged
    }

    /// Counts something that a quota refused.
    pub(crate) fn quota_refused(&self, of: &Use, quota: Quota) {
        self.metrics.quotas.refused(&of.tenant, quota);
    }

    /// Counts a call of the HTTP API; none when the tenant's are not limited.
    pub(crate) fn api_call(self: &Arc<Self>, tenant: &TenantId) -> Option<Calls> {
        let of = self.usage(tenant);
        let calls = of.call(Instant::now())?;
        if calls.wait.is_some() {
            self.metrics.quotas.refused(tenant, Quota::ApiCallsPerS);
        }
        self.look_at_use(&of, &[Quota::ApiCallsPerS]);
        Some(calls)
    }

    /// Tells the tenant of what it has nearly used up.
    fn look_at_use(self: &Arc<Self>, of: &Arc<Use>, quotas: &[Quota]) {
        for &quota in quotas {
            let Some(used) = of.used(quota) else { continue };
            self.note_use(of, quota, used);
        }
    }

    /// The same of a use that is counted elsewhere.
    pub(crate) fn note_use(self: &Arc<Self>, of: &Use, quota: Quota, used: u64) {
        if !of.is_to_be_told(quota, used, Instant::now()) {
            return;
        }
        self.metrics.quotas.near(&of.tenant, quota);
        let (Some(limit), Ok(address), Ok(kind)) = (of.share(quota), "_/_".parse(), "quota".parse()) else { return };
        let id = format!("quota-{}-{}-{}", quota.name(), self.config.id, self.clock.now_ms());
        let Ok(id) = id.parse() else { return };
        let data = serde_json::json!({
            "quota": quota.name(),
            "used": used,
            "share": limit,
            "edge": self.config.id,
        });
        let key = GatewayKey { tenant: of.tenant.clone(), address };
        let event = events::of_broker(&key, id, kind, Json::of(&data));
        let shared = self.clone();
        self.tasks.spawn(async move {
            // The counter says it in any case.
            let _ = events::store(&shared, &key.tenant, event, Instant::now()).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use riser_core::Tenant;

    use super::*;

    fn acme() -> TenantId {
        "acme".parse().expect("a tenant")
    }

    fn table(quotas: Quotas) -> TenantTable {
        TenantTable::from_iter([(acme(), Tenant { quotas, ..Tenant::default() })])
    }

    fn used(quotas: Quotas) -> (Meters, Arc<Use>) {
        let meters = Meters::default();
        let of = meters.of(&acme(), || quotas);
        (meters, of)
    }

    #[test]
    fn what_the_cluster_may_have_is_shared_out_and_what_a_session_may_have_is_not() {
        let quotas = Quotas::NONE.with(Quota::ClientSessions, 10).with(Quota::SessionFramesPerS, 10);
        let (meters, of) = used(quotas);
        for (edges, share) in [(0, 10), (1, 10), (3, 4), (20, 1)] {
            meters.set_edges(edges, &table(quotas));
            assert_eq!(of.share(Quota::ClientSessions), Some(share), "{edges}");
            assert_eq!(of.share(Quota::SessionFramesPerS), Some(10));
            // The bound that is promised.
            let edges = edges.max(1) as u64;
            assert!(share * edges < 10 + edges);
        }
        assert_eq!(of.share(Quota::GatewaySessions), None);
        meters.refresh(&table(Quotas::NONE));
        assert_eq!(of.share(Quota::ClientSessions), None);
        meters.refresh(&TenantTable::default());
        assert!(meters.uses.lock().is_empty());
    }

    #[test]
    fn as_many_sessions_are_let_in_as_leave_room_for_them() {
        let (_meters, of) = used(Quotas::NONE.with(Quota::ClientSessions, 2));
        let [first, second] = [of.seat(Quota::ClientSessions, false), of.seat(Quota::ClientSessions, false)];
        assert!(first.is_some() && second.is_some() && of.seat(Quota::ClientSessions, false).is_none());
        assert!(of.seat(Quota::GatewaySessions, false).is_some(), "another kind");
        assert!(of.seat(Quota::ClientSessions, true).is_some(), "one that takes another's place");
        drop(first);
        assert!(of.seat(Quota::ClientSessions, false).is_some());
    }

    #[test]
    fn who_is_ahead_pauses_and_who_is_far_ahead_is_refused() {
        let quotas = Quotas::NONE.with(Quota::FramesPerS, 1_000).with(Quota::SessionFramesPerS, 100);
        let (_meters, of) = used(quotas);
        let (now, mut own) = (Instant::now(), Own::default());
        let at = |of: &Use, own: &mut Own, frames: u64| of.charge(own, frames, 0, now);
        assert_eq!(at(&of, &mut own, 100), Charged::default());
        assert_eq!(at(&of, &mut own, 5).pause, Duration::ZERO, "too little to wake up for");
        assert_eq!(at(&of, &mut own, 45), Charged { pause: Duration::from_millis(500), refuse: None });
        let far = at(&of, &mut own, 100);
        assert_eq!(far.pause, PAUSE_MAX);
        assert_eq!(far.refuse, Some((now + Duration::from_millis(1_500), Quota::SessionFramesPerS)));
        // Another session of the tenant has what the first one left.
        let mut other = Own::default();
        assert_eq!(at(&of, &mut other, 100), Charged::default());
        let mut many: Vec<Own> = (0..30).map(|_| Own::default()).collect();
        let last = many.iter_mut().map(|own| at(&of, own, 100)).last().expect("one");
        assert_eq!(last.refuse, Some((now + Duration::from_millis(2_350), Quota::FramesPerS)));
    }

    #[test]
    fn what_is_nearly_used_up_is_told_once_an_hour() {
        let (_meters, of) = used(Quotas::NONE.with(Quota::ClientSessions, 10));
        let now = Instant::now();
        assert!(!of.is_to_be_told(Quota::ClientSessions, 7, now));
        assert!(of.is_to_be_told(Quota::ClientSessions, 8, now));
        assert!(!of.is_to_be_told(Quota::ClientSessions, 10, now + TELL_EVERY / 2));
        assert!(of.is_to_be_told(Quota::ClientSessions, 10, now + TELL_EVERY));
        assert!(!of.is_to_be_told(Quota::GatewaySessions, 1_000, now), "without a limit nothing is near");
    }
}
