//! Golden histories: for each rule one that keeps it and one that breaks it, so that the checker itself is checked.

use riser_testkit::check::{Rule, Verdict, check};
use riser_testkit::history::{Line, to_json_lines};
use serde_json::{Value, json};

/// A life in which everything is right: one gateway, one client of its tenant, and enough of both.
fn right() -> Vec<Value> {
    let gateway = json!({"gateway": {"tenant": "acme", "of": "b1/g1", "session": 1}});
    let client = json!({"client": {"tenant": "acme", "name": "c", "session": 1}});
    let mut at = 0;
    let mut lines = Vec::new();
    let mut line = |who: &Value, mut event: Value| {
        at += 10;
        event["at"] = json!(at);
        event["who"] = who.clone();
        lines.push(event);
    };
    line(&client, json!({"do": "hello", "edge": "edge-0"}));
    line(
        &client,
        json!({"do": "subscribe", "n": 1, "to": "*/*", "state": true, "presence": true, "event": true, "path": []}),
    );
    line(&client, json!({"do": "ok", "n": 1}));
    line(&client, json!({"do": "synced", "to": "*/*", "cursor": "0.0"}));
    line(&gateway, json!({"do": "hello", "edge": "edge-0"}));
    line(&gateway, json!({"do": "welcome", "epoch": 5}));
    let (of, online) = ("b1/g1", true);
    let values = json!({});
    line(
        &client,
        json!({"do": "snapshot", "of": of, "online": online, "epoch": 5, "rev": 0, "values": values, "stale": []}),
    );
    line(&client, json!({"do": "presence", "of": of, "online": online, "epoch": 5, "reason": null}));
    for s in 1..=30 {
        let set = json!({"a": body(s)});
        line(&gateway, json!({"do": "send", "n": s, "full": s == 1, "set": set}));
        line(&gateway, json!({"do": "ok", "n": s}));
        let state = json!({"do": "state", "of": of, "epoch": 5, "rev": s, "set": set, "stale": [], "fresh": []});
        line(&client, state);
    }
    exchange(&mut line, &gateway, &client);
    line(&json!("faults"), json!({"do": "quiet"}));
    let stored = json!({"online": online, "epoch": 5, "rev": 30, "values": {"a": body(30)}, "stale": []});
    line(&json!("store"), json!({"do": "read", "tenant": "acme", "of": of, "found": stored}));
    let effects = json!({"dropped": 0, "delayed": 0, "duplicated": 0, "early": 0, "refused": 0, "lost_requests": 0, "lost_replies": 0, "log_refused": 0, "log_lost": 0});
    line(&json!("faults"), json!({"do": "over", "effects": effects}));
    lines
}

/// Commands that are issued, executed and decided, and events that are sent, stored and delivered.
fn exchange(line: &mut impl FnMut(&Value, Value), gateway: &Value, client: &Value) {
    let of = "b1/g1";
    for i in 1..=6 {
        let (n, cmd, key) = (i + 1, format!("cmd-{i}"), format!("key-{i}"));
        let order = json!({"path": "lock", "action": "unlock", "body": body(100 + i)});
        let issue = json!({"do": "command", "n": n, "to": of, "key": key, "order": order, "hold": i == 6, "deadline_ms": 9_000});
        line(client, issue);
        line(client, json!({"do": "ok", "n": n, "cmd": cmd}));
        line(gateway, json!({"do": "got", "cmd": cmd, "order": order, "ttl_ms": 9_000, "deadline_at_ms": 0}));
        line(client, outcome(i, "sent"));
        line(gateway, json!({"do": "does", "cmd": cmd}));
        line(gateway, json!({"do": "says", "n": 100 + i, "cmd": cmd, "status": "succeeded", "code": "done"}));
        line(gateway, json!({"do": "ok", "n": 100 + i}));
        line(client, outcome(i, "succeeded"));
    }
    for i in 1..=6 {
        let happened = happened(i);
        line(gateway, json!({"do": "emit", "n": 200 + i, "happened": happened}));
        line(gateway, json!({"do": "ok", "n": 200 + i, "cursor": format!("1.{i}")}));
        line(&json!("store"), logged(i));
        line(client, json!({"do": "heard", "cursor": format!("1.{i}"), "happened": happened}));
    }
    let speaker = json!({"client": {"tenant": "acme", "name": "d", "session": 1}});
    line(&speaker, json!({"do": "hello", "edge": "edge-0"}));
    line(client, json!({"do": "opened", "of": of, "stream": 7}));
    for i in 1..=10 {
        line(&speaker, json!({"do": "speaks", "stream": 7, "seq": i, "body": body(300 + i)}));
        line(client, json!({"do": "hears", "stream": 7, "seq": i, "body": body(300 + i)}));
    }
    line(client, json!({"do": "shut", "stream": 7, "reason": "closed"}));
    line(&speaker, json!({"do": "left", "how": "closed"}));
    for i in 1..=6 {
        let mut outcomes = [outcome(i, "sent"), outcome(i, "succeeded")];
        outcomes.iter_mut().for_each(|o| o["do"] = json!(null));
        let record =
            json!({"do": "record", "tenant": "acme", "of": of, "cmd": format!("cmd-{i}"), "outcomes": outcomes});
        line(&json!("store"), record);
    }
}

