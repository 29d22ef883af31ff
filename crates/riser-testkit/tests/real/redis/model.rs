//! Random sequences of operations on one gateway, in Redis and in memory alike: both must answer the same, but for times.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use riser_core::devices::{Device, Kind};
use riser_core::limits::Limits;
use riser_core::{Change, Devices, GatewayKey, Json, Path, Reason, Version};
use riser_registry::memory::{MemoryClient, MemoryRegistry};
use riser_registry::redis::RedisRegistry;
use riser_registry::suite::Bench;
use riser_registry::{Applied, Lease, Registry, Restored, StateStore};

use super::{bench, lease};

/// Greater than any clock, so that both stores give the same epochs.
const FLOOR: u64 = 4_000_000_000_000;
const CASES: u32 = 300;
/// Few paths, above and below one another, and such that are the beginning of another without being above it.
const PATHS: [&str; 10] = ["a", "a/b", "a/b/c", "a/b/d", "a/bb", "a-b", "b", "b/c/d/e", "ab", "\u{e9}/x"];

#[derive(Debug, Clone)]
enum Op {
    Acquire(usize),
    /// So many revisions after what stands there, and of so many epochs before.
    Apply {
        ahead: u64,
        behind: u64,
        change: Change,
        limits: Limits,
    },
    Release(Reason),
    Restore {
        lease: usize,
        ahead: u64,
        newer: u64,
    },
    Sweep(usize),
}

