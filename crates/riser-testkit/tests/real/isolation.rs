//! Two tenants that use the same addresses, paths, ids, keys and cursors, one of them maliciously: nothing of one shows in the
//! other. And what would be noticed if a name were made wrongly: every function that puts a tenant into a subject, a stream, a
//! key or an entry, or reads one from there, is made to drop the tenant, and to take the other for it.

use std::io::Write as _;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::PATIENCE;

mod acts;
mod malice;
mod mutants;
mod pair;
mod ports;
mod second;
mod servers;
mod witness;
mod world;

use acts::{Act, Meeting};
use mutants::Mutant;
use pair::{Finding, Pair};
use ports::Left;
use world::World;

/// Who was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    /// Tenants whose streams are what they should be: then the list of all streams is one of the things to be looked at.
    Good,
    /// Also those of mutants, with which nobody can make a list.
    Mutants,
}

/// What two new tenants find, who may take so long.
async fn run(world: &World, mutant: Option<&Mutant>, patience: Duration, company: Company) -> Result<(), Finding> {
    let until = Instant::now() + patience;
    let pair = Pair::new(world);
    if let Some(mutant) = mutant {
        mutant.apply(&pair);
    }
    let since = world.heard.lock().len();
    if company == Company::Good {
        ports::streams(world, &pair).await?;
    }
    let meeting = Meeting::new();
    let one = async |whose| {
        let left = Left::behind(world, &pair, whose, until).await?;
        let act = Act::begin(world, &pair, whose, &meeting, until).await?.play().await?;
        left.found().await?;
        // Until the servers were looked at, its streams are open.
        Ok::<_, Finding>(act)
    };
    let (_a, _b) = tokio::try_join!(one(0), one(1))?;
    servers::check(world, &pair, since, until).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_tenant_shows_in_another_that_uses_the_same_names_and_asks_for_it() {
    let world = World::start().await;
    let found = run(&world, None, PATIENCE, Company::Good).await;
    found.expect("nothing of another tenant, and all of its own");
}

/// Pairs of tenants that are at it at once. Most of what a mutant costs is the wait for what never comes.
const AT_ONCE: usize = 12;
/// Among so many mutants is one pair with nothing wrong, which tells how long that takes here and now.
const CONTROL_EVERY: usize = 16;
/// Letters that are shown of what a mutant was caught by.
const SHOWN: usize = 200;
/// How long a mutant may take, at least and in times of what a pair takes with nothing wrong. What has not come by then will not
/// come; and the controls must have been faster.
const MUTANT_PATIENCE: (Duration, u32) = (Duration::from_secs(4), 4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_drops_its_tenant_or_swaps_it_for_another_is_caught() {
    let world = World::start().await;
    let begun = Instant::now();
    run(&world, None, PATIENCE, Company::Good).await.expect("nothing wrong when no name is");
    let patience = MUTANT_PATIENCE.0 + begun.elapsed() * MUTANT_PATIENCE.1;
    let mutants = Mutant::all();
    let (first, others): (Vec<_>, Vec<_>) = mutants.iter().partition(|mutant| mutant.is_of_lists);
    let mut found = vec![];
    for mutant in first {
        let begun = Instant::now();
        found.push((Some(mutant), run(&world, Some(mutant), patience, Company::Good).await, begun.elapsed()));
    }
    let controls = others.len().div_ceil(CONTROL_EVERY);
    let rounds = others.chunks(CONTROL_EVERY).flat_map(|some| some.iter().map(|mutant| Some(*mutant)).chain([None]));
    let rounds = stream::iter(rounds).map(async |mutant| {
        let begun = Instant::now();
        let patience = if mutant.is_some() { patience } else { PATIENCE };
        let found = run(&world, mutant, patience, Company::Mutants).await;
        (mutant, found, begun.elapsed())
    });
    found.extend(rounds.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    assert_eq!(found.len(), mutants.len() + controls);
    let slowest = report(&found);
    assert!(slowest < patience, "too slow to tell what is late from what is missing: {slowest:?} of {patience:?}");
}

/// Checks that each mutant was caught and nothing else was; says so, and what the slowest took with which nothing was wrong.
fn report(found: &[(Option<&Mutant>, Result<(), Finding>, Duration)]) -> Duration {
    let (mut caught, mut foreign, mut slowest) = (0, 0, Duration::ZERO);
    for (mutant, found, took) in found {
        let Some(mutant) = mutant else {
            assert_eq!(*found, Ok(()), "nothing was wrong");
            slowest = slowest.max(*took);
            continue;
        };
        println!("{}: {}", mutant.name, format!("{found:?}").chars().take(SHOWN).collect::<String>());
        caught += usize::from(found.is_err());
        foreign += usize::from(matches!(found, Err(Finding::Foreign(_))));
    }
    let all = found.iter().filter(|(mutant, ..)| mutant.is_some()).count();
    let missing = caught - foreign;
    let summary = format!(
        "{caught} of {all} caught: {foreign} showed what is another's, {missing} did not show what is one's own"
    );
    // Past what the test's harness keeps for itself, so that a run that is good says it too.
    let _lost_with_the_output = writeln!(std::io::stdout(), "isolation: {summary}");
    assert_eq!(caught, all, "{summary}");
    slowest
}

#[test]
fn every_tenant_in_a_name_is_one_that_can_be_made_wrong() {
    mutants::check_sources();
}