fn outcome(i: u64, status: &str) -> Value {
    let said = status == "succeeded";
    let (code, body) = (said.then_some("done"), said.then(|| body(100 + i)));
    json!({"do": "outcome", "cmd": format!("cmd-{i}"), "of": "b1/g1", "status": status, "final": said, "code": code,
        "body": body, "at_ms": 5})
}

fn happened(i: u64) -> Value {
    json!({"of": "b1/g1", "id": format!("event-{i}"), "path": "bell", "from": "gateway:b1/g1", "body": body(200 + i)})
}

fn logged(i: u64) -> Value {
    json!({"do": "logged", "tenant": "acme", "cursor": format!("1.{i}"), "happened": happened(i)})
}

fn body(s: u64) -> Value {
    json!({"s": s, "c": "acme-canary", "r": s * 7})
}

fn judge(lines: &[Value]) -> Verdict {
    let lines: Vec<Line> = lines.iter().map(|l| serde_json::from_value(l.clone()).expect("a line")).collect();
    check(&lines)
}

/// Changes the right history in one place, and says which rule must see it.
fn wrong(rule: Rule, change: impl FnOnce(&mut Vec<Value>)) {
    let mut lines = right();
    change(&mut lines);
    let Verdict::Invalid(violations) = judge(&lines) else { panic!("{rule:?} is not seen to be broken") };
    assert!(violations.iter().any(|v| v.rule == rule), "{rule:?}: {violations:?}");
}

/// Changes the right history in one place, and it is right still.
fn still_right(change: impl FnOnce(&mut Vec<Value>)) {
    let mut lines = right();
    change(&mut lines);
    assert_eq!(judge(&lines), Verdict::Valid);
}

/// The lines of this kind about this command.
fn about(lines: &[Value], what: &str, cmd: &str) -> usize {
    lines.iter().position(|l| l["do"] == what && l["cmd"] == cmd).expect("it is there")
}

/// Removes all lines that this is true of.
fn without(lines: &mut Vec<Value>, which: impl Fn(&Value) -> bool) {
    let before = lines.len();
    lines.retain(|line| !which(line));
    assert!(lines.len() < before, "nothing was removed");
}

fn emptied(lines: &[Value], at: usize) -> Value {
    json!({"do": "emptied", "who": "faults", "at": lines[at]["at"]})
}

fn at(lines: &[Value], what: &str, nth: usize) -> usize {
    lines.iter().enumerate().filter(|(_, l)| l["do"] == what).nth(nth).expect("it is there").0
}

#[test]
fn a_right_history_is_valid_and_survives_being_written() {
    assert_eq!(judge(&right()), Verdict::Valid);
    let lines: Vec<Line> = right().into_iter().map(|l| serde_json::from_value(l).expect("a line")).collect();
    let text = to_json_lines(&lines);
    let again: Vec<Line> = text.lines().map(|l| serde_json::from_str(l).expect("a line")).collect();
    assert_eq!(again, lines);
}

#[test]
fn a_history_in_which_nothing_happens_says_nothing() {
    assert!(matches!(judge(&[]), Verdict::Unknown(_)));
    let over = right().pop().expect("an end");
    assert!(matches!(judge(&[over]), Verdict::Unknown(_)));
}

#[test]
fn another_tenants_canary_breaks_isolation() {
    wrong(Rule::Isolation, |lines| {
        let i = at(lines, "state", 3);
        lines[i]["set"]["a"]["c"] = json!("bolt-canary");
    });
}

#[test]
fn a_value_that_nobody_sent_is_a_phantom() {
    wrong(Rule::Phantom, |lines| {
        let i = at(lines, "state", 3);
        lines[i]["set"]["a"]["r"] = json!(1);
    });
}

#[test]
fn an_acknowledged_value_that_is_not_stored_is_lost() {
    wrong(Rule::Lost, |lines| {
        let i = at(lines, "read", 0);
        lines[i]["found"]["values"]["a"] = body(29);
    });
}

