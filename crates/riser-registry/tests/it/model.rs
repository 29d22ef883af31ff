//! Random sequences of operations by several edges on one gateway, against rules that know nothing of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_core::limits::Limits;
use riser_core::state::State;
use riser_core::{Change, Epoch, GatewayKey, Json, Reason, Version};
use riser_registry::memory::{Checkpoint, MemoryClient, MemoryRegistry};
use riser_registry::{Acquired, Applied, Ended, Lease, Registry, Restored, StateStore};

const EDGES: usize = 3;
const START_MS: u64 = 1_763_800_000_000;

/// What an edge does, and with which of the sessions that ever began: the newest is 0.
#[derive(Debug, Clone)]
enum Step {
    Acquire(usize),
    /// A change of a session, so many revisions after the newest that it stored.
    Apply {
        age: usize,
        ahead: u64,
        full: bool,
    },
    Release {
        age: usize,
        reason: Reason,
    },
    Restore {
        edge: usize,
        age: usize,
        ahead: u64,
    },
    /// An end by the lease, as its sweeper does it.
    Sweep(usize),
    Pass(u64),
    Jump(i64),
}

/// What the store loses.
#[derive(Debug, Clone)]
enum Loss {
    Empty,
    Keep,
    Rewind,
}

fn steps() -> impl Strategy<Value = Step> {
    let age = || prop_oneof![5 => Just(0), 2 => Just(1), 1 => 0..4usize];
    let reasons = prop::sample::select(vec![Reason::Closed, Reason::Heartbeat]);
    prop_oneof![
        4 => (0..EDGES).prop_map(Step::Acquire),
        8 => (age(), prop_oneof![1 => Just(0), 6 => Just(1), 1 => Just(2)], prop::bool::weighted(0.2))
            .prop_map(|(age, ahead, full)| Step::Apply { age, ahead, full }),
        2 => (age(), reasons).prop_map(|(age, reason)| Step::Release { age, reason }),
        2 => (0..EDGES, age(), 0..2u64).prop_map(|(edge, age, ahead)| Step::Restore { edge, age, ahead }),
        1 => (0..EDGES).prop_map(Step::Sweep),
        2 => (0..2_000u64).prop_map(Step::Pass),
        1 => (-5_000..5_000i64).prop_map(Step::Jump),
    ]
}

