//! What flats are called, so that snapshots can say it: read of the buildings that are watched, beside everything else.
//!
//! A task of its own reads them, each building whole, so that a gateway that comes later is called by its name as well and a
//! thousand phones in one building cost one read. A name holds up nothing for long: a subscription waits a moment for those
//! that are not known, and not at all while nobody answers. What is not known is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use riser_core::{Address, BuildingId, GatewayId, Label, Pattern, TenantId};
use riser_tenants::flats::{Flat, Flats, FlatsError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Hub, Inner};
use crate::shared::Shared;

/// Buildings that one hub reads at once. Each is eight reads of the bucket.
const READS: usize = 4;
/// How long a subscription waits for names once all else is there, and an HTTP call for one: many times what a read takes, and
/// little enough that nobody notices it when JetStream does not answer.
pub(crate) const WAIT: Duration = Duration::from_millis(500);
/// Between two looks at what must be read anew. For as long nobody waits after names did not come in time.
const EVERY: Duration = Duration::from_secs(10);
/// From when on names are read anew: with the time until the next look and that of the reads they are no older than the 5
/// minutes that are promised.
const AGE: Duration = Duration::from_secs(240);
/// Buildings that are read anew for one look, those that were read longest ago first. So many that the promise holds for 1 500
/// buildings of a tenant that were read in one moment, and few enough that JetStream answers them beside its other work.
const ROUND: usize = 256;

/// The names in the buildings that a hub's listeners watch. Its lock may be taken under the hub's, and never the other way
/// round.
pub(super) struct Names {
    /// Whether there is a bucket to read them from.
    kept: bool,
    table: Mutex<Table>,
    /// Woken when something is wanted.
    work: Notify,
    /// Woken when a building was read, or nobody answered.
    told: Notify,
}

#[derive(Default)]
struct Table {
    known: BTreeMap<BuildingId, Known>,
    /// Buildings that are to be read.
    wanted: BTreeSet<BuildingId>,
    /// Buildings that are being read.
    reading: BTreeSet<BuildingId>,
    /// Whether nobody waits, because names did not come in time.
    silence: Silence,
}

/// For how long nobody waits for names that did not come in time.
#[derive(Default)]
pub(crate) struct Silence(Mutex<Began>);

#[derive(Default)]
struct Began {
    at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Silence {
    /// Whether it is so now.
    pub(crate) fn holds(&self) -> bool {
        self.0.lock().at.is_some_and(|at| at.elapsed() < EVERY)
    }

    /// Begins one. True when the log should be told: now and then.
    pub(crate) fn begin(&self) -> bool {
        let (mut began, now) = (self.0.lock(), Instant::now());
        began.at = Some(now);
        let warn = began.warned_at.is_none_or(|at| at + AGE <= now);
        if warn {
            began.warned_at = Some(now);
        }
        warn
    }
}

/// The names in one building.
struct Known {
    read_at: Instant,
    /// Only of flats that are called something.
    labels: BTreeMap<GatewayId, Arc<Label>>,
}

/// What a building's flats were read as.
type Read = Result<BTreeMap<GatewayId, Flat>, FlatsError>;

impl Names {
    /// No names yet, nor ever when they are not `kept` anywhere.
    pub(super) fn new(kept: bool) -> Self {
        Self { kept, table: Mutex::default(), work: Notify::new(), told: Notify::new() }
    }

    /// What a flat is called, as it was read last.
    pub(super) fn label(&self, of: &Address) -> Option<Arc<Label>> {
        self.table.lock().known.get(of.building())?.labels.get(of.gateway()).cloned()
    }

    /// Has these buildings read that were not lately.
    pub(super) fn want<'a>(&self, buildings: impl IntoIterator<Item = &'a BuildingId>) {
        if !self.kept {
            return;
        }
        let now = Instant::now();
        let mut table = self.table.lock();
        for building in buildings {
            if table.is_due(building, now) && !table.wanted.contains(building) {
                table.wanted.insert(building.clone());
            }
        }
        if !table.wanted.is_empty() {
            self.work.notify_one();
        }
    }

    /// Waits until the names of what a pattern names are known, a moment at the most.
    pub(super) async fn settled(&self, to: &Pattern, tenant: &TenantId) {
        let settled = async {
            loop {
                let told = self.told.notified();
                if !self.table.lock().is_awaited(to) {
                    return;
                }
                told.await;
            }
        };
        if timeout(WAIT, settled).await.is_err() {
            self.silence(tenant);
        }
    }

