//! Tenants beside each other.

use std::time::Duration;

use riser_core::frame::Credential;
use tokio::time::sleep;

use super::flats::Flats;
use super::noise::Noise;
use super::watchers::{Commander, Watchers};
use super::{World, addresses, check_commands};

/// Gateways of the quiet tenant.
const QUIET: usize = 40;
/// Between two numbers of each.
const EVERY: Duration = Duration::from_millis(200);
/// For how long there is noise. Long enough for the heartbeats of its deaf clients to run out.
const NOISE: Duration = Duration::from_secs(12);
/// Frames that make noise: half of what one gateway alone may send in that time.
const LOUD: u64 = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_tenant_that_does_all_it_can_everything_of_another_arrives_and_nothing_is_refused() {
    let world = World::start(2).await;
    let other = world.edges.add_tenant("noisy").expect("a tenants file");
    for edge in 0..2 {
        world.until(edge, r#"riser_reloads_total{outcome="taken",what="tenants"}"#, |taken| taken > 0.0).await;
    }
    let mut flats = Flats::each(&world.gateways_at(), &world.api(), QUIET, EVERY).await;
    let watchers = Watchers::connect(&world.clients_at(), &world.key(), &["*/*", "*/*", "b1/*"]).await;
    let every = Duration::from_millis(100);
    let commander = Commander::start(&world.clients_at(), &world.key(), addresses(&flats), every).await;
    let noise = Noise::begin(&world.clients_at(), &Credential::new(other.key.as_str())).await;
    flats.load(true);
    // How long there is noise is what is tested, and nothing else tells when it was enough.
    sleep(NOISE).await;
    flats.finish().await;
    let outcomes = commander.finish().await;
    let (sent, came) = noise.made();
    assert!(sent >= LOUD && came > 0, "{sent} frames and {came} sessions are no noise");
    drop(noise);
    watchers.converge(&flats).await;
    check_commands(&flats, &outcomes, false);
    let done = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Ok((_, word)) if word == "succeeded")).count();
    assert_eq!(done, outcomes.len(), "each command was done: {outcomes:?}");
    for flat in flats.iter() {
        let said = flat.said();
        assert_eq!((said.refused, said.away), (0, Duration::ZERO), "{}: {said:?}", flat.address);
    }
    for watcher in &watchers.all {
        let shown = watcher.shown();
        assert_eq!(shown.sessions, 1, "a client of {} was sent away", watcher.of);
    }
}
