//! Commands and streams under the faults of the memory registry, and over the times that no real server is waited for.

use std::time::Duration;

use riser_core::command::{Body, CommandId, Digest, KEPT_MS, Record, Refusal, SENDS, Said, Status, Step, Took, Word};
use riser_core::live::{Stream, StreamId, StreamKind};
use riser_core::{EdgeId, Epoch, GatewayKey};
use riser_registry::commands::{RECORDS_BYTES, SWEEPER_MS};
use riser_registry::memory::{Faults, MemoryClient, MemoryRegistry};
use riser_registry::{
    CommandStore, Created, Holder, Lease, NewCommand, Opened, Registry, RegistryError, Stepped, StreamStore,
    TAKEOVER_WINDOW,
};

const START_MS: u64 = 1_763_800_000_000;
const DEADLINE_MS: u64 = 10_000;

fn edge(name: &str) -> EdgeId {
    name.parse().expect("an edge name")
}

fn lease(name: &str) -> Lease {
    Lease { edge: edge(name), start: 1 }
}

fn key() -> GatewayKey {
    GatewayKey::new("acme".parse().expect("a tenant"), "b/g".parse().expect("an address"))
}

fn command(number: u8, hold: bool) -> NewCommand {
    let (path, action) = ("door/1".parse().expect("a path"), "open".parse().expect("an action"));
    NewCommand {
        digest: Digest([number; 16]),
        body: Body { path, action, args: None, hold },
        by: "client:anna".into(),
        deadline_ms: DEADLINE_MS,
        edge: edge("one"),
        no_room: false,
    }
}

fn stream(number: u32) -> Stream {
    Stream {
        id: StreamId(number),
        of: key().address,
        path: "door/1".parse().expect("a path"),
        kind: StreamKind::Opus,
        params: None,
        from: "client:anna".into(),
        edge: edge("one"),
    }
}

fn send(epoch: Epoch) -> Step {
    Step::Send { epoch, remembers_ms: u64::MAX }
}

fn say(status: Said) -> Step {
    Step::Word(Word { status, code: None, data: None })
}

async fn issue(client: &MemoryClient, command: &NewCommand) -> Stepped {
    match client.create(&key(), command).await.expect("an answer") {
        Created::Recorded(stepped) => *stepped,
        refused => panic!("{refused:?}"),
    }
}

async fn step(client: &MemoryClient, cmd: &CommandId, step: &Step) -> Option<Stepped> {
    client.step(&key(), cmd, step).await.expect("an answer")
}

async fn acquire(client: &MemoryClient, edge: &str) -> Epoch {
    client.acquire(&lease(edge), &key(), None).await.expect("an answer").epoch
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

fn statuses(record: &Record) -> Vec<Status> {
    record.outcomes.iter().map(|outcome| outcome.status).collect()
}

#[tokio::test(start_paused = true)]
async fn a_decided_command_is_known_until_an_hour_after_its_deadline() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let mut stepped = issue(&client, &command(1, true)).await;
    let cmd = stepped.record.cmd.clone();
    stepped = step(&client, &cmd, &Step::Cancel).await.expect("a command that is known");
    pass(DEADLINE_MS + KEPT_MS - 1).await;
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![stepped.record.clone()]));
    assert_eq!(step(&client, &cmd, &Step::Look).await.map(|stepped| stepped.record), Some(stepped.record));
    let other = command(1, false);
    assert_eq!(client.create(&key(), &other).await, Ok(Created::Conflict));

    pass(1).await;
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![]));
    assert_eq!(step(&client, &cmd, &Step::Look).await, None);
    let again = issue(&client, &other).await;
    assert_eq!(again.took, Took::Yes, "its key is free for another body");
    assert_ne!(again.record.cmd, cmd, "a gateway must not take it for the one before");
    assert_eq!(step(&client, &cmd, &Step::Look).await, None, "and a step of the old one finds nothing");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_nobody_decided_is_not_forgotten() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let cmd = issue(&client, &command(1, true)).await.record.cmd;
    pass(DEADLINE_MS + 2 * KEPT_MS).await;
    let overdue = client.overdue(&edge("one")).await.expect("an answer");
    assert_eq!(overdue, [(key().tenant, cmd.clone())]);
    let stepped = step(&client, &cmd, &Step::Look).await.expect("a command that is known");
    assert_eq!(statuses(&stepped.record), [Status::Held, Status::Expired]);
    assert_eq!(step(&client, &cmd, &Step::Look).await, None, "its time was over long ago");
}