    /// Has nobody wait for a while.
    fn silence(&self, tenant: &TenantId) {
        let warn = self.table.lock().silence.begin();
        self.told.notify_waiters();
        if warn {
            tracing::warn!(%tenant, "the flats of watched buildings cannot be read in time; snapshots go without new names");
        }
    }

    /// A building to read next.
    fn next(&self) -> Option<BuildingId> {
        let mut table = self.table.lock();
        let building = table.wanted.pop_first()?;
        table.reading.insert(building.clone());
        Some(building)
    }

    /// Takes what a building was read as.
    fn take(&self, tenant: &TenantId, building: BuildingId, read: Read) {
        let mut table = self.table.lock();
        table.reading.remove(&building);
        match read {
            Ok(flats) => {
                let label = |(gateway, flat): (GatewayId, Flat)| Some((gateway, Arc::new(flat.into_label()?)));
                let labels = flats.into_iter().filter_map(label).collect();
                table.known.insert(building, Known { read_at: Instant::now(), labels });
            }
            // The bucket answered, and would answer the same at once.
            Err(FlatsError::Unreadable) => {
                tracing::warn!(%tenant, %building, "cannot read the flats of a building; snapshots go without their names");
                let labels = table.known.remove(&building).map(|known| known.labels).unwrap_or_default();
                table.known.insert(building, Known { read_at: Instant::now(), labels });
            }
            Err(_) => {
                drop(table);
                return self.silence(tenant);
            }
        }
        drop(table);
        self.told.notify_waiters();
    }

    /// Forgets what is not watched any more, and has read what was not read lately.
    fn look(&self, watched: &BTreeSet<BuildingId>) {
        let now = Instant::now();
        let mut table = self.table.lock();
        table.known.retain(|building, _| watched.contains(building));
        table.wanted.retain(|building| watched.contains(building));
        let mut due: Vec<_> = watched.iter().filter(|building| table.is_due(building, now)).collect();
        due.sort_by_key(|building| table.known.get(*building).map(|known| known.read_at));
        table.wanted.extend(due.into_iter().take(ROUND).cloned());
    }
}

impl Table {
    /// Whether a building should be read now.
    fn is_due(&self, building: &BuildingId, now: Instant) -> bool {
        let fresh = self.known.get(building).is_some_and(|known| now < known.read_at + AGE);
        !fresh && !self.reading.contains(building)
    }

    /// Whether it is worth waiting for what a pattern names.
    fn is_awaited(&self, to: &Pattern) -> bool {
        if self.silence.holds() {
            return false;
        }
        let is_coming = |building: &BuildingId| !self.known.contains_key(building);
        match building_of(to) {
            Some(of) => (self.wanted.contains(of) || self.reading.contains(of)) && is_coming(of),
            None => self.wanted.iter().chain(&self.reading).any(is_coming),
        }
    }
}

/// The building that a pattern is about; none when it is about all.
pub(super) fn building_of(to: &Pattern) -> Option<&BuildingId> {
    match to {
        Pattern::One(address) => Some(address.building()),
        Pattern::Building(building) => Some(building),
        Pattern::All => None,
    }
}

impl Inner {
    /// The buildings that are watched, and those that are about to be.
    fn named(&self) -> BTreeSet<BuildingId> {
        let patterns = self.watches.keys().chain(self.loads.keys());
        let mut named: BTreeSet<BuildingId> = patterns.filter_map(building_of).cloned().collect();
        // They are in the order of their buildings.
        let mut last = None;
        for building in self.mirrors.keys().map(Address::building) {
            if last != Some(building) {
                named.insert(building.clone());
                last = Some(building);
            }
        }
        named
    }
}

/// Reads names for as long as the edge runs.
pub(super) async fn run(shared: Arc<Shared>, hub: Arc<Hub>, flats: Flats) {
    let names = &hub.names;
    let mut reads = FuturesUnordered::new();
    let mut look_at = Instant::now() + EVERY;
    loop {
        while reads.len() < READS
            && let Some(building) = names.next()
        {
            reads.push(read(&shared, &flats, &hub.tenant, building));
        }
        tokio::select! {
            biased;
            () = sleep_until(look_at) => {
                look_at = Instant::now() + EVERY;
                let watched = hub.inner.lock().named();
                names.look(&watched);
            }
            Some((building, read)) = reads.next() => names.take(&hub.tenant, building, read),
            () = names.work.notified() => {}
        }
    }
}

async fn read(shared: &Shared, flats: &Flats, tenant: &TenantId, building: BuildingId) -> (BuildingId, Read) {
    let read = timeout(shared.config.call, flats.building(tenant, &building)).await;
    (building, read.unwrap_or(Err(FlatsError::Unavailable)))
}

