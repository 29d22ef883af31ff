//! Recording commands: what is kept of a new one, what makes two of them the same, and how many may wait.

use riser_core::command::{Body, CommandId, DEADLINE_MS, Digest, EDGES, HELD, Record, Status, Step, Took};
use riser_core::{EdgeId, GatewayKey, Json, Reason};

use super::{Bench, path};
use crate::commands::{DECIDED, DECIDED_BYTES, OPEN, OPEN_BYTES, RECORDS_BYTES};
use crate::{Acquired, CommandStore, Created, Holder, NewCommand, Registry, StateStore, Stepped};

/// A deadline that does not pass within its case.
pub(super) const FAR_MS: u64 = *DEADLINE_MS.end();

/// A deadline that passes at once.
pub(super) const NEAR_MS: u64 = 1;

/// The digest of the command of this number.
pub(super) fn digest(number: usize) -> Digest {
    Digest((number as u128).to_be_bytes())
}

/// How a command came to stand where it does.
pub(super) fn statuses(record: &Record) -> Vec<Status> {
    record.outcomes.iter().map(|outcome| outcome.status).collect()
}

pub(super) fn cancelled(key: &GatewayKey, stepped: Option<Stepped>) {
    let stepped = stepped.expect("a command that is known");
    assert_eq!((&stepped.record.cmd.of, stepped.took), (&key.address, Took::Yes));
}

impl<S: Registry + StateStore + CommandStore> Bench<S> {
    pub(super) fn edge(&self, name: &str) -> EdgeId {
        self.lease(name, 1).edge
    }

