//! Held commands over a store that loses its data, a bucket that does not answer, and both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use riser_bus::kv::memory::{MemoryKv, MemoryKvClient};
use riser_bus::kv::{Kv, Written};
use riser_bus::{Bucket, Entry};
use riser_core::command::{Body, CommandId, Digest, KEPT_MS, Record, Refusal, Said, Status, Step, Took, Word};
use riser_core::{EdgeId, Epoch, GatewayKey};
use riser_registry::held::LOOK_EVERY;
use riser_registry::memory::{MemoryClient, MemoryRegistry};
use riser_registry::{CommandStore, Created, HeldCommands, Lease, NewCommand, Registry, RegistryError, Stepped};
use tokio::time::{advance, sleep, timeout};

const START_MS: u64 = 1_763_800_000_000;
const DEADLINE_MS: u64 = 600_000;

/// A store, a bucket, and an edge's way to both.
struct World {
    store: MemoryRegistry,
    kv: MemoryKv,
    client: Arc<MemoryClient>,
    bucket: MemoryKvClient,
    held: HeldCommands,
    told: Arc<Mutex<Vec<(CommandId, Status)>>>,
}

fn edge() -> EdgeId {
    "one".parse().expect("an edge name")
}

fn key() -> GatewayKey {
    GatewayKey::new("acme".parse().expect("a tenant"), "b/g".parse().expect("an address"))
}

fn entry(number: u8) -> Entry {
    Entry::Held(key(), Digest([number; 16]))
}

fn command(number: u8, hold: bool) -> NewCommand {
    let (path, action) = ("door/1".parse().expect("a path"), "open".parse().expect("an action"));
    NewCommand {
        digest: Digest([number; 16]),
        body: Body { path, action, args: None, hold },
        by: "client:anna".into(),
        deadline_ms: DEADLINE_MS,
        edge: edge(),
        no_room: false,
    }
}

fn send(epoch: Epoch, remembers_ms: u64) -> Step {
    Step::Send { epoch, remembers_ms }
}

fn say(status: Said) -> Step {
    Step::Word(Word { status, code: None, data: None })
}

fn statuses(record: &Record) -> Vec<Status> {
    record.outcomes.iter().map(|outcome| outcome.status).collect()
}

impl World {
    async fn start() -> Self {
        let (store, kv) = (MemoryRegistry::new(START_MS), MemoryKv::new());
        let (client, bucket) = (Arc::new(store.client(&edge())), kv.client(&edge()));
        let told: Arc<Mutex<Vec<_>>> = Arc::default();
        let notes = told.clone();
        let on_final = Arc::new(move |_: &GatewayKey, record: &Record| {
            let last = record.decided().expect("a final outcome").status;
            notes.lock().push((record.cmd.clone(), last));
        });
        let held = HeldCommands::new(client.clone(), Arc::new(bucket.clone()), on_final);
        let world = Self { store, kv, client, bucket, held, told };
        world.settled().await;
        world
    }

