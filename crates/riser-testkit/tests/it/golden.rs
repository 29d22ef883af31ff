//! Golden histories: for each rule one that keeps it and one that breaks it, so that the checker itself is checked.

mod exchange;

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
        if i == 6 {
            line(client, outcome(i, "held"));
        }
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
        let statuses: &[&str] = if i == 6 { &["held", "sent", "succeeded"] } else { &["sent", "succeeded"] };
        let mut outcomes: Vec<_> = statuses.iter().map(|status| outcome(i, status)).collect();
        for outcome in &mut outcomes {
            outcome["do"] = json!(null);
        }
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

/// Changes the right history, and this rule has nothing against it, whatever others have.
fn excused(rule: Rule, change: impl FnOnce(&mut Vec<Value>)) {
    let mut lines = right();
    change(&mut lines);
    if let Verdict::Invalid(violations) = judge(&lines) {
        assert!(violations.iter().all(|v| v.rule != rule), "{rule:?}: {violations:?}");
    }
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

/// Two sessions of the gateway are acknowledged something long after all was healed.
fn two_act_late(lines: &mut Vec<Value>, first_is_over: bool) {
    let i = at(lines, "quiet", 0);
    let quiet = lines[i]["at"].as_u64().expect("a time");
    let mut later: Vec<Value> = Vec::new();
    let mut line = |session: u64, mut event: Value| {
        event["at"] = json!(quiet + 6_000 + 10 * later.len() as u64);
        event["who"] = json!({"gateway": {"tenant": "acme", "of": "b1/g1", "session": session}});
        later.push(event);
    };
    line(1, json!({"do": "ok", "n": 900}));
    if first_is_over {
        line(1, json!({"do": "left", "how": "lost"}));
    }
    line(2, json!({"do": "hello", "edge": "edge-0"}));
    line(2, json!({"do": "welcome", "epoch": 6}));
    line(2, json!({"do": "ok", "n": 901}));
    let last = later.last().map(|line| line["at"].clone());
    let after = i + 1;
    lines.splice(after..after, later);
    for line in &mut lines[after..] {
        if line["at"].as_u64() < last.as_ref().and_then(Value::as_u64) && line["who"].get("gateway").is_none() {
            line["at"] = json!(last);
        }
    }
}

#[test]
fn a_session_that_acts_long_after_a_newer_one_began_breaks_owner() {
    let acts = |lines: &mut Vec<Value>, after_ms: u64| {
        let i = at(lines, "quiet", 0);
        let begun = lines[i]["at"].as_u64().expect("a time") + 6_000;
        let line = |at: u64, session: u64, mut event: Value| {
            event["at"] = json!(at);
            event["who"] = json!({"gateway": {"tenant": "acme", "of": "b1/g1", "session": session}});
            event
        };
        let later = [
            line(begun, 2, json!({"do": "hello", "edge": "edge-0"})),
            line(begun, 2, json!({"do": "welcome", "epoch": 6})),
            line(begun + after_ms, 1, json!({"do": "ok", "n": 900})),
            line(begun + after_ms, 1, json!({"do": "closed", "code": 4006})),
        ];
        let after = i + 1;
        lines.splice(after..after, later);
        for line in &mut lines[after..] {
            if line["at"].as_u64() < Some(begun + after_ms) && line["who"].get("gateway").is_none() {
                line["at"] = json!(begun + after_ms);
            }
        }
    };
    wrong(Rule::Owner, |lines| acts(lines, 5_000));
    excused(Rule::Owner, |lines| acts(lines, 4_900));
}

#[test]
fn two_open_sessions_that_act_long_after_healing_break_owner_and_one_after_the_other_does_not() {
    wrong(Rule::Owner, |lines| two_act_late(lines, false));
    excused(Rule::Owner, |lines| two_act_late(lines, true));
}