fn losses() -> impl Strategy<Value = Loss> {
    prop_oneof![1 => Just(Loss::Empty), 2 => Just(Loss::Keep), 2 => Just(Loss::Rewind)]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

/// What must be true of one gateway that never lost anything.
#[derive(Default)]
struct Model {
    /// Every session by its epoch: the newest revision that was stored.
    sessions: BTreeMap<Epoch, u64>,
    /// How each session ended; one that was taken over has no end.
    ends: BTreeMap<Epoch, Ended>,
    /// Who holds the gateway.
    holder: Option<usize>,
    since_ms: u64,
    state: State,
    /// Whether the values may lack something.
    incomplete: bool,
}

impl Model {
    fn newest(&self) -> Option<Version> {
        self.sessions.last_key_value().map(|(epoch, rev)| Version::new(epoch.0, *rev))
    }

    /// The session of this age, if there are so many.
    fn session(&self, age: usize) -> Option<Version> {
        self.sessions.iter().rev().nth(age).map(|(epoch, rev)| Version::new(epoch.0, *rev))
    }

    fn acquired(&mut self, edge: usize, acquired: &Acquired) {
        let newest = self.newest();
        assert!(newest.is_none_or(|newest| acquired.epoch > newest.epoch), "an epoch did not grow");
        assert_eq!(acquired.before, newest);
        assert_eq!(acquired.taken_from, self.holder.map(lease));
        assert_eq!(acquired.has_state, !self.incomplete && self.state != State::default());
        if self.holder.is_none() {
            self.since_ms = acquired.now_ms;
        }
        assert_eq!(acquired.since_ms, self.since_ms);
        self.holder = Some(edge);
        self.sessions.insert(acquired.epoch, 0);
    }

    fn applied(&mut self, version: Version, change: &Change, applied: Applied) {
        let newest = self.newest().expect("a session that acts");
        let expected = if version.epoch < newest.epoch {
            Err(Applied::Fenced(Some(newest.epoch)))
        } else if self.holder.is_none() {
            Err(Applied::Fenced(None))
        } else if version == newest {
            Ok(false)
        } else if version == newest.next() {
            Ok(true)
        } else {
            Err(Applied::Gap(Some(newest)))
        };
        match (expected, applied) {
            (Err(refused), applied) => assert_eq!(applied, refused),
            (Ok(new), Applied::Stored { .. }) => {
                if new {
                    self.state.apply(change);
                    self.incomplete &= !change.full;
                    self.sessions.insert(version.epoch, version.rev.0);
                }
            }
            (Ok(_), applied) => panic!("{version} was answered {applied:?}"),
        }
    }

    fn end(&mut self, ended: &Ended) {
        let newest = self.newest().expect("a session that ends");
        assert_eq!(ended.version, newest.next());
        assert!(self.ends.insert(newest.epoch, ended.clone()).is_none(), "a session ended twice");
        self.sessions.insert(newest.epoch, ended.version.rev.0);
        self.holder = None;
        self.since_ms = ended.at_ms;
    }

    fn released(&mut self, epoch: Epoch, reason: Reason, ended: Option<Ended>) {
        let newest = self.newest().is_some_and(|newest| newest.epoch == epoch);
        if newest && self.holder.is_some() {
            let ended = ended.expect("the end of a session that holds the gateway");
            assert_eq!(ended.reason, reason);
            self.end(&ended);
        } else {
            let before = self.ends.get(&epoch).filter(|ended| newest && ended.reason == reason);
            assert_eq!(ended.as_ref(), before);
        }
    }

    fn restored(&mut self, edge: usize, version: Version, restored: Restored) {
        let newest = self.newest().expect("a session that is restored");
        let expected = if version.epoch < newest.epoch {
            Restored::Superseded(newest.epoch)
        } else if self.holder.is_none() {
            Restored::Ended
        } else {
            self.holder = Some(edge);
            self.incomplete |= version > newest;
            self.sessions.insert(version.epoch, version.rev.0.max(newest.rev.0));
            Restored::Held { lost: self.incomplete }
        };
        assert_eq!(restored, expected);
    }

    fn swept(&mut self, edge: usize, swept: &[Ended]) {
        if self.holder == Some(edge) {
            let [ended] = swept else { panic!("{} ends of one session", swept.len()) };
            assert_eq!(ended.reason, Reason::EdgeLost);
            self.end(ended);
        } else {
            assert_eq!(swept, [], "a sweep ended what its lease does not hold");
        }
    }

    async fn check(&self, client: &MemoryClient) {
        let Some(snapshot) = client.read(&key()).await.expect("an answer") else {
            assert_eq!(self.newest(), None);
            return;
        };
        assert_eq!(Some(snapshot.version), self.newest());
        assert_eq!(snapshot.state, self.state);
        assert_eq!(snapshot.presence.online, self.holder.is_some());
        assert_eq!(snapshot.presence.edge, self.holder.map(|edge| lease(edge).edge));
        assert_eq!(snapshot.presence.since_ms, self.since_ms);
        assert_eq!(Some(snapshot.presence.epoch), self.newest().map(|newest| newest.epoch));
        let held = client.audit(&key().tenant, key().address.building()).await.expect("an answer");
        let [held] = &held[..] else { panic!("one gateway, and {} records", held.len()) };
        assert_eq!((held.version, &held.lease), (snapshot.version, &self.holder.map(lease)));
    }
}

fn lease(edge: usize) -> Lease {
    Lease { edge: format!("edge-{edge}").parse().expect("an edge name"), start: 1 }
}

fn key() -> GatewayKey {
    GatewayKey::new("acme".parse().expect("a tenant"), "b/g".parse().expect("an address"))
}

fn change(number: usize, full: bool) -> Change {
    let path = format!("p{}", number % 3).parse().expect("a path");
    Change::values([(path, (!number.is_multiple_of(4)).then(|| Json::of(&number)))], full)
}

async fn run(steps: Vec<Step>) {
    let store = MemoryRegistry::new(START_MS);
    let clients: Vec<_> = (0..EDGES).map(|edge| store.client(&lease(edge).edge)).collect();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Acquire(edge) => {
                let acquired = clients[edge].acquire(&lease(edge), &key(), None).await.expect("an answer");
                model.acquired(edge, &acquired);
            }
            Step::Apply { age, ahead, full } => {
                let Some(stands) = model.session(age) else { continue };
                let (version, change) = (Version::new(stands.epoch.0, stands.rev.0 + ahead), change(number, full));
                let applied = clients[0].apply(&key(), version, &change, &Limits::default()).await;
                model.applied(version, &change, applied.expect("an answer"));
            }
            Step::Release { age, reason } => {
                let Some(Version { epoch, .. }) = model.session(age) else { continue };
                let ended = clients[0].release(&key(), epoch, reason).await.expect("an answer");
                model.released(epoch, reason, ended);
            }
            Step::Restore { edge, age, ahead } => {
                let Some(stands) = model.session(age) else { continue };
                let version = Version::new(stands.epoch.0, stands.rev.0 + ahead);
                let restored = clients[edge].restore(&lease(edge), &key(), version, 5).await.expect("an answer");
                model.restored(edge, version, restored);
            }
            Step::Sweep(edge) => {
                let (tenant, building) = (key().tenant, key().address.building().clone());
                let swept = clients[0].sweep(&lease(edge), Reason::EdgeLost, &tenant, &building).await;
                let swept: Vec<_> = swept.expect("an answer").into_iter().map(|(_, ended)| ended).collect();
                model.swept(edge, &swept);
            }
            Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            Step::Jump(ms) => store.clock_jump(ms),
        }
        model.check(&clients[0]).await;
    }
}

