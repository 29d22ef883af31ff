//! Finding commands: those of one gateway, in both orders; how many there are; and those that are overdue.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::command::{CommandId, Record, Status, Step};
use riser_core::{EdgeId, GatewayKey};
use tokio::time::Instant;

use super::commands::{NEAR_MS, cancelled, statuses};
use super::{Bench, LOOK_EVERY, PATIENCE};
use crate::commands::{OVERDUE_PAGE, RECORDS_PAGE, SWEEPER_MS};
use crate::{CommandStore, NewCommand, Registry, StateStore};

/// How long a case waits to be given overdue commands. One edge of the cluster is, so that cases that run beside each
/// other take turns.
const TURN: Duration = Duration::from_secs(4 * PATIENCE.as_secs());

/// What is overdue and older than any case runs, in milliseconds, was left by an earlier run and is in the way.
const LEFT_MS: u64 = 600_000;

impl<S: Registry + StateStore + CommandStore> Bench<S> {
    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Vec<Record> {
        self.two.open(key, after, limit).await.expect("an answer")
    }

    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Vec<Record> {
        self.two.latest(key, before, limit).await.expect("an answer")
    }

    /// How many commands of a gateway wait to be sent for the first time.
    async fn unsent(&self, key: &GatewayKey) -> usize {
        let held = self.two.audit(&key.tenant, key.address.building()).await.expect("an answer");
        held.iter().find(|held| held.gateway == *key.address.gateway()).expect("a gateway that is known").unsent
    }

    /// The overdue commands of this case, as an edge is given them now.
    async fn overdue(&self, by: &EdgeId) -> Vec<CommandId> {
        let overdue = self.one.overdue(by).await.expect("an answer");
        assert!(overdue.len() <= OVERDUE_PAGE, "a page of {}", overdue.len());
        let (own, now_ms) = (self.tenant("t"), self.now_ms().await);
        let mut given = vec![];
        for (tenant, cmd) in overdue {
            if tenant == own {
                given.push(cmd);
            } else if cmd.at_ms + LEFT_MS < now_ms {
                self.step(&GatewayKey::new(tenant, cmd.of.clone()), &cmd, &Step::Look).await;
            }
        }
        given
    }

    /// Waits until an edge is given overdue commands of this case.
    async fn given(&self, by: &EdgeId) -> Vec<CommandId> {
        let give_up = Instant::now() + TURN;
        loop {
            let given = self.overdue(by).await;
            if !given.is_empty() {
                return given;
            }
            assert!(Instant::now() < give_up, "{by:?} was given nothing within {TURN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Records a command whose deadline passes at once, and waits for that.
    async fn issue_overdue(&self, key: &GatewayKey, number: usize) -> Record {
        let command = NewCommand { deadline_ms: NEAR_MS, ..self.command(number, true) };
        let record = self.issue(key, &command).await.record;
        self.until(record.deadline_at_ms).await;
        record
    }
}

/// "The commands of a gateway that are not decided, in their order, those after `after`, at most `limit`."
pub async fn open_commands_come_in_their_order<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    assert_eq!(bench.open(&key, 0, 10).await, []);
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let mut records = bench.issue_many(&key, 5, true).await;
    bench.issue(&bench.key("b/other"), &bench.command(9, true)).await;
    assert_eq!(bench.open(&key, 0, 10).await, records);
    assert_eq!(bench.open(&key, 0, 2).await, records[..2]);
    assert_eq!(bench.open(&key, records[1].seq, 2).await, records[2..4]);
    assert_eq!(bench.open(&key, records[4].seq, 10).await, []);

    cancelled(&key, bench.step(&key, &records[2].cmd, &Step::Cancel).await);
    let send = Step::Send { epoch, remembers_ms: 0 };
    let sent = bench.step(&key, &records[0].cmd, &send).await.expect("a command that is known").record;
    assert_eq!(statuses(&sent), [Status::Sent]);
    records[0] = sent;
    let gone = records.remove(2);
    assert_eq!(bench.open(&key, 0, 10).await, records, "one that was sent is open, and one that was decided is not");
    assert_eq!(bench.open(&key, gone.seq, 1).await, records[2..3], "a place is one to go on from, decided or not");
}

/// "The commands of a gateway, decided or not, the newest first, those before `before`, at most `limit`."
pub async fn the_latest_commands_come_first<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    assert_eq!(bench.latest(&key, None, 10).await, []);
    let mut records = vec![];
    for number in 0..5 {
        records.push(bench.issue(&key, &bench.command(number, number % 2 == 0)).await.record);
    }
    bench.issue(&bench.key("b/other"), &bench.command(9, true)).await;
    records.reverse();
    assert_eq!(bench.latest(&key, None, 10).await, records);
    assert_eq!(bench.latest(&key, None, 2).await, records[..2]);
    assert_eq!(bench.latest(&key, Some(records[1].seq), 2).await, records[2..4]);
    assert_eq!(bench.latest(&key, Some(records[4].seq), 10).await, []);
}

/// "At most `RECORDS_PAGE`", whatever is asked for.
pub async fn a_page_of_commands_is_bounded<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    bench.acquire(&lease, &key).await;
    let mut records = bench.issue_many(&key, RECORDS_PAGE + 2, true).await;
    assert_eq!(bench.open(&key, 0, usize::MAX).await, records[..RECORDS_PAGE]);
    assert_eq!(bench.open(&key, records[RECORDS_PAGE - 1].seq, usize::MAX).await, records[RECORDS_PAGE..]);
    records.reverse();
    assert_eq!(bench.latest(&key, None, usize::MAX).await, records[..RECORDS_PAGE]);
    assert_eq!(bench.latest(&key, Some(records[RECORDS_PAGE - 1].seq), usize::MAX).await, records[RECORDS_PAGE..]);
}

