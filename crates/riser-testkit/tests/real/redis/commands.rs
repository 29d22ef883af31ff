//! Commands in Redis: what the suite cannot wait for, and many who want the same.

use riser_core::command::{Body, Refusal, SENDS, Step, Took};
use riser_core::{Epoch, GatewayKey, Json};
use riser_registry::commands::RECORDS_BYTES;
use riser_registry::redis::RedisRegistry;
use riser_registry::{CommandStore, Created, NewCommand, Registry, Stepped};
use riser_testkit::real::redis::Reply;

use super::{command, config, connect, key, lease, start};

async fn issue(registry: &RedisRegistry, key: &GatewayKey, command: &NewCommand) -> Stepped {
    match registry.create(key, command).await.expect("an answer") {
        Created::Recorded(stepped) => *stepped,
        refused => panic!("{refused:?}"),
    }
}

fn send(epoch: Epoch) -> Step {
    Step::Send { epoch, remembers_ms: u64::MAX }
}

/// Sessions take over from each other and send what is there: each sending of a command is won by one of them, and of those
/// who issue it at once it is new to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_run_in_parallel_exclude_each_other() {
    const EDGES: u64 = 4;
    const COMMANDS: u8 = 60;
    let servers = start().await;
    let key = key("t", "b/g");
    let first = connect(config(&servers)).await;
    // Commands are not held, and so as many are taken as may be open.
    first.acquire(&lease("e0", 1), &key, None).await.expect("an answer");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..EDGES {
        let (registry, key, lease) = (connect(config(&servers)).await, key.clone(), lease(&format!("e{number}"), 1));
        tasks.spawn(async move {
            let (mut firsts, mut won) = (vec![], vec![]);
            for number in 0..COMMANDS {
                let stepped = issue(&registry, &key, &command(number, true)).await;
                firsts.extend((stepped.took == Took::Yes).then_some(number));
                loop {
                    let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
                    let sent = registry.step(&key, &stepped.record.cmd, &send(epoch)).await.expect("an answer");
                    let sent = sent.expect("a command that is known");
                    if sent.took != Took::No(Refusal::Fenced) {
                        won.extend((sent.took == Took::Yes).then_some((number, sent.record.sends)));
                        break;
                    }
                }
            }
            (firsts, won, registry.counts())
        });
    }
    let (mut firsts, mut sends, mut conflicts) = (vec![], vec![], 0);
    for (first, won, counts) in tasks.join_all().await {
        firsts.extend(first);
        sends.extend(won);
        conflicts += counts.conflicts;
        assert_eq!((counts.errors, counts.bad_values, counts.script_errors), (0, 0, 0));
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..COMMANDS).collect::<Vec<_>>(), "each was new to one of those who issued it");
    sends.sort_unstable();
    let each = (0..COMMANDS).flat_map(|number| (1..=SENDS).map(move |count| (number, count)));
    assert_eq!(sends, each.collect::<Vec<_>>(), "each sending was won by one session");
    assert!(conflicts > 0, "nobody met anybody");
}