/// Calls once without getting an answer, although it was done, and then again.
async fn with_a_lost_reply<T>(store: &MemoryRegistry, call: impl AsyncFn() -> Result<T, RegistryError>) -> T {
    let lost = store.fault_counts().lost_replies;
    store.set_faults(&Faults { lost_reply: 1.0, ..Faults::default() });
    assert_eq!(call().await.map(drop), Err(RegistryError::Unavailable));
    store.set_faults(&Faults::default());
    assert_eq!(store.fault_counts().lost_replies, lost + 1);
    call().await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn what_is_repeated_after_a_lost_reply_happens_once() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let epoch = acquire(&client, "one").await;
    let new = command(1, true);
    let created = with_a_lost_reply(&store, async || client.create(&key(), &new).await).await;
    let Created::Recorded(created) = created else { panic!("{created:?}") };
    assert_eq!((created.took, created.record.outcomes.len(), created.record.edges.len()), (Took::Nothing, 0, 1));
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![created.record.clone()]));

    let cmd = created.record.cmd;
    let mut outcomes = vec![];
    for (step, took, status) in [
        (send(epoch), Took::Yes, Status::Sent),
        (say(Said::Received), Took::Nothing, Status::Received),
        (say(Said::Running), Took::Nothing, Status::Running),
        (say(Said::Succeeded), Took::Nothing, Status::Succeeded),
    ] {
        let stepped = with_a_lost_reply(&store, async || client.step(&key(), &cmd, &step).await).await;
        let stepped = stepped.expect("a command that is known");
        outcomes.push(status);
        assert_eq!((stepped.took, statuses(&stepped.record)), (took, outcomes.clone()), "{step:?}");
        assert_eq!((stepped.before, stepped.record.sends), (outcomes.len(), 1));
    }

    let unsent = issue(&client, &command(2, true)).await.record.cmd;
    let stepped = with_a_lost_reply(&store, async || client.step(&key(), &unsent, &Step::Cancel).await).await;
    let stepped = stepped.expect("a command that is known");
    assert_eq!((stepped.took, statuses(&stepped.record)), (Took::Nothing, vec![Status::Cancelled]));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_for_an_offline_gateway_is_held_or_decided_once() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    for (number, hold, status) in [(1, true, Status::Held), (2, false, Status::Offline)] {
        let new = command(number, hold);
        let created = with_a_lost_reply(&store, async || client.create(&key(), &new).await).await;
        let Created::Recorded(created) = created else { panic!("{created:?}") };
        assert_eq!((created.took, statuses(&created.record)), (Took::Nothing, vec![status]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_and_closed_again_is_open_and_closed_once() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let (tenant, ttl) = (key().tenant, Duration::from_secs(30));
    let opened = with_a_lost_reply(&store, async || client.open_stream(&tenant, &stream(1), ttl).await).await;
    assert_eq!(opened, Opened::Open(None));
    assert_eq!(client.streams(&tenant, None).await, Ok(vec![stream(1)]));
    with_a_lost_reply(&store, async || client.close_stream(&tenant, &stream(1).of, StreamId(1)).await).await;
    assert_eq!(client.streams(&tenant, None).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_keeps_nothing_and_a_rewound_one_what_it_had() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let life = client.life().await;
    let first = issue(&client, &command(1, true)).await.record;
    client.open_stream(&key().tenant, &stream(1), Duration::from_secs(30)).await.expect("an answer");
    let checkpoint = store.checkpoint();
    pass(5).await;
    let second = issue(&client, &command(2, false)).await.record;
    store.empty();
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![]));
    assert_eq!(client.streams(&key().tenant, None).await, Ok(vec![]));
    let emptied = client.life().await;
    store.rewind(&checkpoint);
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![first]));
    assert_eq!(client.streams(&key().tenant, None).await, Ok(vec![stream(1)]));
    assert_eq!(step(&client, &second.cmd, &Step::Look).await, None);
    pass(1).await;
    let again = issue(&client, &command(2, false)).await.record;
    assert!(again.seq > second.seq, "places grow over a loss");
    assert_ne!(again.cmd, second.cmd);
    let rewound = client.life().await;
    assert!(life != emptied && emptied != rewound, "{life:?} {emptied:?} {rewound:?}");
}

#[tokio::test(start_paused = true)]
async fn places_grow_over_a_loss_of_everything() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let mut last = 0;
    for number in 0..5 {
        let record = issue(&client, &command(number, false)).await.record;
        assert!(record.seq > last);
        last = record.seq;
        store.empty();
        pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_over_stays_over_when_the_clock_jumps_back() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let decided = issue(&client, &command(1, false)).await.record;
    client.open_stream(&key().tenant, &stream(1), Duration::from_secs(1)).await.expect("an answer");
    pass(DEADLINE_MS + KEPT_MS).await;
    store.clock_jump(-60_000);
    assert_eq!(client.streams(&key().tenant, None).await, Ok(vec![]));
    assert_eq!(client.latest(&key(), None, 9).await, Ok(vec![]));
    assert_eq!(step(&client, &decided.cmd, &Step::Look).await, None);
}