fn changes() -> impl Strategy<Value = Change> {
    let path = || prop::sample::select(PATHS.to_vec()).prop_map(|path| path.parse::<Path>().expect("a path"));
    let values = prop::option::weighted(0.8, prop::sample::select(vec!["1", "\"text\"", "{\"on\":true}", "null"]));
    let sets = prop::collection::vec((path(), values), 0..4);
    let marks = prop::collection::vec((path(), any::<bool>()), 0..4);
    // A change as edges make them: several that merged, so that there are sets that are stale.
    let parts = prop::collection::vec((sets, marks, prop::bool::weighted(0.1)), 1..4);
    let devices = prop::option::weighted(0.1, prop::collection::btree_map(path(), Just(()), 0..4));
    (parts, devices).prop_map(|(parts, devices)| {
        let mut change = Change::default();
        for (sets, marks, full) in parts {
            let values = sets.into_iter().map(|(path, text)| (path, text.map(|text| Json::parse(text).expect("JSON"))));
            change.merge(Change::values(values, full)).expect("few marks");
            for (path, up) in marks {
                change.merge(Change::mark(path, up)).expect("few marks");
            }
        }
        let device = Device { kind: Kind::Other, name: None, unit: None, actions: vec![] };
        change.devices = devices.map(|paths| Devices(paths.into_keys().map(|path| (path, device.clone())).collect()));
        change
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let paths = prop_oneof![4 => Just(2_048), 1 => 0..6usize];
    let bytes = prop_oneof![4 => Just(262_144), 1 => 0..60usize];
    (paths, bytes).prop_map(|(paths, state_bytes)| Limits { paths, state_bytes, ..Limits::default() })
}

fn ops() -> impl Strategy<Value = Op> {
    let ahead = prop_oneof![1 => Just(0), 8 => Just(1), 1 => Just(2)];
    prop_oneof![
        2 => (0..2usize).prop_map(Op::Acquire),
        12 => (ahead, prop_oneof![9 => Just(0u64), 1 => Just(1)], changes(), limits())
            .prop_map(|(ahead, behind, change, limits)| Op::Apply { ahead, behind, change, limits }),
        1 => prop::sample::select(vec![Reason::Closed, Reason::Heartbeat]).prop_map(Op::Release),
        1 => (0..2usize, 0..2u64, 0..2u64).prop_map(|(lease, ahead, newer)| Op::Restore { lease, ahead, newer }),
        1 => (0..2usize).prop_map(Op::Sweep),
    ]
}

/// Both stores.
struct Both {
    redis: RedisRegistry,
    memory: MemoryClient,
    key: GatewayKey,
    leases: [Lease; 2],
}

impl Both {
    /// Does something to both, and sees that what they answer is the same.
    async fn run(&self, op: &Op) {
        let (key, redis, memory) = (&self.key, &self.redis, &self.memory);
        let stands = memory.read(key).await.expect("an answer").map_or(Version::new(FLOOR, 0), |s| s.version);
        match op {
            Op::Acquire(lease) => {
                let floor = Some(stands.epoch);
                let mine = redis.acquire(&self.leases[*lease], key, floor).await.expect("an answer");
                let theirs = memory.acquire(&self.leases[*lease], key, floor).await.expect("an answer");
                let told = |a: &riser_registry::Acquired| {
                    (a.epoch, a.before, a.has_state, a.taken_from.clone(), a.takeovers, a.open_commands, a.has_streams)
                };
                assert_eq!(told(&mine), told(&theirs));
            }
            Op::Apply { ahead, behind, change, limits } => {
                let version = Version::new(stands.epoch.0 - behind, stands.rev.0 + ahead);
                let mine = redis.apply(key, version, change, limits).await.expect("an answer");
                let theirs = memory.apply(key, version, change, limits).await.expect("an answer");
                match (mine, theirs) {
                    (Applied::Stored { .. }, Applied::Stored { .. }) => {}
                    (mine, theirs) => assert_eq!(mine, theirs),
                }
            }
            Op::Release(reason) => {
                let mine = redis.release(key, stands.epoch, *reason).await.expect("an answer");
                let theirs = memory.release(key, stands.epoch, *reason).await.expect("an answer");
                assert_eq!(mine.map(|ended| ended.version), theirs.map(|ended| ended.version));
            }
            Op::Restore { lease, ahead, newer } => {
                let version = Version::new(stands.epoch.0 + newer, stands.rev.0 + ahead);
                let mine: Restored = redis.restore(&self.leases[*lease], key, version, 5).await.expect("an answer");
                let theirs = memory.restore(&self.leases[*lease], key, version, 5).await.expect("an answer");
                assert_eq!(mine, theirs);
            }
            Op::Sweep(lease) => {
                let (lease, building) = (&self.leases[*lease], key.address.building());
                let mine = redis.sweep(lease, Reason::EdgeLost, &key.tenant, building).await.expect("an answer");
                let theirs = memory.sweep(lease, Reason::EdgeLost, &key.tenant, building).await.expect("an answer");
                let told = |swept: Vec<(riser_core::GatewayId, riser_registry::Ended)>| {
                    swept.into_iter().map(|(gateway, ended)| (gateway, ended.version)).collect::<Vec<_>>()
                };
                assert_eq!(told(mine), told(theirs));
            }
        }
        self.compare().await;
    }

    async fn compare(&self) {
        let mine = self.redis.read(&self.key).await.expect("an answer");
        let theirs = self.memory.read(&self.key).await.expect("an answer");
        let (Some(mine), Some(theirs)) = (&mine, &theirs) else {
            assert_eq!(mine, theirs);
            return;
        };
        assert_eq!((mine.version, &mine.state), (theirs.version, &theirs.state));
        let told = |p: &riser_core::Presence| (p.online, p.epoch, p.reason, p.edge.clone());
        assert_eq!(told(&mine.presence), told(&theirs.presence));
        let (tenant, building) = (&self.key.tenant, self.key.address.building());
        let audit = self.redis.audit(tenant, building).await;
        assert_eq!(audit, self.memory.audit(tenant, building).await);
        assert_eq!(self.redis.versions(tenant, building).await, self.memory.versions(tenant, building).await);
    }
}

#[test]
fn redis_and_memory_answer_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Bench { one, behind, name, .. } = runtime.block_on(bench("model"));
    let config = ProptestConfig {
        cases: CASES,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let runs = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&prop::collection::vec(ops(), 1..40), |ops| {
        let run = runs.get() + 1;
        runs.set(run);
        let key = super::key(&format!("{name}-{run}"), "b/g");
        let leases = [lease(&format!("{name}-one"), run), lease(&format!("{name}-two"), run)];
        runtime.block_on(async {
            let memory = MemoryRegistry::new(1).client(&leases[0].edge);
            let both = Both { redis: one.clone(), memory, key, leases };
            // An epoch that no clock reaches.
            both.run(&Op::Restore { lease: 0, ahead: 0, newer: 1 }).await;
            for op in &ops {
                both.run(op).await;
            }
        });
        Ok(())
    });
    result.expect("the same answers");
    assert_eq!((one.counts().errors, one.counts().bad_values, one.counts().script_errors), (0, 0, 0));
    drop(behind);
}