    /// A command that is not like one of another number, to be held when it must be, with a deadline that is far away.
    pub(super) fn command(&self, number: usize, hold: bool) -> NewCommand {
        let args = Some(Json::parse(&format!(r#"{{"number":{number},"to":"up"}}"#)).expect("JSON"));
        NewCommand {
            digest: digest(number),
            body: Body { path: path("door/1"), action: "open".parse().expect("an action"), args, hold },
            by: "client:anna".into(),
            deadline_ms: FAR_MS,
            edge: self.edge("issuer"),
            no_room: false,
        }
    }

    /// Records a command, or hears that it was recorded before.
    pub(super) async fn issue(&self, key: &GatewayKey, command: &NewCommand) -> Stepped {
        match self.one.create(key, command).await.expect("an answer") {
            Created::Recorded(stepped) => *stepped,
            refused => panic!("{refused:?}"),
        }
    }

    /// Records so many commands, numbered from 0.
    pub(super) async fn issue_many(&self, key: &GatewayKey, count: usize, hold: bool) -> Vec<Record> {
        let mut records = vec![];
        for number in 0..count {
            records.push(self.issue(key, &self.command(number, hold)).await.record);
        }
        records
    }

    pub(super) async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Option<Stepped> {
        self.two.step(key, cmd, step).await.expect("an answer")
    }

    /// What is kept of a command that is known.
    pub(super) async fn look(&self, key: &GatewayKey, cmd: &CommandId) -> Record {
        let stepped = self.step(key, cmd, &Step::Look).await.expect("a command that is known");
        assert_eq!(stepped.took, Took::Nothing);
        stepped.record
    }
}

/// Who holds a gateway after this session has begun.
pub(super) fn holder(edge: &EdgeId, acquired: &Acquired) -> Holder {
    Holder { edge: edge.clone(), epoch: acquired.epoch }
}

/// "Records a command": its name and its deadline are by the store's clock, nothing became of it yet, and the answer
/// says who holds its gateway.
pub async fn a_command_is_recorded_as_it_was_issued<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let acquired = bench.acquire(&lease, &key).await;
    let command = bench.command(7, true);
    let stepped = bench.issue(&key, &command).await;
    assert_eq!((stepped.took, stepped.before), (Took::Yes, 0));
    assert_eq!(stepped.holder, Some(holder(&lease.edge, &acquired)));
    assert!(stepped.now_ms >= acquired.now_ms);
    let cmd = CommandId { of: key.address.clone(), digest: command.digest, at_ms: stepped.now_ms };
    let record = Record {
        cmd: cmd.clone(),
        seq: stepped.record.seq,
        prev: 0,
        body: command.body,
        by: command.by,
        deadline_at_ms: stepped.now_ms + command.deadline_ms,
        sends: 0,
        sent_at_ms: 0,
        sent_to: None,
        outcomes: vec![],
        edges: vec![command.edge],
    };
    assert_eq!(stepped.record, record);
    assert!(record.seq > 0, "0 stands for none");
    assert_eq!(bench.look(&key, &cmd).await, record);
}

/// "Its `seq` is greater than that of every earlier one of the gateway, and its `prev` is the greatest of those", whatever
/// became of them.
pub async fn commands_of_a_gateway_are_in_the_order_of_calls<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (lease, key, other) = (bench.held("one").await, bench.key("b/g"), bench.key("b/other"));
    let mut last = 0;
    for number in 0..6 {
        if number == 2 {
            bench.acquire(&lease, &key).await;
        }
        let record = bench.issue(&key, &bench.command(number, number != 0)).await.record;
        assert!(record.seq > last);
        assert_eq!(record.prev, last);
        last = record.seq;
        bench.issue(&other, &bench.command(number, true)).await;
        if number == 4 {
            cancelled(&key, bench.step(&key, &record.cmd, &Step::Cancel).await);
        }
    }
}

/// The same, when they come at once: each has its own place, and follows another.
pub async fn commands_that_come_at_once_follow_one_another<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    let commands = [0, 1, 2, 3].map(|number| bench.command(number, true));
    let (a, b, c, d) = tokio::join!(
        bench.one.create(&key, &commands[0]),
        bench.two.create(&key, &commands[1]),
        bench.one.create(&key, &commands[2]),
        bench.two.create(&key, &commands[3]),
    );
    let mut places = vec![];
    for created in [a, b, c, d] {
        let Created::Recorded(stepped) = created.expect("an answer") else { panic!("a refusal") };
        places.push((stepped.record.seq, stepped.record.prev));
    }
    places.sort_unstable();
    let mut last = 0;
    for (seq, prev) in places {
        assert_eq!(prev, last);
        assert!(seq > last);
        last = seq;
    }
}

/// "When the gateway is offline, `Step::Offline` is applied in the same step": of one that nobody knows, and of one that
/// has ended.
pub async fn a_command_of_an_offline_gateway_is_held_or_decided_at_once<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (lease, left) = (bench.held("one").await, bench.key("b/left"));
    let acquired = bench.acquire(&lease, &left).await;
    bench.one.release(&left, acquired.epoch, Reason::Closed).await.expect("an answer").expect("an end");
    for key in [bench.key("b/unknown"), left] {
        for (number, hold, status) in [(1, true, Status::Held), (2, false, Status::Offline)] {
            let stepped = bench.issue(&key, &bench.command(number, hold)).await;
            assert_eq!((stepped.took, stepped.before, &stepped.holder), (Took::Yes, 0, &None));
            assert_eq!(statuses(&stepped.record), [status]);
            assert_eq!(stepped.record.outcomes[0].at_ms, stepped.now_ms);
            assert_eq!(stepped.record.decided().is_some(), !hold);
            assert_eq!(bench.look(&key, &stepped.record.cmd).await, stepped.record);
        }
    }
}