/// What stays true when the store loses data, as long as each edge gives the greatest epoch it knows: epochs grow, no
/// newest session is told that it was superseded, and one session at most can store.
async fn run_with_losses(steps: Vec<(Step, Option<Loss>)>) {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&lease(0).edge);
    let mut kept: Checkpoint = store.checkpoint();
    let mut epochs: Vec<Epoch> = vec![];
    for (number, (step, loss)) in steps.into_iter().enumerate() {
        match step {
            Step::Acquire(edge) => {
                let floor = epochs.last().copied();
                let epoch = client.acquire(&lease(edge), &key(), floor).await.expect("an answer").epoch;
                assert!(floor.is_none_or(|floor| epoch > floor), "an epoch was used again");
                epochs.push(epoch);
            }
            Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            Step::Jump(ms) => store.clock_jump(ms),
            Step::Restore { edge, .. } => {
                let Some(newest) = epochs.last() else { continue };
                let stands = client.read(&key()).await.expect("an answer").map(|snapshot| snapshot.version);
                let version = stands.filter(|v| v.epoch == *newest).unwrap_or(Version::start(*newest));
                let restored = client.restore(&lease(edge), &key(), version, 5).await.expect("an answer");
                assert!(!matches!(restored, Restored::Superseded(_)), "nobody has a newer one");
            }
            Step::Apply { full, .. } => {
                let stands = client.read(&key()).await.expect("an answer").map(|snapshot| snapshot.version);
                let mut stored = 0;
                for epoch in &epochs {
                    let rev = stands.filter(|v| v.epoch == *epoch).map_or(0, |v| v.rev.0);
                    let (version, change) = (Version::new(epoch.0, rev + 1), change(number, full));
                    let applied = client.apply(&key(), version, &change, &Limits::default()).await;
                    stored += u8::from(matches!(applied, Ok(Applied::Stored { .. })));
                }
                assert!(stored <= 1, "{stored} sessions stored a change");
            }
            Step::Release { .. } | Step::Sweep(_) => {}
        }
        match loss {
            Some(Loss::Empty) => store.empty(),
            Some(Loss::Keep) => kept = store.checkpoint(),
            Some(Loss::Rewind) => store.rewind(&kept),
            None => {}
        }
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_store_follows_the_model(steps in prop::collection::vec(steps(), 1..60)) {
        paused().block_on(run(steps));
    }

    #[test]
    fn epochs_grow_and_one_session_stores_whatever_is_lost(
        steps in prop::collection::vec((steps(), prop::option::weighted(0.2, losses())), 1..60),
    ) {
        paused().block_on(run_with_losses(steps));
    }
}
