//! Two tenants that use the same addresses, paths, ids, keys and cursors, one of them maliciously: nothing of one shows in the
//! other. And what would be noticed if a name were made wrongly: every function that puts a tenant into a subject, a stream, a
//! key or an entry, or reads one from there, is made to drop the tenant, and to take the other for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::PATIENCE;

mod acts;
mod malice;
mod mutants;
mod pair;
mod ports;
mod servers;
mod witness;
mod world;

use acts::{Act, Meeting};
use mutants::Mutant;
use pair::{Finding, Pair};
use ports::Left;
use world::World;

/// What two new tenants find, who may take so long.
async fn run(world: &World, mutant: Option<&Mutant>, patience: Duration) -> Result<(), Finding> {
    let until = Instant::now() + patience;
    let pair = Pair::new(world);
    if let Some(mutant) = mutant {
        mutant.apply(&pair);
    }
    let since = world.heard.lock().len();
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
    let begun = Instant::now();
    run(&world, None, PATIENCE).await.expect("nothing of another tenant, and all of its own");
    println!("{:?}", begun.elapsed());
}