/// "A digest that is known is the same command: the edge is added to who is told, and nothing else changes", neither by
/// another issuer nor by another deadline, and not by how `args` are written.
pub async fn a_known_digest_is_the_same_command<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let held = bench.issue(&key, &bench.command(1, true)).await.record;
    let acquired = bench.acquire(&lease, &key).await;
    let again = NewCommand {
        body: Body {
            args: Some(Json::parse(r#"{ "to": "up", "number": 1 }"#).expect("JSON")),
            ..bench.command(1, true).body
        },
        by: "client:bert".into(),
        deadline_ms: 5_000,
        edge: bench.edge("another"),
        ..bench.command(1, true)
    };
    let mut expected = held.clone();
    for edges in [vec!["issuer", "another"], vec!["issuer", "another"]] {
        let stepped = bench.issue(&key, &again).await;
        assert_eq!((stepped.took, stepped.before), (Took::Nothing, 1));
        assert_eq!(stepped.holder, Some(holder(&lease.edge, &acquired)));
        expected.edges = edges.into_iter().map(|name| bench.edge(name)).collect();
        assert_eq!(stepped.record, expected);
    }
    cancelled(&key, bench.step(&key, &held.cmd, &Step::Cancel).await);
    let stepped = bench.issue(&key, &again).await;
    assert_eq!((stepped.took, stepped.before), (Took::Nothing, 2), "a decided one is the same too");
    let next = bench.issue(&key, &bench.command(2, true)).await.record;
    assert_eq!(next.prev, held.seq, "a repetition takes no place");
}

/// Edges that are told of a command are bounded: beyond it the oldest is forgotten.
pub async fn the_newest_edges_are_told<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    let mut edges = vec![];
    for number in 0..EDGES + 2 {
        edges.push(bench.edge(&format!("e{number}")));
        let command = NewCommand { edge: edges[number].clone(), ..bench.command(1, true) };
        assert_eq!(bench.issue(&key, &command).await.record.edges, edges[number.saturating_sub(EDGES - 1)..]);
    }
}

/// "The same digest was given to another body, which is not forgotten yet", decided or not. It changes nothing.
pub async fn a_known_digest_with_another_body_is_a_conflict<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    for (number, hold) in [(1, true), (2, false)] {
        let command = bench.command(number, hold);
        let record = bench.issue(&key, &command).await.record;
        let other = |body| NewCommand { body, edge: bench.edge("another"), ..command.clone() };
        for other in [
            other(Body { path: path("door/2"), ..command.body.clone() }),
            other(Body { action: "shut".parse().expect("an action"), ..command.body.clone() }),
            other(Body { args: None, ..command.body.clone() }),
            other(Body { hold: !hold, ..command.body.clone() }),
        ] {
            assert_eq!(bench.one.create(&key, &other).await, Ok(Created::Conflict));
        }
        assert_eq!(bench.look(&key, &record.cmd).await, record);
        let elsewhere = other(Body { args: None, ..command.body.clone() });
        assert_eq!(
            bench.issue(&bench.key("b/other"), &elsewhere).await.took,
            Took::Yes,
            "of another gateway it is new"
        );
    }
}

/// A repetition of "an overdue command becomes decided".
pub async fn repeating_an_overdue_command_decides_it<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    let command = NewCommand { deadline_ms: NEAR_MS, ..bench.command(1, true) };
    let record = bench.issue(&key, &command).await.record;
    bench.until(record.deadline_at_ms).await;
    let stepped = bench.issue(&key, &command).await;
    assert_eq!((stepped.took, stepped.before), (Took::Nothing, 1));
    assert_eq!(statuses(&stepped.record), [Status::Held, Status::Expired]);
    assert_eq!(bench.look(&key, &record.cmd).await, stepped.record);
}

