//! Random sequences of what happens to one gateway's commands, against a plain list of their records.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_core::command::{Body, CommandId, Digest, KEPT_MS, Record, Said, Step, Took, Word};
use riser_core::{EdgeId, Epoch, GatewayKey, Reason};
use riser_registry::memory::{Checkpoint, MemoryClient, MemoryRegistry};
use riser_registry::{CommandStore, Created, Holder, Lease, NewCommand, Registry, Stepped};

const EDGES: usize = 3;
const KEYS: u8 = 5;
const START_MS: u64 = 1_763_800_000_000;

/// What happens. Commands are meant by their age, of all that were ever recorded: the newest is 0.
#[derive(Debug, Clone)]
enum Happens {
    Create { key: u8, other: bool, hold: bool, deadline_ms: u64, edge: usize },
    Step { age: usize, what: What },
    Acquire(usize),
    Release,
    Overdue,
    Pass(u64),
    Jump(i64),
}

#[derive(Debug, Clone)]
enum What {
    Look,
    /// By the session that holds the gateway, or by one that does not.
    Send {
        held: bool,
        remembers_ms: u64,
    },
    Word(Said),
    Cancel,
    Offline,
}

/// What the store loses.
#[derive(Debug, Clone)]
enum Loss {
    Empty,
    Keep,
    Rewind,
}

fn happenings() -> impl Strategy<Value = Happens> {
    let age = prop_oneof![4 => Just(0), 3 => 1..4usize, 1 => 0..40usize];
    let said = prop::sample::select(vec![Said::Received, Said::Running, Said::Succeeded, Said::Failed]);
    let what = prop_oneof![
        1 => Just(What::Look),
        4 => (prop::bool::weighted(0.8), prop::sample::select(vec![0, 5_000, u64::MAX]))
            .prop_map(|(held, remembers_ms)| What::Send { held, remembers_ms }),
        4 => said.prop_map(What::Word),
        1 => Just(What::Cancel),
        1 => Just(What::Offline),
    ];
    let deadline = prop::sample::select(vec![1, 100, 10_000, 7_200_000]);
    prop_oneof![
        8 => (0..KEYS, prop::bool::weighted(0.1), any::<bool>(), deadline, 0..EDGES).prop_map(
            |(key, other, hold, deadline_ms, edge)| Happens::Create { key, other, hold, deadline_ms, edge }),
        12 => (age, what).prop_map(|(age, what)| Happens::Step { age, what }),
        3 => (0..EDGES).prop_map(Happens::Acquire),
        2 => Just(Happens::Release),
        2 => Just(Happens::Overdue),
        3 => prop_oneof![4 => 0..200u64, 2 => 5_000..15_000u64, 1 => 3_500_000..3_700_000u64].prop_map(Happens::Pass),
        1 => (-5_000..5_000i64).prop_map(Happens::Jump),
    ]
}