#[tokio::test]
async fn decided_commands_are_forgotten_when_their_time_is_over_and_leave_nothing_behind() {
    let servers = start().await;
    let (registry, key) = (connect(config(&servers)).await, key("t", "b/g"));
    let mut raw = servers.raw(0).await.expect("a connection");
    let mut records = vec![];
    for number in 0..3 {
        records.push(issue(&registry, &key, &command(number, number == 0)).await.record);
    }
    let [c, x] = ["riser:{t/b}:c:g", "riser:{t/b}:x:g"];
    assert_eq!(raw.call(&["PTTL", c]).await.expect("an answer"), Reply::Number(-1), "what is open stays");
    // As if an hour had passed since the deadline of one of them.
    let digest = records[1].cmd.digest.to_string();
    assert_eq!(raw.call(&["ZADD", x, "XX", "CH", "1", &digest]).await.expect("an answer"), Reply::Number(1));
    let latest = registry.latest(&key, None, 9).await.expect("an answer");
    assert_eq!(latest, [records[2].clone(), records[0].clone()]);
    assert_eq!(registry.step(&key, &records[1].cmd, &Step::Look).await, Ok(None));
    let again = issue(&registry, &key, &command(1, true)).await;
    assert_eq!((again.took, again.record.prev), (Took::Yes, records[2].seq));
    for record in [&records[0], &again.record] {
        registry.step(&key, &record.cmd, &Step::Cancel).await.expect("an answer").expect("a command that is known");
    }
    for name in [c, x, "riser:{t/b}:d:g"] {
        let Reply::Number(left) = raw.call(&["PTTL", name]).await.expect("an answer") else { panic!("{name}") };
        assert!(left > 3_600_000, "{name} goes in {left} ms");
    }
    assert_eq!(raw.call(&["EXISTS", "riser:{t/b}:q", "riser:{_due}:z"]).await.expect("an answer"), Reply::Number(0));
}

#[tokio::test]
async fn a_deadline_that_stands_for_no_open_command_is_forgotten() {
    let servers = start().await;
    let (registry, key, by) = (connect(config(&servers)).await, key("t", "b/g"), lease("one", 1).edge);
    let mut raw = servers.raw(0).await.expect("a connection");
    let overdue = NewCommand { deadline_ms: 1, ..command(1, true) };
    let cmd = issue(&registry, &key, &overdue).await.record.cmd;
    // What a process leaves that dies between naming a command and writing it, or between deciding and taking its name out.
    for number in 0..300 {
        let name = format!("t b.g{number}.{}.1", cmd.digest);
        raw.call(&["ZADD", "riser:{_due}:z", "1", &name]).await.expect("an answer");
    }
    let given = async {
        loop {
            let given = registry.overdue(&by).await.expect("an answer");
            if !given.is_empty() {
                return given;
            }
        }
    };
    let given = tokio::time::timeout(crate::PATIENCE, given).await.expect("the command in time");
    assert_eq!(given, [(key.tenant.clone(), cmd)]);
    assert_eq!(raw.call(&["ZCARD", "riser:{_due}:z"]).await.expect("an answer"), Reply::Number(1));
}

#[tokio::test]
async fn decided_commands_at_ever_other_addresses_take_a_bounded_room_and_the_open_ones_stay() {
    let servers = start().await;
    let registry = connect(config(&servers)).await;
    let large = Json::of(&"x".repeat(60_000));
    let at = |number: usize| key("t", &format!("b{}/g{number}", number % 7));
    let new =
        |hold| NewCommand { body: Body { args: Some(large.clone()), ..command(1, hold).body }, ..command(1, hold) };
    let held = issue(&registry, &at(0), &new(true)).await.record;
    let count = 2 * RECORDS_BYTES / 60_000;
    let mut accepted = vec![];
    for number in 1..count {
        accepted.push(issue(&registry, &at(number), &new(false)).await.record.cmd.at_ms);
    }
    let (mut kept, mut gone) = (vec![], vec![]);
    for (number, at_ms) in (1..).zip(accepted) {
        let found = registry.latest(&at(number), None, 1).await.expect("an answer");
        if found.is_empty() { &mut gone } else { &mut kept }.push(at_ms);
    }
    assert!(kept.len() * 60_000 <= RECORDS_BYTES, "{} are kept", kept.len());
    assert!(kept.len() * 60_000 > RECORDS_BYTES / 2, "{} are kept", kept.len());
    // Of those of one millisecond any may go first.
    assert!(gone.iter().max() <= kept.iter().min(), "the oldest go first");
    assert_eq!(registry.open(&at(0), 0, 1).await.expect("an answer"), [held], "what is open is not forgotten");
    let other = issue(&registry, &key("u", "b/g"), &command(1, false)).await.record;
    assert_eq!(registry.latest(&key("u", "b/g"), None, 9).await.expect("an answer"), [other]);
}