/// "As many commands are held for the gateway as may be": those count that are to be held and wait to be sent.
pub async fn held_commands_are_bounded<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let records = bench.issue_many(&key, HELD, true).await;
    let beyond = bench.command(HELD, true);
    assert_eq!(bench.one.create(&key, &beyond).await, Ok(Created::QueueFull));
    assert_eq!(bench.issue(&key, &bench.command(3, true)).await.took, Took::Nothing, "a known one is no more");
    let offline = bench.issue(&key, &bench.command(1_000, false)).await.record;
    assert_eq!(statuses(&offline), [Status::Offline], "one that is not to be held is none of them");
    assert_eq!(bench.issue(&bench.key("b/other"), &beyond).await.took, Took::Yes, "each gateway has its own");

    cancelled(&key, bench.step(&key, &records[5].cmd, &Step::Cancel).await);
    let stepped = bench.issue(&key, &beyond).await;
    assert_eq!((stepped.took, statuses(&stepped.record)), (Took::Yes, vec![Status::Held]), "there is room again");
    assert_eq!(stepped.record.prev, offline.seq, "what was refused took no place");
    assert_eq!(bench.one.create(&key, &bench.command(2_000, true)).await, Ok(Created::QueueFull));
    bench.acquire(&lease, &key).await;
    let online = bench.issue(&key, &bench.command(2_000, true)).await.record;
    assert_eq!(statuses(&online), [], "nothing is held for a gateway that is online");
}

/// "Has no room": what would have to be held is refused, and nothing else.
pub async fn a_command_without_room_is_not_held<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let known = bench.issue(&key, &bench.command(1, true)).await.record;
    let without = |number, hold| NewCommand { no_room: true, ..bench.command(number, hold) };
    assert_eq!(bench.one.create(&key, &without(2, true)).await, Ok(Created::QueueFull));
    assert_eq!(bench.issue(&key, &without(1, true)).await.record.cmd, known.cmd, "a known one is no more");
    assert_eq!(statuses(&bench.issue(&key, &without(3, false)).await.record), [Status::Offline]);
    bench.acquire(&lease, &key).await;
    assert_eq!(bench.issue(&key, &without(4, true)).await.took, Took::Yes, "one for a gateway that is there");
}

/// The undecided commands of a tenant, wherever they are.
pub async fn undecided_commands_are_counted_by_tenant<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (key, other) = (bench.key("b/g"), bench.key("b2/g"));
    assert_eq!(bench.two.undecided(&key.tenant).await, Ok(0));
    let records = bench.issue_many(&key, 3, true).await;
    bench.issue(&other, &bench.command(4, true)).await;
    bench.issue(&other, &bench.command(4, true)).await;
    bench.issue(&other, &bench.command(5, false)).await;
    assert_eq!(bench.two.undecided(&key.tenant).await, Ok(4), "neither a repeated one nor one that is decided at once");
    cancelled(&key, bench.step(&key, &records[1].cmd, &Step::Cancel).await);
    assert_eq!(bench.two.undecided(&key.tenant).await, Ok(3));
    assert_eq!(bench.two.undecided(&bench.tenant("u")).await, Ok(0));
}

/// The same: neither what was sent nor what was not to be held counts, although it is open while its gateway is offline.
pub async fn only_what_waits_to_be_sent_is_held<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let sent = bench.issue(&key, &bench.command(1_000, true)).await.record;
    let send = Step::Send { epoch, remembers_ms: 0 };
    assert_eq!(bench.step(&key, &sent.cmd, &send).await.map(|stepped| stepped.took), Some(Took::Yes));
    bench.issue(&key, &bench.command(1_001, false)).await;
    bench.issue(&key, &bench.command(1_002, true)).await;
    bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    bench.issue_many(&key, HELD - 1, true).await;
    assert_eq!(bench.one.create(&key, &bench.command(HELD, true)).await, Ok(Created::QueueFull));
}

/// "As many commands of the gateway are open as may be."
pub async fn open_commands_are_bounded<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    bench.acquire(&lease, &key).await;
    let records = bench.issue_many(&key, OPEN, false).await;
    let beyond = bench.command(OPEN, false);
    assert_eq!(bench.one.create(&key, &beyond).await, Ok(Created::TooMany));
    assert_eq!(bench.one.create(&key, &bench.command(OPEN, true)).await, Ok(Created::TooMany));
    assert_eq!(bench.issue(&key, &bench.command(3, false)).await.took, Took::Nothing, "a known one is no more");
    cancelled(&key, bench.step(&key, &records[OPEN - 1].cmd, &Step::Cancel).await);
    assert_eq!(bench.issue(&key, &beyond).await.took, Took::Yes, "there is room again");
    assert_eq!(bench.one.create(&key, &bench.command(OPEN + 1, false)).await, Ok(Created::TooMany));
}