#[test]
fn an_older_value_after_a_newer_one_breaks_state() {
    wrong(Rule::State, |lines| {
        let i = at(lines, "state", 4);
        lines[i]["set"]["a"] = body(2);
    });
}

#[test]
fn a_listener_that_misses_the_last_value_breaks_state() {
    wrong(Rule::State, |lines| {
        let i = at(lines, "state", 29);
        lines.remove(i);
    });
}

#[test]
fn a_store_that_says_offline_of_a_connected_gateway_breaks_presence() {
    wrong(Rule::Presence, |lines| {
        let i = at(lines, "read", 0);
        lines[i]["found"]["online"] = json!(false);
    });
}

#[test]
fn an_epoch_that_goes_offline_twice_breaks_presence() {
    wrong(Rule::Presence, |lines| {
        let i = at(lines, "presence", 0);
        let mut gone = lines[i].clone();
        gone["online"] = json!(false);
        lines.splice(i + 1..=i, [gone.clone(), gone]);
    });
}

#[test]
fn a_takeover_after_an_offline_breaks_presence() {
    wrong(Rule::Presence, |lines| {
        let i = at(lines, "presence", 0);
        let mut gone = lines[i].clone();
        gone["online"] = json!(false);
        let mut taken = lines[i].clone();
        taken["epoch"] = json!(6);
        taken["reason"] = json!("takeover");
        lines.splice(i + 1..=i, [gone, taken]);
    });
}

#[test]
fn an_epoch_that_does_not_grow_breaks_owner() {
    wrong(Rule::Owner, |lines| {
        let i = at(lines, "welcome", 0);
        let mut again = lines[i].clone();
        again["who"]["gateway"]["session"] = json!(2);
        lines.insert(i + 1, again);
    });
}

#[test]
fn an_accepted_command_without_a_record_is_lost_unless_the_registry_lost_everything() {
    let forget = |lines: &mut Vec<Value>| without(lines, |l| l["do"] == "record" && l["cmd"] == "cmd-2");
    wrong(Rule::Lost, forget);
    still_right(|lines| {
        forget(lines);
        let i = about(lines, "got", "cmd-2");
        lines.insert(i, emptied(lines, i));
    });
    // A loss before it was issued excuses nothing, and that of a held command's record is never excused.
    wrong(Rule::Lost, |lines| {
        forget(lines);
        let i = about(lines, "got", "cmd-1");
        lines.insert(i, emptied(lines, i));
    });
    wrong(Rule::Lost, |lines| {
        without(lines, |l| l["do"] == "record" && l["cmd"] == "cmd-6");
        let i = about(lines, "got", "cmd-6");
        lines.insert(i, emptied(lines, i));
    });
}

#[test]
fn a_record_that_is_said_to_be_lost_is_lost_unless_the_registry_lost_everything() {
    let lose = |lines: &mut Vec<Value>| {
        let i = about(lines, "outcome", "cmd-3");
        without(lines, |l| l["cmd"] == "cmd-3" && (l["do"] == "record" || l["status"] == "succeeded"));
        let mut lost = lines[i].clone();
        (lost["status"], lost["final"], lost["code"]) = (json!("unknown"), json!(true), json!("record_lost"));
        lines.insert(i + 1, lost);
    };
    wrong(Rule::Lost, lose);
    still_right(|lines| {
        lose(lines);
        let i = about(lines, "got", "cmd-3");
        lines.insert(i, emptied(lines, i));
    });
}

#[test]
fn a_word_that_was_taken_and_is_not_kept_is_lost() {
    wrong(Rule::Lost, |lines| {
        let i = about(lines, "says", "cmd-3");
        lines[i]["status"] = json!("failed");
    });
}

#[test]
fn a_command_that_is_executed_again_breaks_twice() {
    wrong(Rule::Twice, |lines| {
        let i = about(lines, "does", "cmd-1");
        lines.insert(i, lines[i].clone());
    });
}

#[test]
fn a_key_that_is_executed_under_two_names_breaks_twice_unless_the_first_was_erased() {
    let again = |lines: &mut Vec<Value>| {
        let first = about(lines, "ok", "cmd-1") - 1;
        let last = lines.iter().rposition(|l| l["do"] == "outcome").expect("an outcome");
        let story = lines[first..].iter().take(8).cloned();
        let mut story: Vec<Value> = story
            .map(|mut line| {
                if line["cmd"] == "cmd-1" {
                    line["cmd"] = json!("cmd-1b");
                }
                line["at"] = lines[last]["at"].clone();
                line
            })
            .collect();
        let record = about(lines, "record", "cmd-1");
        let mut kept = lines[record].clone();
        kept["cmd"] = json!("cmd-1b");
        lines.insert(record, kept);
        story.reverse();
        for line in story {
            lines.insert(last + 1, line);
        }
        last + 1
    };
    wrong(Rule::Twice, |lines| {
        again(lines);
    });
    still_right(|lines| {
        let i = again(lines);
        lines.insert(i, emptied(lines, i));
    });
}

