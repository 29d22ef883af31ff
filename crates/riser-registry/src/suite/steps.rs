//! Steps of commands: that they do what the vocabulary says, who may send, and what comes of those that meet.

use riser_core::command::{RUNNING, Record, Refusal, SENDS, Said, Status, Step, Took, Word};
use riser_core::{Epoch, GatewayKey, Json, Reason};

use super::Bench;
use super::commands::{NEAR_MS, digest, holder, statuses};
use crate::{CommandStore, NewCommand, Registry, StateStore, Stepped};

/// For how long a gateway remembers that is meant to.
const REMEMBERS_MS: u64 = 3_600_000;

fn send(epoch: Epoch) -> Step {
    Step::Send { epoch, remembers_ms: REMEMBERS_MS }
}

fn say(status: Said, data: &str) -> Step {
    let data = (!data.is_empty()).then(|| Json::parse(data).expect("JSON"));
    Step::Word(Word { status, code: Some("c1".parse().expect("a code")), data })
}

impl<S: Registry + StateStore + CommandStore> Bench<S> {
    /// Applies a step and sees that it did what the rule of the record does.
    async fn follows(&self, key: &GatewayKey, record: &mut Record, step: &Step, holds: Option<Epoch>) -> Stepped {
        let stepped = self.step(key, &record.cmd, step).await.expect("a command that is known");
        let before = record.outcomes.len();
        let took = record.step(step, holds, stepped.now_ms);
        assert_eq!((stepped.took, stepped.before), (took, before), "{step:?}");
        assert_eq!(stepped.record, *record, "{step:?}");
        assert_eq!(stepped.holder.as_ref().map(|holder| holder.epoch), holds);
        assert_eq!(self.look(key, &record.cmd).await, *record);
        stepped
    }
}

/// "Applies a step": what it does to a record is the vocabulary's rule, by the store's clock, for a command that goes its
/// way, and for each that does not.
pub async fn steps_do_what_the_vocabulary_says<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let said = |status| say(status, "");
    let ways: [&[Step]; 6] = [
        &[
            said(Said::Received),
            send(epoch),
            Step::Look,
            said(Said::Received),
            say(Said::Running, "10"),
            say(Said::Running, r#"{"done":20}"#),
            said(Said::Received),
            Step::Cancel,
            Step::Offline,
            say(Said::Succeeded, "[1,2]"),
            send(epoch),
            Step::Cancel,
        ],
        &[Step::Cancel, Step::Cancel, send(epoch), said(Said::Succeeded)],
        &[Step::Offline, Step::Offline, Step::Cancel],
        &[send(epoch), send(epoch), said(Said::Rejected), said(Said::Rejected), said(Said::Failed), said(Said::Failed)],
        &[send(Epoch(epoch.0 + 1)), send(Epoch(1)), Step::Look],
        &[send(epoch), said(Said::Cancelled), say(Said::Cancelled, "1"), Step::Cancel],
    ];
    for hold in [false, true] {
        for (number, way) in ways.iter().enumerate() {
            let mut record = bench.issue(&key, &bench.command(number + 100 * usize::from(hold), hold)).await.record;
            for step in *way {
                bench.tick().await;
                bench.follows(&key, &mut record, step, Some(epoch)).await;
            }
        }
    }
}

/// The same for words: as many are kept as may be.
pub async fn words_of_one_command_are_bounded<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let holds = Some(epoch);
    let mut record = bench.issue(&key, &bench.command(1, false)).await.record;
    bench.follows(&key, &mut record, &send(epoch), holds).await;
    for number in 0..=RUNNING {
        let stepped = bench.follows(&key, &mut record, &say(Said::Running, &number.to_string()), holds).await;
        assert_eq!(stepped.took == Took::No(Refusal::TooMany), number == RUNNING);
    }
    bench.follows(&key, &mut record, &say(Said::Failed, ""), holds).await;
    let last = loop {
        let late = say(Said::Running, &record.outcomes.len().to_string());
        let stepped = bench.follows(&key, &mut record, &late, holds).await;
        if stepped.took != Took::Yes {
            break stepped;
        }
    };
    assert_eq!(last.took, Took::No(Refusal::TooMany));
    assert_eq!(record.decided().map(|outcome| outcome.status), Some(Status::Failed));
}

/// "None when nothing is known of such a command": neither of one with this digest, nor of one of this name, nor here.
pub async fn a_step_of_an_unknown_command_is_none<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    let record = bench.issue(&key, &bench.command(1, true)).await.record;
    let cmd = &record.cmd;
    let mut others = vec![cmd.clone(), cmd.clone(), cmd.clone()];
    others[0].digest = digest(2);
    others[1].at_ms += 1;
    others[2].at_ms -= 1;
    for other in &others {
        assert_eq!(bench.step(&key, other, &Step::Cancel).await, None);
    }
    for elsewhere in [bench.key("b/other"), bench.key("c/g"), bench.key_of("u", "b/g")] {
        let there = riser_core::command::CommandId { of: elsewhere.address.clone(), ..cmd.clone() };
        assert_eq!(bench.step(&elsewhere, &there, &Step::Cancel).await, None);
    }
    assert_eq!(bench.look(&key, cmd).await, record);
}

