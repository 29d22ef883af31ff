//! Edges as processes on real NATS and Redis: what the cluster promises while its parts die, hang and come back.

use std::collections::BTreeMap;

use riser_core::Address;

mod degraded;
mod failover;
mod flats;
mod held;
mod life;
mod noise;
mod scale;
mod tenants;
mod watchers;
mod world;

use flats::Flats;
use watchers::{Outcome, Watchers};
use world::World;

/// Gateways of a test under load: a hundred per edge.
const FLATS: usize = 300;

/// Thirty clients: each building has two or three of its own, and six watch everything.
async fn thirty(world: &World) -> Watchers {
    let buildings: Vec<String> = (0..24).map(|number| format!("b{}/*", number % 10)).collect();
    let mut patterns: Vec<&str> = buildings.iter().map(String::as_str).collect();
    patterns.extend(["*/*"; 6]);
    Watchers::connect(&world.clients_at(), &world.key(), &patterns).await
}

fn addresses(flats: &Flats) -> Vec<Address> {
    flats.iter().map(|flat| flat.address.clone()).collect()
}

/// Checks what became of commands: each was done at most once, and done when that was said; none has no outcome. `refused`
/// says whether an edge may have refused some.
fn check_commands(flats: &Flats, outcomes: &[Outcome], refused: bool) {
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for (address, outcome) in outcomes {
        match outcome {
            Ok((cmd, word)) => {
                *words.entry(word).or_default() += 1;
                let done = flats.get(address).said().done.get(cmd).copied().unwrap_or_default();
                let good = match word.as_str() {
                    "succeeded" => done == 1,
                    "unknown" => done <= 1,
                    "offline" | "expired" => done == 0,
                    _ => false,
                };
                assert!(good, "{cmd} of {address} is {word} and was done {done} times");
            }
            Err(why) => {
                *words.entry("refused").or_default() += 1;
                assert!(refused && why.contains("unavailable"), "a command to {address} has no outcome: {why}");
            }
        }
    }
    assert!(words.get("succeeded").is_some_and(|&succeeded| succeeded > 0), "no command was done: {words:?}");
    for flat in flats.iter() {
        let twice: Vec<_> = flat.said().done.into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "{} did commands twice: {twice:?}", flat.address);
    }
}
