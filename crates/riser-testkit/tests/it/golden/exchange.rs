//! Golden histories of commands, events and live streams.

use riser_testkit::check::Rule;
use serde_json::{Value, json};

use super::{about, at, emptied, excused, still_right, without, wrong};

#[test]
fn an_accepted_command_without_a_record_is_lost_unless_the_registry_lost_everything() {
    let forget = |lines: &mut Vec<Value>| without(lines, |l| l["do"] == "record" && l["cmd"] == "cmd-2");
    wrong(Rule::Lost, forget);
    still_right(|lines| {
        forget(lines);
        let i = about(lines, "got", "cmd-2");
        lines.insert(i, emptied(lines, i));
    });
    // A loss before it was issued excuses nothing, and that of a record is never excused once it was told to be held.
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
fn an_order_that_an_emptied_registry_may_have_cost_is_excused_and_no_other() {
    let later = |lines: &mut Vec<Value>| {
        let (first, second) = (about(lines, "does", "cmd-1"), about(lines, "does", "cmd-2"));
        let done = lines.remove(first);
        lines.insert(second, done);
    };
    excused(Rule::Order, |lines| {
        later(lines);
        let i = at(lines, "command", 1);
        let loss = emptied(lines, i);
        lines.insert(i, loss);
    });
    wrong(Rule::Order, |lines| {
        later(lines);
        let i = at(lines, "command", 0);
        let loss = emptied(lines, i);
        lines.insert(i, loss);
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