/// A session is told at its beginning "how many of its commands are not decided".
pub async fn a_session_is_told_how_many_commands_are_open<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    bench.issue(&bench.key("b/other"), &bench.command(1, true)).await;
    assert_eq!(bench.acquire(&one, &bench.key("b/none")).await.open_commands, 0);
    let records = bench.issue_many(&key, 3, true).await;
    bench.issue(&key, &bench.command(3, false)).await;
    cancelled(&key, bench.step(&key, &records[2].cmd, &Step::Cancel).await);
    let acquired = bench.acquire(&one, &key).await;
    assert_eq!(acquired.open_commands, 2);
    let send = Step::Send { epoch: acquired.epoch, remembers_ms: 0 };
    bench.step(&key, &records[0].cmd, &send).await.expect("a command that is known");
    bench.issue(&key, &bench.command(4, false)).await;
    assert_eq!(bench.acquire(&two, &key).await.open_commands, 3, "what was sent is open, and a takeover is told too");
}

/// An audit says "how many of its commands wait to be sent for the first time", of each gateway.
pub async fn an_audit_counts_what_waits_to_be_sent<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key, other) = (bench.held("one").await, bench.key("b/g"), bench.key("b/other"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    bench.acquire(&lease, &other).await;
    let records = bench.issue_many(&key, 3, false).await;
    bench.issue(&other, &bench.command(1, true)).await;
    assert_eq!((bench.unsent(&key).await, bench.unsent(&other).await), (3, 1));
    let send = Step::Send { epoch, remembers_ms: 0 };
    bench.step(&key, &records[1].cmd, &send).await.expect("a command that is known");
    assert_eq!(bench.unsent(&key).await, 2);
    cancelled(&key, bench.step(&key, &records[0].cmd, &Step::Cancel).await);
    assert_eq!((bench.unsent(&key).await, bench.unsent(&other).await), (1, 1));
}

/// "The most overdue first, at most `OVERDUE_PAGE`", of all gateways; what became decided makes room for the next.
pub async fn the_most_overdue_commands_are_given_first<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, by) = (bench.held("one").await, bench.edge("sweeper"));
    let keys = [bench.key("b/g"), bench.key("c/g")];
    let mut deadlines = BTreeMap::new();
    for key in &keys {
        bench.acquire(&lease, key).await;
    }
    for number in 0..OVERDUE_PAGE + 4 {
        // Not in the order in which they become overdue.
        let command = NewCommand { deadline_ms: 1 + 7 * (number as u64 % 5), ..bench.command(number, true) };
        let record = bench.issue(&keys[number % 2], &command).await.record;
        deadlines.insert(record.cmd, record.deadline_at_ms);
    }
    bench.until(deadlines.values().copied().max().expect("a deadline")).await;
    while !deadlines.is_empty() {
        let given = bench.given(&by).await;
        let mut sorted: Vec<_> = deadlines.values().copied().collect();
        sorted.sort_unstable();
        let of_given = given.iter().map(|cmd| deadlines.remove(cmd).expect("one that is not decided"));
        assert_eq!(of_given.collect::<Vec<_>>(), sorted[..given.len()]);
        for cmd in given {
            let key = &keys[usize::from(cmd.of != keys[0].address)];
            let stepped = bench.step(key, &cmd, &Step::Look).await.expect("a command that is known");
            assert_eq!(statuses(&stepped.record), [Status::Expired]);
        }
    }
}

/// "Commands whose deadline has passed and that are not decided", sent or not, until they are.
pub async fn what_is_decided_or_not_yet_due_is_not_given<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, by, key) = (bench.held("one").await, bench.edge("sweeper"), bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    bench.issue(&key, &bench.command(1, true)).await;
    let decided = bench.issue_overdue(&key, 2).await;
    bench.look(&key, &decided.cmd).await;
    let command = NewCommand { deadline_ms: 1_000, ..bench.command(3, true) };
    let sent = bench.issue(&key, &command).await.record;
    let send = Step::Send { epoch, remembers_ms: 0 };
    bench.step(&key, &sent.cmd, &send).await.expect("a command that is known");
    bench.until(sent.deadline_at_ms).await;
    for expected in [sent, bench.issue_overdue(&key, 4).await] {
        let given = bench.given(&by).await;
        assert_eq!(given[0], expected.cmd);
        let decided = bench.look(&key, &given[0]).await;
        let status = if decided.sends > 0 { Status::Unknown } else { Status::Expired };
        assert_eq!(statuses(&decided).last(), Some(&status));
    }
    assert_eq!(bench.overdue(&by).await, []);
}

/// "Given to one edge only, as long as that asks again within `SWEEPER_MS`"; "another takes over when it is gone".
pub async fn overdue_commands_are_given_to_one_edge_until_it_is_gone<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (one, two, key) = (bench.edge("s1"), bench.edge("s2"), bench.key("b/g"));
    let overdue = vec![bench.issue_overdue(&key, 1).await.cmd];
    let give_up = Instant::now() + TURN;
    let mut seen = 0;
    while seen < 3 {
        assert!(Instant::now() < give_up, "an edge was never asked twice within {SWEEPER_MS} ms");
        let before_ms = bench.now_ms().await;
        assert_eq!(bench.given(&one).await, overdue);
        bench.until(before_ms + SWEEPER_MS / 2).await;
        let others = bench.overdue(&two).await;
        // Between the two calls the machine may have stood still for longer than the claim lasts.
        if bench.now_ms().await < before_ms + SWEEPER_MS {
            assert_eq!(others, [], "two edges were given the same");
            seen += 1;
        }
    }
    assert_eq!(bench.given(&two).await, overdue);
}