#[tokio::test(start_paused = true)]
async fn commands_keep_their_order_when_the_clock_jumps_back() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let before = issue(&client, &command(1, true)).await.record;
    store.clock_jump(-60_000);
    let after = issue(&client, &command(2, true)).await.record;
    assert!(after.seq > before.seq);
    assert_eq!((after.prev, after.deadline_at_ms), (before.seq, START_MS - 60_000 + DEADLINE_MS));
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_is_gone_sweeps_no_longer_than_it_may_when_the_clock_jumps_back() {
    let store = MemoryRegistry::new(START_MS);
    let (one, two) = (store.client(&edge("one")), store.client(&edge("two")));
    let cmd = issue(&one, &NewCommand { deadline_ms: 1, ..command(1, true) }).await.record.cmd;
    let given = Ok(vec![(key().tenant, cmd)]);
    pass(60_000).await;
    assert_eq!(one.overdue(&edge("one")).await, given);
    assert_eq!(two.overdue(&edge("two")).await, Ok(vec![]));
    pass(SWEEPER_MS - 1).await;
    assert_eq!(two.overdue(&edge("two")).await, Ok(vec![]));
    store.clock_jump(-30_000);
    pass(1).await;
    assert_eq!(two.overdue(&edge("two")).await, given);
    assert_eq!(one.overdue(&edge("one")).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn takeovers_are_counted_anew_after_their_window() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let window_ms = u64::try_from(TAKEOVER_WINDOW.as_millis()).expect("a time of minutes");
    let mut told = vec![];
    for waits_ms in [0, 0, window_ms - 1, 1] {
        pass(waits_ms).await;
        told.push(client.acquire(&lease("one"), &key(), None).await.expect("an answer").takeovers);
    }
    assert_eq!(told, [0, 1, 2, 1]);
}

/// The locks, under real parallelism: while sessions take over from each other and send what is there, each sending of a
/// command is won by one of them, and of those who issue it at once it is new to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn steps_that_run_in_parallel_exclude_each_other() {
    const EDGES: usize = 4;
    const COMMANDS: u8 = 200;
    let store = MemoryRegistry::new(START_MS);
    // Commands are not held, and so as many are taken as may be open.
    acquire(&store.client(&edge("e0")), "e0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..EDGES {
        let name = format!("e{number}");
        let client = store.client(&edge(&name));
        tasks.spawn(async move {
            let (mut firsts, mut won) = (vec![], vec![]);
            for number in 0..COMMANDS {
                let stepped = issue(&client, &command(number, true)).await;
                firsts.extend((stepped.took == Took::Yes).then_some(number));
                let (sent, epoch) = loop {
                    let epoch = acquire(&client, &name).await;
                    let sent = step(&client, &stepped.record.cmd, &send(epoch)).await.expect("a command that is known");
                    if sent.took != Took::No(Refusal::Fenced) {
                        break (sent, epoch);
                    }
                    tokio::task::yield_now().await;
                };
                assert_eq!(sent.holder, Some(Holder { edge: edge(&name), epoch }));
                won.extend((sent.took == Took::Yes).then_some((number, sent.record.sends)));
            }
            (firsts, won)
        });
    }
    let (mut firsts, mut sends) = (vec![], vec![]);
    for (first, won) in tasks.join_all().await {
        firsts.extend(first);
        sends.extend(won);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..COMMANDS).collect::<Vec<_>>(), "each was new to one of those who issued it");
    sends.sort_unstable();
    let each = (0..COMMANDS).flat_map(|number| (1..=SENDS).map(move |count| (number, count)));
    assert_eq!(sends, each.collect::<Vec<_>>(), "each sending was won by one session");
}

#[tokio::test(start_paused = true)]
async fn decided_commands_at_ever_other_addresses_take_a_bounded_room_and_the_open_ones_stay() {
    let client = MemoryRegistry::new(START_MS).client(&edge("one"));
    let large = riser_core::Json::of(&"x".repeat(60_000));
    let at = |i: usize| GatewayKey::new(key().tenant, format!("b/g{i}").parse().expect("an address"));
    let new =
        |hold| NewCommand { body: Body { args: Some(large.clone()), ..command(1, hold).body }, ..command(1, hold) };
    let held = client.create(&at(0), &new(true)).await.expect("an answer");
    let Created::Recorded(held) = held else { panic!("{held:?}") };
    let count = 3 * RECORDS_BYTES / 60_000;
    for i in 1..count {
        tokio::time::advance(Duration::from_millis(1)).await;
        client.create(&at(i), &new(false)).await.expect("an answer");
    }
    let mut kept = Vec::new();
    for i in 1..count {
        let found = client.latest(&at(i), None, 1).await.expect("an answer");
        kept.extend(found.first().map(|_| i));
    }
    assert!(kept.len() * 60_000 < RECORDS_BYTES + 256 * 61_000, "{} are kept", kept.len());
    assert!(kept.len() * 60_000 > RECORDS_BYTES / 2, "{} are kept", kept.len());
    assert!(kept.iter().copied().eq(count - kept.len()..count), "the oldest go first: {:?} is kept", kept.first());
    assert_eq!(client.open(&at(0), 0, 1).await.expect("an answer"), [held.record], "what is open is not forgotten");
}