fn losses() -> impl Strategy<Value = Loss> {
    prop_oneof![1 => Just(Loss::Empty), 2 => Just(Loss::Keep), 2 => Just(Loss::Rewind)]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

fn edge(number: usize) -> EdgeId {
    format!("edge-{number}").parse().expect("an edge name")
}

fn key() -> GatewayKey {
    GatewayKey::new("acme".parse().expect("a tenant"), "b/g".parse().expect("an address"))
}

/// What the store is for one gateway: its records in their order, and who holds it.
#[derive(Default, Clone)]
struct Known {
    records: Vec<Record>,
    holder: Option<Holder>,
}

#[derive(Default)]
struct Model {
    known: Known,
    /// What was known when the copy was made that the store goes back to.
    kept: Known,
    /// Every name that was given, and the place of the last.
    names: Vec<CommandId>,
    last: u64,
    epoch: Epoch,
    /// Whether the store ever lost anything: then it may not know its last place any more.
    lossy: bool,
}

impl Model {
    fn forget(&mut self, now_ms: u64) {
        self.known.records.retain(|r| r.decided().is_none() || r.deadline_at_ms + KEPT_MS > now_ms);
    }

    fn holds(&self) -> Option<Epoch> {
        self.known.holder.as_ref().map(|holder| holder.epoch)
    }

    fn created(&mut self, new: &NewCommand, created: Created, now_ms: u64) {
        self.forget(now_ms);
        let holder = self.known.holder.clone();
        if let Some(record) = self.known.records.iter_mut().find(|record| record.cmd.digest == new.digest) {
            if record.body != new.body {
                assert_eq!(created, Created::Conflict);
                return;
            }
            let before = record.outcomes.len();
            record.tell(&new.edge);
            record.step(&Step::Look, None, now_ms);
            let record = record.clone();
            let known = Stepped { record, took: Took::Nothing, before, holder, now_ms };
            assert_eq!(created, Created::Recorded(Box::new(known)));
            return;
        }
        let Created::Recorded(stepped) = created else { panic!("{created:?}") };
        let (seq, prev) = (stepped.record.seq, stepped.record.prev);
        assert!(seq > self.last, "a place was given twice, or an earlier one");
        if self.lossy || self.known.records.is_empty() {
            assert!(prev < seq && self.known.records.iter().all(|record| record.seq <= prev));
        } else {
            assert_eq!(prev, self.last);
        }
        let mut record = Record {
            cmd: CommandId { of: key().address, digest: new.digest, at_ms: now_ms },
            seq,
            prev,
            body: new.body.clone(),
            by: new.by.clone(),
            deadline_at_ms: now_ms + new.deadline_ms,
            sends: 0,
            sent_at_ms: 0,
            sent_to: None,
            outcomes: vec![],
            edges: vec![new.edge.clone()],
        };
        if holder.is_none() {
            record.step(&Step::Offline, None, now_ms);
        }
        let expected = Stepped { record: record.clone(), took: Took::Yes, before: 0, holder, now_ms };
        assert_eq!(*stepped, expected);
        assert!(!self.names.contains(&record.cmd), "a name was given twice");
        self.names.push(record.cmd.clone());
        self.known.records.push(record);
        self.last = seq;
    }

    fn stepped(&mut self, cmd: &CommandId, step: &Step, stepped: Option<&Stepped>, now_ms: u64) {
        self.forget(now_ms);
        let holds = self.holds();
        let expected = self.known.records.iter_mut().find(|record| record.cmd == *cmd).map(|record| {
            let before = record.outcomes.len();
            let took = record.step(step, holds, now_ms);
            Stepped { record: record.clone(), took, before, holder: self.known.holder.clone(), now_ms }
        });
        assert_eq!(stepped, expected.as_ref());
    }

    fn lost(&mut self, loss: &Loss) {
        match loss {
            Loss::Keep => {
                self.kept = self.known.clone();
                return;
            }
            Loss::Empty => self.known = Known::default(),
            Loss::Rewind => self.known = self.kept.clone(),
        }
        self.lossy = true;
    }

    async fn check(&mut self, client: &MemoryClient, now_ms: u64) {
        self.forget(now_ms);
        let records = &self.known.records;
        let undecided = || records.iter().filter(|record| record.decided().is_none());
        assert_eq!(client.open(&key(), 0, 64).await.expect("an answer"), undecided().cloned().collect::<Vec<_>>());
        let latest = client.latest(&key(), None, 64).await.expect("an answer");
        assert_eq!(latest, records.iter().rev().cloned().collect::<Vec<_>>());
        let held = client.audit(&key().tenant, key().address.building()).await.expect("an answer");
        for held in held {
            assert_eq!(held.lease.map(|lease| lease.edge), self.known.holder.clone().map(|holder| holder.edge));
            let unsent = undecided().filter(|record| record.sends == 0 && record.deadline_at_ms > now_ms);
            assert_eq!(held.unsent, unsent.count());
        }
    }
}

fn command(digest: u8, other: bool, hold: bool) -> NewCommand {
    let (path, action) = ("door/1".parse().expect("a path"), if other { "shut" } else { "open" });
    NewCommand {
        digest: Digest([digest; 16]),
        body: Body { path, action: action.parse().expect("an action"), args: None, hold },
        by: "client:anna".into(),
        deadline_ms: 0,
        edge: edge(0),
        no_room: false,
    }
}

/// One thing happens, to the store and to the model.
async fn happens(model: &mut Model, store: &MemoryRegistry, client: &MemoryClient, what: Happens) {
    let now_ms = store.now_ms();
    match what {
        Happens::Create { key: digest, other, hold, deadline_ms, edge: by } => {
            let new = NewCommand { deadline_ms, edge: edge(by), ..command(digest, other, hold) };
            let created = client.create(&key(), &new).await.expect("an answer");
            model.created(&new, created, now_ms);
        }
        Happens::Step { age, what } => {
            let Some(cmd) = model.names.iter().rev().nth(age).cloned() else { return };
            let step = match what {
                What::Look => Step::Look,
                What::Send { held, remembers_ms } => {
                    let holds = model.holds().filter(|_| held);
                    Step::Send { epoch: holds.unwrap_or(Epoch(model.epoch.0.saturating_sub(1))), remembers_ms }
                }
                What::Word(status) => Step::Word(Word { status, code: None, data: None }),
                What::Cancel => Step::Cancel,
                What::Offline => Step::Offline,
            };
            let stepped = client.step(&key(), &cmd, &step).await.expect("an answer");
            model.stepped(&cmd, &step, stepped.as_ref(), now_ms);
        }
        Happens::Acquire(by) => {
            let lease = Lease { edge: edge(by), start: 1 };
            let acquired = client.acquire(&lease, &key(), Some(model.epoch)).await.expect("an answer");
            let records = model.known.records.iter();
            let open = records.filter(|record| record.decided().is_none() && record.deadline_at_ms > now_ms);
            assert_eq!(acquired.open_commands, open.count());
            model.epoch = acquired.epoch;
            model.known.holder = Some(Holder { edge: lease.edge, epoch: acquired.epoch });
        }
        Happens::Release => {
            client.release(&key(), model.epoch, Reason::Closed).await.expect("an answer");
            model.known.holder.take_if(|holder| holder.epoch == model.epoch);
        }
        Happens::Overdue => {
            let records = model.known.records.iter();
            let overdue = records.filter(|record| record.decided().is_none() && record.deadline_at_ms <= now_ms);
            let mut overdue: Vec<_> = overdue.map(|record| (record.deadline_at_ms, record.cmd.clone())).collect();
            overdue.sort();
            let given = client.overdue(&edge(0)).await.expect("an answer");
            assert_eq!(given, overdue.into_iter().map(|(_, cmd)| (key().tenant, cmd)).collect::<Vec<_>>());
        }
        Happens::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
        Happens::Jump(ms) => store.clock_jump(ms),
    }
    model.check(client, store.now_ms()).await;
}

async fn run(steps: Vec<(Happens, Option<Loss>)>) {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge(0));
    let mut kept = Checkpoint::default();
    let mut model = Model::default();
    for (what, loss) in steps {
        happens(&mut model, &store, &client, what).await;
        // Places and names grow with the clock over what the store does not know any more.
        tokio::time::advance(Duration::from_millis(1)).await;
        let Some(loss) = loss else { continue };
        model.forget(store.now_ms());
        match loss {
            Loss::Empty => store.empty(),
            Loss::Keep => kept = store.checkpoint(),
            Loss::Rewind => store.rewind(&kept),
        }
        model.lost(&loss);
        model.check(&client, store.now_ms()).await;
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn commands_follow_the_model(steps in prop::collection::vec((happenings(), Just(None)), 1..80)) {
        paused().block_on(run(steps));
    }

    #[test]
    fn commands_follow_the_model_whatever_is_lost(
        steps in prop::collection::vec((happenings(), prop::option::weighted(0.15, losses())), 1..80)
            .prop_map(|steps| steps.into_iter().map(|(what, loss)| match what {
                // A clock that jumped back over a loss is the one thing that could make places fall.
                Happens::Jump(_) => (Happens::Overdue, loss),
                what => (what, loss),
            }).collect::<Vec<_>>()),
    ) {
        paused().block_on(run(steps));
    }
}