    async fn settled(&self) {
        let settled = async {
            while !self.held.is_settled() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(3 * LOOK_EVERY, settled).await.expect("a store that is given what it lost");
    }

    /// Waits until the store has been given back so many records in all.
    async fn adopted(&self, many: u64) {
        let adopted = async {
            while self.held.counts().adopted < many {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(3 * LOOK_EVERY, adopted).await.expect("a store that is given what it lost");
    }

    async fn try_issue(&self, command: &NewCommand) -> Result<Stepped, RegistryError> {
        // Two commands of one millisecond would have one name.
        advance(Duration::from_millis(1)).await;
        match self.held.create(&key(), command).await? {
            Created::Recorded(stepped) => Ok(*stepped),
            refused => panic!("{refused:?}"),
        }
    }

    async fn issue(&self, number: u8) -> Record {
        self.try_issue(&command(number, true)).await.expect("an answer").record
    }

    async fn step(&self, record: &Record, step: &Step) -> Stepped {
        self.held.step(&key(), &record.cmd, step).await.expect("an answer").expect("a command that is known")
    }

    async fn copy(&self, number: u8) -> Option<Record> {
        let value = self.bucket.get(&entry(number)).await.expect("an answer")?;
        Some(serde_json::from_slice(&value.bytes).expect("a record"))
    }

    async fn acquire(&self) -> Epoch {
        // Two sessions of one millisecond would have one epoch, if the store forgot the first.
        advance(Duration::from_millis(1)).await;
        let lease = Lease { edge: edge(), start: 1 };
        self.client.acquire(&lease, &key(), None).await.expect("an answer").epoch
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_has_what_was_answered() {
    let world = World::start().await;
    let record = world.issue(1).await;
    assert_eq!((statuses(&record), world.copy(1).await), (vec![Status::Held], Some(record.clone())));
    let epoch = world.acquire().await;
    for step in [send(epoch, 0), say(Said::Received), say(Said::Succeeded)] {
        let stepped = world.step(&record, &step).await;
        assert_eq!(stepped.took, Took::Yes, "{step:?}");
        assert_eq!(world.copy(1).await, Some(stepped.record));
    }
    assert_eq!(world.told.lock().clone(), [(record.cmd, Status::Succeeded)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_held_costs_the_bucket_nothing() {
    let world = World::start().await;
    world.kv.cut_all(Duration::ZERO);
    let offline = world.try_issue(&command(1, false)).await.expect("an answer").record;
    let epoch = world.acquire().await;
    let mut decided = vec![(offline.cmd, Status::Offline)];
    for (number, hold) in [(2, false), (3, true)] {
        let record = world.try_issue(&command(number, hold)).await.expect("an answer").record;
        for step in [send(epoch, 0), say(Said::Succeeded), Step::Look] {
            world.step(&record, &step).await;
        }
        decided.push((record.cmd, Status::Succeeded));
    }
    assert_eq!(world.told.lock().clone(), decided);
    assert_eq!(world.held.counts().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn looking_again_costs_the_bucket_nothing() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.kv.cut_all(Duration::ZERO);
    assert_eq!(world.step(&record, &Step::Look).await.record, record);
    assert_eq!(world.step(&record, &Step::Offline).await.took, Took::Nothing);
    assert_eq!(world.held.counts().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_bucket_nothing_is_held_and_a_repetition_writes_the_copy() {
    let world = World::start().await;
    world.kv.cut_all(Duration::ZERO);
    let refused = world.try_issue(&command(1, true)).await;
    assert_eq!(refused.map(|stepped| stepped.record), Err(RegistryError::Unavailable));
    world.kv.heal_all();
    let repeated = world.try_issue(&command(1, true)).await.expect("an answer");
    assert_eq!(repeated.took, Took::Nothing, "it is the same command");
    assert_eq!(world.copy(1).await, Some(repeated.record));
}

#[tokio::test(start_paused = true)]
async fn without_the_bucket_nothing_is_sent_and_it_is_sent_once_when_it_is_back() {
    let world = World::start().await;
    let record = world.issue(1).await;
    let epoch = world.acquire().await;
    world.kv.cut_all(Duration::ZERO);
    let sent = world.held.step(&key(), &record.cmd, &send(epoch, 0)).await;
    assert_eq!(sent, Err(RegistryError::Unavailable));
    world.kv.heal_all();
    let sent = world.step(&record, &send(epoch, 0)).await;
    assert_eq!((sent.took, sent.record.sends), (Took::Yes, 1));
    assert_eq!(world.copy(1).await, Some(sent.record));
    let next = world.acquire().await;
    assert_eq!(world.step(&record, &send(next, 0)).await.took, Took::No(Refusal::NotAgain));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_is_given_back_what_was_held() {
    let world = World::start().await;
    let (waiting, sent, decided) = (world.issue(1).await, world.issue(2).await, world.issue(3).await);
    let epoch = world.acquire().await;
    let sent = world.step(&sent, &send(epoch, 0)).await.record;
    let decided = world.step(&decided, &Step::Cancel).await.record;
    world.store.empty();
    world.adopted(3).await;
    assert_eq!(world.client.open(&key(), 0, 9).await, Ok(vec![waiting.clone(), sent.clone()]));
    assert_eq!(world.client.latest(&key(), None, 9).await, Ok(vec![decided.clone(), sent.clone(), waiting.clone()]));
    let epoch = world.acquire().await;
    assert_eq!(world.step(&waiting, &send(epoch, 0)).await.took, Took::Yes);
    assert_eq!(world.step(&sent, &send(epoch, 0)).await.took, Took::No(Refusal::NotAgain), "it was sent before");
    advance(Duration::from_millis(DEADLINE_MS)).await;
    assert_eq!(statuses(&world.step(&sent, &Step::Look).await.record), [Status::Held, Status::Sent, Status::Unknown]);
    assert_eq!(world.step(&decided, &Step::Look).await.record, decided);
}

#[tokio::test(start_paused = true)]
async fn a_step_finds_a_command_that_the_store_has_just_lost() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.store.empty();
    let stepped = world.step(&record, &Step::Cancel).await;
    assert_eq!((stepped.took, statuses(&stepped.record)), (Took::Yes, vec![Status::Held, Status::Cancelled]));
    let unknown = CommandId { at_ms: 1, ..record.cmd };
    assert_eq!(world.held.step(&key(), &unknown, &Step::Look).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_the_same_command_though_the_store_has_just_lost_it() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.store.empty();
    let repeated = world.try_issue(&command(1, true)).await.expect("an answer");
    assert_eq!((repeated.took, &repeated.record.cmd), (Took::Nothing, &record.cmd));
    let mut other = command(1, true);
    other.body.action = "shut".parse().expect("an action");
    world.store.empty();
    assert_eq!(world.held.create(&key(), &other).await, Ok(Created::Conflict));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_the_same_command_though_its_gateway_came_after_the_loss() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.store.empty();
    let epoch = world.acquire().await;
    let repeated = world.try_issue(&command(1, true)).await.expect("an answer");
    assert_eq!((repeated.took, &repeated.record.cmd), (Took::Nothing, &record.cmd));
    assert_eq!(world.step(&record, &send(epoch, 0)).await.took, Took::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_does_not_send_again_what_was_sent() {
    let world = World::start().await;
    let record = world.issue(1).await;
    let before = world.store.checkpoint();
    let epoch = world.acquire().await;
    world.step(&record, &send(epoch, 0)).await;
    world.store.rewind(&before);
    let next = world.acquire().await;
    assert_eq!(world.step(&record, &send(next, 0)).await.took, Took::No(Refusal::NotAgain));
    world.store.rewind(&before);
    assert_eq!(world.step(&record, &Step::Cancel).await.took, Took::No(Refusal::Sent));
    world.store.rewind(&before);
    let next = world.acquire().await;
    let again = world.step(&record, &send(next, u64::MAX)).await;
    assert_eq!((again.took, again.record.sends), (Took::Yes, 2), "to a gateway that remembers");
}

#[tokio::test(start_paused = true)]
async fn steps_of_two_edges_leave_the_newest_in_the_copy() {
    let world = World::start().await;
    let other = HeldCommands::new(world.client.clone(), Arc::new(world.bucket.clone()), Arc::new(|_, _| {}));
    let record = world.issue(1).await;
    let epoch = world.acquire().await;
    world.step(&record, &send(epoch, 0)).await;
    let (key, word, last) = (key(), say(Said::Running), say(Said::Succeeded));
    let (ours, theirs) = tokio::join!(world.held.step(&key, &record.cmd, &word), other.step(&key, &record.cmd, &last));
    let longest = [ours, theirs].map(|stepped| stepped.expect("an answer").expect("a command that is known").record);
    let longest = longest.into_iter().max_by_key(|record| record.outcomes.len());
    assert_eq!(world.copy(1).await, longest);
}

#[tokio::test(start_paused = true)]
async fn a_copy_goes_an_hour_after_the_deadline_and_then_its_key_is_free() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.step(&record, &Step::Cancel).await;
    advance(Duration::from_millis(DEADLINE_MS + KEPT_MS - 5_000)).await;
    assert!(world.copy(1).await.is_some());
    advance(Duration::from_secs(6)).await;
    assert_eq!(world.copy(1).await, None);
    assert_ne!(world.issue(1).await.cmd, record.cmd);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_no_edge_wrote_is_ignored_and_counted() {
    let world = World::start().await;
    let put = world.bucket.put(&entry(1), Bytes::from_static(b"forged"), 0, None).await;
    assert!(matches!(put, Ok(Written::Yes(_))));
    let record = world.issue(1).await;
    assert_eq!(world.copy(1).await, Some(record.clone()), "it is written over");
    // A record under a name that is not its own.
    let other = Entry::Held(key(), Digest([9; 16]));
    let bytes = serde_json::to_vec(&record).expect("a text").into();
    world.bucket.put(&other, bytes, 0, None).await.expect("an answer");
    world.store.empty();
    world.adopted(1).await;
    assert_eq!(world.client.latest(&key(), None, 9).await, Ok(vec![record]));
    assert!(world.held.counts().bad >= 2);
    assert_eq!(world.bucket.list(Bucket::Held, 0).await.expect("an answer").entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_after_the_bucket_is_given_everything_all_the_same() {
    let world = World::start().await;
    let record = world.issue(1).await;
    world.kv.cut_all(Duration::ZERO);
    world.store.empty();
    advance(2 * LOOK_EVERY).await;
    let unknown = world.held.step(&key(), &record.cmd, &Step::Look).await;
    assert_eq!(unknown, Err(RegistryError::Unavailable), "it must not be taken for lost");
    world.kv.heal_all();
    world.adopted(1).await;
    assert_eq!(world.client.open(&key(), 0, 9).await, Ok(vec![record]));
}