#[cfg(test)]
mod tests {
    use riser_bus::kv::memory::MemoryKv;
    use riser_tenants::flats::{Codes, NewFlat};

    use super::*;

    fn building(name: &str) -> BuildingId {
        name.parse().expect("a building")
    }

    fn to(pattern: &str) -> Pattern {
        pattern.parse().expect("a pattern")
    }

    fn acme() -> TenantId {
        "acme".parse().expect("a tenant")
    }

    /// A building's flats as they are read after one was registered.
    async fn read(address: &str, name: &str) -> Read {
        let flats = Flats::new(Arc::new(MemoryKv::new().client(&"edge-0".parse().expect("an edge"))));
        let address: Address = address.parse().expect("an address");
        let flat = NewFlat { address: address.clone(), about: [Some(name.into()), None, Some("a note".into())] };
        flats.register(&acme(), &[flat], Codes::Missing, 0, 1).await.expect("registered");
        flats.building(&acme(), address.building()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_building_is_read_once_for_all_its_phones_and_anew_after_a_while() {
        let names = Names::new(true);
        for phone in 0..1_000 {
            let to: Pattern = format!("b/f{phone}").parse().expect("a pattern");
            names.want(building_of(&to));
        }
        assert_eq!((names.next(), names.next()), (Some(building("b")), None));
        names.want([&building("b")]);
        assert_eq!(names.next(), None, "it is being read");
        names.take(&acme(), building("b"), read("b/f1", "1 left").await);
        assert_eq!(
            names.label(&"b/f1".parse().expect("an address")).and_then(|l| l.name.clone()),
            Some("1 left".into())
        );
        assert_eq!(names.label(&"b/f2".parse().expect("an address")), None);
        tokio::time::advance(AGE / 2).await;
        names.want([&building("b")]);
        assert_eq!(names.next(), None, "it was read lately");
        tokio::time::advance(AGE / 2).await;
        names.want([&building("b")]);
        assert_eq!(names.next(), Some(building("b")));
        // What was known is good until it was read.
        assert!(!names.table.lock().is_awaited(&to("b/*")));
        names.take(&acme(), building("b"), Err(FlatsError::Unavailable));
        assert!(names.label(&"b/f1".parse().expect("an address")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_waited_for_a_moment_and_while_nobody_answers_not_at_all() {
        let names = Names::new(true);
        let begun = Instant::now();
        names.settled(&to("*/*"), &acme()).await;
        names.want([&building("b")]);
        names.settled(&to("c/*"), &acme()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing is wanted of it");
        names.settled(&to("b/*"), &acme()).await;
        assert!((WAIT..WAIT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let again = Instant::now();
        names.settled(&to("b/f1"), &acme()).await;
        names.settled(&to("*/*"), &acme()).await;
        assert_eq!(again.elapsed(), Duration::ZERO, "nobody answers");
        assert_eq!(names.next(), Some(building("b")));
        names.take(&acme(), building("b"), Ok(BTreeMap::new()));
        names.want([&building("c")]);
        assert!(!names.table.lock().is_awaited(&to("c/*")), "it has not been long enough");
        tokio::time::advance(EVERY).await;
        assert!(names.table.lock().is_awaited(&to("c/*")) && names.table.lock().is_awaited(&to("*/*")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_watches_is_forgotten_and_the_oldest_is_read_first() {
        let names = Names::new(true);
        let all: BTreeSet<BuildingId> = (0..=ROUND).map(|n| building(&format!("b{n:03}"))).collect();
        for (n, of) in all.iter().rev().enumerate() {
            names.take(&acme(), of.clone(), Ok(BTreeMap::new()));
            tokio::time::advance(Duration::from_millis(u64::from(n == 0))).await;
        }
        names.look(&all);
        assert_eq!(names.next(), None, "all were read lately");
        tokio::time::advance(AGE).await;
        names.look(&all);
        let last = all.last().cloned().expect("a building");
        let wanted = names.table.lock().wanted.clone();
        assert!(wanted.len() == ROUND && wanted.contains(&last), "{wanted:?}");
        let watched = [building("b000")].into();
        names.look(&watched);
        let table = names.table.lock();
        assert!(table.known.keys().eq(&watched) && table.wanted.iter().eq(&watched));
    }

    #[test]
    fn without_a_bucket_nothing_is_wanted() {
        let names = Names::new(false);
        names.want([&building("b")]);
        assert_eq!(names.next(), None);
    }
}