/// Decided commands are kept up to a bound; "beyond it the oldest are forgotten first". What is open is never forgotten.
pub async fn decided_commands_beyond_the_bound_are_forgotten<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let key = bench.key("b/g");
    let open = bench.issue(&key, &bench.command(DECIDED + 1, true)).await.record;
    let records = bench.issue_many(&key, DECIDED + 1, false).await;
    assert_eq!(bench.step(&key, &records[0].cmd, &Step::Look).await, None);
    for record in [&records[1], &records[DECIDED], &open] {
        assert_eq!(bench.look(&key, &record.cmd).await, *record);
    }
    let again = bench.issue(&key, &bench.command(0, true)).await;
    assert_eq!((again.took, statuses(&again.record)), (Took::Yes, vec![Status::Held]), "its digest is free");
    assert!(again.record.seq > records[DECIDED].seq);
}

/// A command with arguments of 60 kB.
fn large(command: NewCommand) -> NewCommand {
    let args = Some(Json::of(&"x".repeat(60_000)));
    NewCommand { body: Body { args, ..command.body }, ..command }
}

/// What is decided at one gateway takes a bounded room, so that no other gateway's commands are forgotten for it.
pub async fn large_commands_of_one_gateway_have_only_its_own_forgotten<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (key, other) = (bench.key("b/g"), bench.key("b/other"));
    let kept = bench.issue(&other, &bench.command(0, false)).await.record;
    let count = RECORDS_BYTES / 60_000 + 2;
    let mut records = vec![];
    for number in 0..count {
        records.push(bench.issue(&key, &large(bench.command(number, false))).await.record.cmd);
    }
    assert_eq!(bench.look(&other, &kept.cmd).await, kept);
    let fit = DECIDED_BYTES / 61_000;
    assert_eq!(bench.step(&key, &records[0], &Step::Look).await, None);
    assert_eq!(bench.step(&key, &records[count - DECIDED_BYTES / 60_000 - 1], &Step::Look).await, None);
    assert!(bench.step(&key, &records[count - fit], &Step::Look).await.is_some(), "those that fit are kept");
}

/// What is open is never forgotten, so that it is bounded for a tenant by refusing more.
pub async fn open_commands_of_a_tenant_take_a_bounded_room<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let at = |number: usize| bench.key(&format!("b/g{number}"));
    let mut records = vec![];
    loop {
        assert!(records.len() <= OPEN_BYTES / 60_000 + 1, "no bound");
        let number = records.len();
        match bench.one.create(&at(number), &large(bench.command(number, true))).await.expect("an answer") {
            Created::Recorded(stepped) => records.push(stepped.record),
            refused => break assert_eq!(refused, Created::TooMany),
        }
    }
    assert!(records.len() >= OPEN_BYTES / 64_000, "{} only", records.len());
    let known = bench.issue(&at(0), &large(bench.command(0, true))).await;
    assert_eq!((known.took, &known.record), (Took::Nothing, &records[0]), "a known one is no more");
    let decided = bench.issue(&at(0), &large(bench.command(records.len(), false))).await;
    assert_eq!(statuses(&decided.record), [Status::Offline], "nor is one that is decided at once");
    for (number, record) in records.iter().enumerate().take(3) {
        cancelled(&at(number), bench.step(&at(number), &record.cmd, &Step::Cancel).await);
    }
    let again = bench.issue(&at(0), &large(bench.command(records.len() + 1, true))).await;
    assert_eq!(again.took, Took::Yes, "there is room again");
}