/// "A session holds the gateway as `Registry` has it, in the same instant": before its epoch is taken over or ended it
/// sends, and afterwards it does not. The answer says who holds the gateway.
pub async fn only_the_session_that_holds_the_gateway_sends<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let first = bench.acquire(&one, &key).await;
    let mut records = bench.issue_many(&key, 3, true).await;
    let stepped = bench.follows(&key, &mut records[0], &send(first.epoch), Some(first.epoch)).await;
    assert_eq!((stepped.took, stepped.holder), (Took::Yes, Some(holder(&one.edge, &first))));

    let second = bench.acquire(&two, &key).await;
    let stepped = bench.follows(&key, &mut records[1], &send(first.epoch), Some(second.epoch)).await;
    assert_eq!((stepped.took, stepped.holder), (Took::No(Refusal::Fenced), Some(holder(&two.edge, &second))));
    let stepped = bench.follows(&key, &mut records[1], &send(second.epoch), Some(second.epoch)).await;
    assert_eq!(stepped.took, Took::Yes);

    bench.one.release(&key, second.epoch, Reason::Closed).await.expect("an answer").expect("an end");
    let stepped = bench.follows(&key, &mut records[2], &send(second.epoch), None).await;
    assert_eq!((stepped.took, stepped.holder), (Took::No(Refusal::Fenced), None));

    let third = bench.acquire(&one, &key).await;
    bench.one.sweep(&one, Reason::EdgeLost, &key.tenant, key.address.building()).await.expect("an answer");
    let stepped = bench.follows(&key, &mut records[2], &send(third.epoch), None).await;
    assert_eq!(stepped.took, Took::No(Refusal::Fenced), "a swept session holds nothing");
}

/// A command whose session was lost is sent again to a gateway that remembers it, and not too often.
pub async fn a_command_is_sent_again_to_a_gateway_that_remembers<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let mut epoch = bench.acquire(&lease, &key).await.epoch;
    let mut records = bench.issue_many(&key, 2, true).await;
    for record in &mut records {
        bench.follows(&key, record, &send(epoch), Some(epoch)).await;
    }
    for sends in 2..=SENDS + 1 {
        epoch = bench.acquire(&lease, &key).await.epoch;
        let stepped = bench.follows(&key, &mut records[0], &send(epoch), Some(epoch)).await;
        let took = if sends <= SENDS { Took::Yes } else { Took::No(Refusal::NotAgain) };
        assert_eq!((stepped.took, stepped.record.sends), (took, sends.min(SENDS)));
        let forgets = Step::Send { epoch, remembers_ms: 0 };
        let stepped = bench.follows(&key, &mut records[1], &forgets, Some(epoch)).await;
        assert_eq!((stepped.took, stepped.record.sends), (Took::No(Refusal::NotAgain), 1));
    }
    for record in &records {
        assert_eq!(statuses(record), [Status::Sent], "it is sent once, whatever it took");
    }
}

/// "A deadline that has passed is seen first", whatever the step: what was never sent expired, what was sent is unknown.
pub async fn a_deadline_that_has_passed_is_seen_first<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let steps = [Step::Look, send(epoch), say(Said::Succeeded, ""), Step::Cancel, Step::Offline];
    for (number, step) in steps.iter().enumerate() {
        let command = NewCommand { deadline_ms: NEAR_MS, ..bench.command(number, true) };
        let mut record = bench.issue(&key, &command).await.record;
        bench.until(record.deadline_at_ms).await;
        let stepped = bench.follows(&key, &mut record, step, Some(epoch)).await;
        assert_eq!((stepped.before, statuses(&record)), (0, vec![Status::Expired]));
    }
    for (number, step) in steps.iter().enumerate() {
        let command = NewCommand { deadline_ms: 1_000, ..bench.command(100 + number, true) };
        let mut record = bench.issue(&key, &command).await.record;
        bench.follows(&key, &mut record, &send(epoch), Some(epoch)).await;
        bench.until(record.deadline_at_ms).await;
        bench.follows(&key, &mut record, step, Some(epoch)).await;
        let decided = record.decided().expect("an outcome");
        assert_eq!((decided.status, record.outcomes[0].status), (Status::Unknown, Status::Sent));
        assert_eq!(record.outcomes.len(), if matches!(step, Step::Word(_)) { 3 } else { 2 }, "a late word is kept");
    }
}

/// Of two steps that exclude each other and come at once, one happens, and the other is told so.
pub async fn of_steps_that_exclude_each_other_one_happens<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let win = send(epoch);
    for record in bench.issue_many(&key, 20, true).await {
        let (sent, cancelled) =
            tokio::join!(bench.one.step(&key, &record.cmd, &win), bench.two.step(&key, &record.cmd, &Step::Cancel),);
        let took = |stepped: Result<Option<Stepped>, _>| stepped.expect("an answer").expect("a command").took;
        let outcome = match (took(sent), took(cancelled)) {
            (Took::Yes, Took::No(Refusal::Sent)) => Status::Sent,
            (Took::No(Refusal::Final), Took::Yes) => Status::Cancelled,
            other => panic!("{other:?}"),
        };
        assert_eq!(statuses(&bench.look(&key, &record.cmd).await), [outcome]);
    }
}