#[test]
fn a_command_that_nobody_issued_is_a_phantom() {
    wrong(Rule::Phantom, |lines| {
        let i = about(lines, "got", "cmd-4");
        lines[i]["order"]["action"] = json!("lock");
    });
    wrong(Rule::Phantom, |lines| {
        let i = about(lines, "outcome", "cmd-4");
        lines[i]["cmd"] = json!("cmd-9");
    });
}

#[test]
fn commands_that_are_executed_in_another_order_break_order() {
    wrong(Rule::Order, |lines| {
        let (first, second) = (about(lines, "does", "cmd-1"), about(lines, "does", "cmd-2"));
        let done = lines.remove(first);
        lines.insert(second, done);
    });
}

#[test]
fn a_second_final_outcome_breaks_outcome() {
    wrong(Rule::Outcome, |lines| {
        let i = about(lines, "outcome", "cmd-2") + 4;
        assert_eq!(lines[i]["status"], "succeeded");
        let mut second = lines[i].clone();
        second["status"] = json!("failed");
        lines.insert(i + 1, second);
    });
    wrong(Rule::Outcome, |lines| {
        let i = about(lines, "record", "cmd-2");
        let again = lines[i]["outcomes"][1].clone();
        lines[i]["outcomes"].as_array_mut().expect("outcomes").push(again);
    });
}

#[test]
fn a_record_that_says_something_else_than_the_issuer_was_told_breaks_outcome() {
    wrong(Rule::Outcome, |lines| {
        let i = about(lines, "record", "cmd-5");
        lines[i]["outcomes"][1]["status"] = json!("failed");
    });
}

#[test]
fn an_outcome_that_is_not_what_the_gateway_did_breaks_outcome() {
    wrong(Rule::Outcome, |lines| without(lines, |l| l["do"] == "does" && l["cmd"] == "cmd-2"));
    wrong(Rule::Outcome, |lines| {
        without(lines, |l| l["status"] == "sent" && l["cmd"] == "cmd-2");
        for at in [about(lines, "outcome", "cmd-2"), about(lines, "record", "cmd-2")] {
            let expired = json!({"status": "expired", "final": true, "at_ms": 5});
            if lines[at]["do"] == "record" {
                lines[at]["outcomes"] = json!([expired]);
            } else {
                (lines[at]["status"], lines[at]["code"], lines[at]["body"]) =
                    (json!("expired"), json!(null), json!(null));
            }
        }
    });
}

#[test]
fn an_outcome_that_never_comes_or_comes_late_breaks_outcome() {
    wrong(Rule::Outcome, |lines| {
        without(lines, |l| l["status"] == "succeeded" && l["do"] == "outcome" && l["cmd"] == "cmd-2");
        lines.iter_mut().filter(|l| l["do"] == "over").for_each(|l| l["at"] = json!(90_000));
    });
    let late = |lines: &mut Vec<Value>| {
        let at = lines.iter().position(|l| l["do"] == "outcome" && l["cmd"] == "cmd-2" && l["final"] == true);
        let mut told = lines.remove(at.expect("an outcome"));
        told["at"] = json!(30_000);
        let end = at_of_end(lines);
        lines.insert(end, told);
        lines.iter_mut().filter(|l| l["do"] == "over").for_each(|l| l["at"] = json!(90_000));
    };
    wrong(Rule::Outcome, late);
    // Who does not read is told late, and so is everybody while the registry cannot be reached.
    still_right(|lines| {
        late(lines);
        let end = at_of_end(lines);
        let mut slow = json!({"do": "slow", "at": 9_000, "who": lines[0]["who"]});
        lines.insert(end - 1, slow.clone());
        (slow["do"], slow["at"]) = (json!("reads"), json!(30_000));
        lines.insert(end, slow);
    });
    still_right(|lines| {
        late(lines);
        let end = at_of_end(lines);
        lines.insert(
            end - 1,
            json!({"do": "begin", "fault": "registry_down", "edges": [], "at": 9_000, "who": "faults"}),
        );
        lines.insert(end, json!({"do": "end", "fault": "registry_down", "at": 30_000, "who": "faults"}));
    });
}

