//! What a record decides, step by step and over any steps.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const DEADLINE: u64 = 1_000;

fn record(hold: bool) -> Record {
    let cmd = CommandId { of: "b/g".parse().expect("an address"), digest: Digest([7; 16]), at_ms: 5 };
    let body = Body { path: path("hall/lock"), action: "unlock".parse().expect("an action"), args: None, hold };
    Record {
        cmd,
        seq: 1,
        prev: 0,
        body,
        by: "client:alice".into(),
        deadline_at_ms: DEADLINE,
        sends: 0,
        sent_at_ms: 0,
        sent_to: None,
        outcomes: Vec::new(),
        edges: Vec::new(),
    }
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn send(epoch: u64) -> Step {
    Step::Send { epoch: Epoch(epoch), remembers_ms: 600_000 }
}

fn word(status: Said) -> Step {
    Step::Word(Word { status, code: None, data: None })
}

fn statuses(record: &Record) -> Vec<Status> {
    record.outcomes.iter().map(|outcome| outcome.status).collect()
}

#[test]
fn a_command_goes_its_way() {
    let mut r = record(false);
    let holder = Some(Epoch(7));
    for (step, took) in [
        (send(7), Took::Yes),
        (send(7), Took::Yes),
        (word(Said::Received), Took::Yes),
        (word(Said::Received), Took::Nothing),
        (word(Said::Running), Took::Yes),
        (word(Said::Received), Took::Nothing),
        (Step::Cancel, Took::No(Refusal::Sent)),
        (word(Said::Succeeded), Took::Yes),
        (word(Said::Succeeded), Took::Nothing),
        (Step::Cancel, Took::No(Refusal::Final)),
        (send(7), Took::No(Refusal::Final)),
    ] {
        assert_eq!(r.step(&step, holder, 10), took, "{step:?}");
    }
    assert_eq!(statuses(&r), [Status::Sent, Status::Received, Status::Running, Status::Succeeded]);
    assert_eq!(r.step(&word(Said::Failed), holder, 11), Took::Yes);
    assert!(r.outcomes[4].late && !r.outcomes[4].is_final());
    assert_eq!(r.decided().map(|o| o.status), Some(Status::Succeeded));
}

#[test]
fn a_deadline_decides_by_whether_it_was_sent() {
    let mut never = record(true);
    assert_eq!(never.step(&Step::Offline, None, 10), Took::Yes);
    assert_eq!(never.step(&Step::Look, None, DEADLINE - 1), Took::Nothing);
    assert_eq!(never.step(&send(7), Some(Epoch(7)), DEADLINE), Took::No(Refusal::Final));
    assert_eq!(statuses(&never), [Status::Held, Status::Expired]);
    let mut sent = record(false);
    assert_eq!(sent.step(&send(7), Some(Epoch(7)), 10), Took::Yes);
    assert_eq!(sent.step(&word(Said::Succeeded), None, DEADLINE), Took::Yes);
    assert_eq!(statuses(&sent), [Status::Sent, Status::Unknown, Status::Succeeded]);
    assert!(sent.outcomes[2].late, "what comes after the deadline is late");
}

#[test]
fn it_is_sent_again_only_to_who_remembers_and_three_times_at_most() {
    let mut r = record(false);
    let forgets = |epoch| Step::Send { epoch: Epoch(epoch), remembers_ms: 0 };
    assert_eq!(r.step(&forgets(1), Some(Epoch(2)), 1), Took::No(Refusal::Fenced));
    assert_eq!(r.step(&forgets(1), None, 1), Took::No(Refusal::Fenced));
    assert_eq!(r.step(&forgets(1), Some(Epoch(1)), 1), Took::Yes);
    assert_eq!(r.step(&forgets(2), Some(Epoch(2)), 2), Took::No(Refusal::NotAgain));
    assert_eq!(r.step(&send(2), Some(Epoch(2)), 3), Took::Yes);
    assert_eq!(r.step(&send(3), Some(Epoch(3)), 3), Took::Yes);
    assert_eq!(r.step(&send(4), Some(Epoch(4)), 3), Took::No(Refusal::NotAgain));
    assert_eq!(statuses(&r), [Status::Sent], "sending again is no news");
    assert_eq!(r.step(&Step::Offline, None, 4), Took::No(Refusal::Sent));
}

#[test]
fn what_nobody_sent_has_no_word_and_is_cancelled_at_once() {
    let mut r = record(false);
    assert_eq!(r.step(&word(Said::Succeeded), None, 1), Took::No(Refusal::NotSent));
    assert_eq!(r.step(&Step::Cancel, None, 1), Took::Yes);
    assert_eq!(r.step(&Step::Cancel, None, 1), Took::Nothing);
    assert_eq!(statuses(&r), [Status::Cancelled]);
}

#[test]
fn words_without_end_are_not_kept() {
    let mut r = record(false);
    r.step(&send(1), Some(Epoch(1)), 1);
    let running = |i: usize| Step::Word(Word { status: Said::Running, code: None, data: Some(Json::of(&i)) });
    let taken = (0..100).filter(|i| r.step(&running(*i), None, 2) == Took::Yes).count();
    assert_eq!(taken, RUNNING);
    assert_eq!(r.step(&word(Said::Failed), None, 3), Took::Yes);
    let taken = (0..100).filter(|i| r.step(&running(1_000 + i), None, 2) == Took::Yes).count();
    assert_eq!(taken, LATE);
}

#[test]
fn large_words_are_kept_only_to_a_bound_and_the_deciding_one_always() {
    let mut r = record(false);
    r.step(&send(1), Some(Epoch(1)), 1);
    let large = |status, fill: &str| {
        let data = Some(Json::of(&fill.repeat(40_000)));
        Step::Word(Word { status, code: None, data })
    };
    assert_eq!(r.step(&large(Said::Running, "a"), None, 2), Took::Yes);
    assert_eq!(r.step(&large(Said::Running, "b"), None, 2), Took::No(Refusal::TooMany));
    assert_eq!(r.step(&large(Said::Succeeded, "c"), None, 3), Took::Yes);
    assert_eq!(r.step(&large(Said::Failed, "d"), None, 4), Took::Yes);
    assert_eq!(r.step(&large(Said::Failed, "e"), None, 4), Took::No(Refusal::TooMany));
}

#[test]
fn a_body_is_the_same_whatever_its_white_space() {
    let body = |args: &str| Body { args: Some(Json::parse(args).expect("JSON")), ..record(false).body };
    assert!(body(r#"{"a":1,"b":2}"#).is_same(&body(r#"{ "b" : 2, "a" : 1 }"#)));
    assert!(!body(r#"{"a":1}"#).is_same(&body(r#"{"a":2}"#)));
    assert!(!body("1").is_same(&record(false).body));
    assert!(!record(true).body.is_same(&record(false).body));
}

#[test]
fn a_name_reads_as_it_prints_and_nothing_else_does() {
    let name = "b-1.g_2.07070707070707070707070707070707.1f";
    let id: CommandId = name.parse().expect("a name");
    assert_eq!((id.to_string().as_str(), id.at_ms), (name, 31));
    for bad in [
        "",
        "b.g",
        "b.g.07070707070707070707070707070707",
        "b.g.07070707070707070707070707070707.01",
        "b.g.07070707070707070707070707070707.1.2",
        "b.g.0707070707070707070707070707070A.1",
        "b.g.+7070707070707070707070707070707.1",
        "b.g.070707070707070707070707070707é.1",
        "_.g.07070707070707070707070707070707.1",
        "b.*.07070707070707070707070707070707.1",
    ] {
        assert_eq!(bad.parse::<CommandId>(), Err(CommandIdError), "{bad}");
    }
}

#[test]
fn edges_that_want_to_know_are_few() {
    let mut r = record(false);
    let edge = |i: usize| format!("edge-{i}").parse().expect("an edge");
    (0..=EDGES).for_each(|i| r.tell(&edge(i)));
    r.tell(&edge(EDGES));
    assert_eq!(r.edges.len(), EDGES);
    assert!(!r.edges.contains(&edge(0)) && r.edges.contains(&edge(EDGES)));
}

fn steps() -> impl Strategy<Value = (Step, Option<Epoch>, u64)> {
    let said = prop::sample::select(vec![
        Said::Received,
        Said::Running,
        Said::Succeeded,
        Said::Failed,
        Said::Rejected,
        Said::Cancelled,
    ]);
    let step = prop_oneof![
        Just(Step::Look),
        (0u64..4, prop::sample::select(vec![0u64, 600_000]))
            .prop_map(|(epoch, remembers_ms)| Step::Send { epoch: Epoch(epoch), remembers_ms }),
        said.prop_map(word),
        Just(Step::Cancel),
        Just(Step::Offline),
    ];
    (step, prop::option::of((0u64..4).prop_map(Epoch)), 0u64..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_048,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_one_outcome_decides_and_it_is_true(hold: bool, steps in prop::collection::vec(steps(), 0..40)) {
        let mut r = record(hold);
        let mut now = 0;
        for (step, holder, wait) in steps {
            now += wait;
            let before = r.clone();
            let took = r.step(&step, holder, now);
            prop_assert_eq!(&r.outcomes[..before.outcomes.len()], &before.outcomes[..], "what was told is not untold");
            prop_assert!(r.sends <= SENDS && r.outcomes.len() <= 3 + RUNNING + 1 + LATE);
            prop_assert!(matches!(took, Took::Yes) || r.sends == before.sends);
            if let (Step::Send { .. }, Took::Yes) = (&step, took) {
                prop_assert!(before.decided().is_none() && now < r.deadline_at_ms);
            }
        }
        let decided: Vec<_> = r.outcomes.iter().filter(|o| o.is_final()).collect();
        prop_assert!(decided.len() <= 1);
        if now >= r.deadline_at_ms {
            r.step(&Step::Look, None, now);
            prop_assert!(r.decided().is_some());
        }
        match r.decided().map(|o| o.status) {
            Some(Status::Expired | Status::Offline) => prop_assert_eq!(r.sends, 0),
            Some(Status::Succeeded | Status::Failed | Status::Rejected | Status::Unknown) => prop_assert!(r.sends > 0),
            _ => {}
        }
    }
}
