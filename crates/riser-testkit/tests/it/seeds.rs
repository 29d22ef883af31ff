//! Seeds of the simulation: five hundred valid lives, and mutants that are caught.

use riser_testkit::check::{Rule, Verdict, check};
use riser_testkit::history::to_json_lines;
use riser_testkit::mutants::Mutant;
use riser_testkit::sim::{run, undecorated};

fn all_valid(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let verdict = check(&run(seed, undecorated()));
        assert_eq!(verdict, Verdict::Valid, "seed {seed}");
    }
}

#[test]
fn seeds_0_to_249_keep_every_promise() {
    all_valid(0..250);
}

#[test]
fn seeds_250_to_499_keep_every_promise() {
    all_valid(250..500);
}

#[test]
fn the_same_seed_twice_gives_the_same_history_byte_for_byte() {
    for seed in 100..140 {
        let (first, second) = (run(seed, undecorated()), run(seed, undecorated()));
        assert!(first.len() > 100, "{} lines", first.len());
        let differ = first.iter().zip(&second).find(|(a, b)| a != b);
        assert!(differ.is_none(), "seed {seed}: {differ:?}");
        assert!(to_json_lines(&first) == to_json_lines(&second), "seed {seed}: one is longer");
    }
}

/// Runs a mutant until its rule catches it.
fn caught(mutant: Mutant, rules: &[Rule]) {
    for seed in 0..500 {
        if let Verdict::Invalid(violations) = check(&run(seed, mutant.decorate(seed))) {
            let hit = violations.iter().find(|v| rules.contains(&v.rule));
            if let Some(violation) = hit {
                println!("{mutant:?} is caught at seed {seed}: {violation}");
                return;
            }
        }
    }
    panic!("{mutant:?} is not caught within 500 seeds");
}

#[test]
fn an_ack_before_the_store_has_it_is_caught() {
    caught(Mutant::AckBeforeStored, &[Rule::Lost]);
}

#[test]
fn swapped_tenants_are_caught() {
    caught(Mutant::SwapTenants, &[Rule::Isolation]);
}

#[test]
fn presence_that_never_expires_is_caught() {
    caught(Mutant::PresenceNeverExpires, &[Rule::Presence]);
}

#[test]
fn an_epoch_used_again_is_caught() {
    caught(Mutant::EpochUsedAgain, &[Rule::Owner]);
}

#[test]
fn a_command_that_is_dropped_after_its_ack_is_caught() {
    caught(Mutant::CommandForgotten, &[Rule::Lost]);
}

#[test]
fn a_command_that_is_delivered_twice_is_caught() {
    caught(Mutant::CommandSentAgain, &[Rule::Twice]);
}

#[test]
fn a_key_that_is_executed_again_is_caught() {
    caught(Mutant::KeyForgotten, &[Rule::Twice]);
}

#[test]
fn reordered_commands_are_caught() {
    caught(Mutant::CommandsReordered, &[Rule::Order]);
}

#[test]
fn an_event_that_is_dropped_after_its_ack_is_caught() {
    caught(Mutant::EventForgotten, &[Rule::Lost]);
}

#[test]
fn an_event_that_is_stored_twice_is_caught() {
    caught(Mutant::EventStoredTwice, &[Rule::Twice]);
}

#[test]
fn reordered_events_are_caught() {
    caught(Mutant::EventsReordered, &[Rule::Order]);
}

#[test]
fn reordered_live_frames_are_caught() {
    caught(Mutant::LiveReordered, &[Rule::Live]);
}