fn at_of_end(lines: &[Value]) -> usize {
    at(lines, "over", 0)
}

#[test]
fn an_event_that_was_answered_and_is_not_stored_is_lost() {
    wrong(Rule::Lost, |lines| {
        let last = |l: &Value| (l["do"] == "logged" || l["do"] == "heard") && l["cursor"] == "1.6";
        without(lines, last);
    });
}

#[test]
fn an_event_that_a_subscriber_never_gets_is_lost_unless_there_is_a_gap() {
    let hole = |lines: &mut Vec<Value>| without(lines, |l| l["do"] == "heard" && l["cursor"] == "1.3");
    wrong(Rule::Lost, hole);
    wrong(Rule::Lost, |lines| without(lines, |l| l["do"] == "heard" && l["cursor"] == "1.6"));
    let gap = |lines: &mut Vec<Value>| {
        hole(lines);
        let i = lines.iter().position(|l| l["do"] == "heard" && l["cursor"] == "1.4").expect("it is there");
        let gap = json!({"do": "gap", "to": "*/*", "at": lines[i]["at"], "who": lines[i]["who"]});
        lines.insert(i, gap);
    };
    // A gap where the store kept everything is a loss as well.
    wrong(Rule::Lost, gap);
    still_right(|lines| {
        gap(lines);
        lines.insert(0, json!({"do": "keeps", "events": 3, "at": 0, "who": "faults"}));
    });
}

#[test]
fn an_event_that_is_stored_twice_breaks_twice() {
    wrong(Rule::Twice, |lines| {
        let i = at(lines, "logged", 5);
        let mut again = lines[i].clone();
        again["cursor"] = json!("1.7");
        lines.insert(i + 1, again);
    });
}

#[test]
fn an_event_that_nobody_sent_is_a_phantom() {
    wrong(Rule::Phantom, |lines| {
        let i = at(lines, "heard", 2);
        lines[i]["happened"]["body"]["r"] = json!(1);
    });
    wrong(Rule::Phantom, |lines| {
        let i = at(lines, "logged", 2);
        lines[i]["happened"]["id"] = json!("event-9");
    });
}

#[test]
fn events_that_come_in_another_order_break_order() {
    wrong(Rule::Order, |lines| {
        let (first, second) = (at(lines, "heard", 1), at(lines, "heard", 2));
        let event = lines.remove(first);
        lines.insert(second, event);
    });
    wrong(Rule::Order, |lines| {
        let (first, second) = (at(lines, "heard", 1), at(lines, "heard", 2));
        let event = lines[first]["happened"].clone();
        lines[first]["happened"] = lines[second]["happened"].clone();
        lines[second]["happened"] = event;
    });
}

#[test]
fn another_tenants_canary_in_a_command_or_an_event_breaks_isolation() {
    for what in ["got", "heard"] {
        wrong(Rule::Isolation, |lines| {
            let i = at(lines, what, 0);
            let field = if what == "got" { "order" } else { "happened" };
            lines[i][field]["body"]["c"] = json!("bolt-canary");
        });
    }
}

#[test]
fn a_live_frame_that_comes_after_a_later_one_breaks_live() {
    wrong(Rule::Live, |lines| {
        let (first, second) = (at(lines, "hears", 3), at(lines, "hears", 4));
        let frame = lines.remove(first);
        lines.insert(second, frame);
    });
}

#[test]
fn a_live_frame_that_comes_twice_breaks_live_unless_the_bus_repeats_messages() {
    let again = |lines: &mut Vec<Value>| {
        let i = at(lines, "hears", 3);
        lines.insert(i + 1, lines[i].clone());
    };
    wrong(Rule::Live, again);
    still_right(|lines| {
        again(lines);
        lines.insert(0, json!({"do": "begin", "fault": "bus_lossy", "edges": [], "at": 0, "who": "faults"}));
    });
}

#[test]
fn a_live_frame_of_which_nobody_said_the_bytes_breaks_live() {
    wrong(Rule::Live, |lines| {
        let i = at(lines, "hears", 3);
        lines[i]["body"]["r"] = json!(1);
    });
}

#[test]
fn a_live_frame_of_a_stream_that_is_not_open_or_of_ones_own_breaks_live() {
    wrong(Rule::Live, |lines| without(lines, |l| l["do"] == "opened"));
    wrong(Rule::Live, |lines| {
        let i = at(lines, "speaks", 2);
        lines[i]["who"] = lines[0]["who"].clone();
    });
}

#[test]
fn a_live_stream_that_nobody_is_told_is_over_breaks_live() {
    wrong(Rule::Live, |lines| without(lines, |l| l["do"] == "shut"));
}
