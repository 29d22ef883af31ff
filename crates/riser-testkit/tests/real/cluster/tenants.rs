//! Tenants beside each other.

use std::time::Duration;

use futures_util::StreamExt;
use riser_client::{End, Link};
use riser_core::frame::Credential;
use riser_core::tenant::KeyHash;
use riser_edge::auth::new_api_key;
use tokio::time::{Instant, sleep, timeout_at};

use super::flats::Flats;
use super::noise::Noise;
use super::watchers::{Commander, Watchers};
use super::world::Shape;
use super::{World, addresses, check_commands};
use crate::PATIENCE;

/// Gateways of the quiet tenant.
const QUIET: usize = 40;
/// Between two numbers of each.
const EVERY: Duration = Duration::from_millis(200);
/// For how long there is noise. Long enough for the heartbeats of its deaf clients to run out.
const NOISE: Duration = Duration::from_secs(12);
/// Frames that make noise: half of what one gateway alone may send in that time.
const LOUD: u64 = 12_000;

/// Sessions of a key that is revoked, and as many of another one.
const SESSIONS: usize = 1_000;
/// Sessions that are opened at once.
const OPENING: usize = 50;
/// How soon the sessions of a revoked key are closed.
const REVOKED: Duration = Duration::from_secs(5);

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

/// Sessions with this key, spread over three edges.
async fn sessions(world: &World, key: &str) -> Vec<Link> {
    let opening = (0..SESSIONS).map(async |number| world.edges.link(number % 3, key).await.expect("a session").0);
    futures_util::stream::iter(opening).buffer_unordered(OPENING).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_of_a_revoked_key_end_at_three_edges_and_a_thousand_others_go_on() {
    // Whose pings nobody answers while it waits for its turn is not to end of that.
    let world = World::shaped(&Shape { heartbeat: "60s", ..Shape::default() }).await;
    let (other, hash) = new_api_key(None);
    world.edges.write_tenants(&[("leaked", KeyHash::of(&world.edges.key, None)), ("other", hash)]).expect("a file");
    for edge in 0..3 {
        world.until(edge, r#"riser_reloads_total{outcome="taken",what="tenants"}"#, |taken| taken > 0.0).await;
    }
    let (leaked, others) = tokio::join!(sessions(&world, &world.edges.key), sessions(&world, &other));
    world.edges.write_tenants(&[("other", hash)]).expect("a file");
    let by = Instant::now() + REVOKED;
    let ends = leaked.into_iter().map(async |mut link| timeout_at(by, link.next()).await);
    let ends: Vec<_> = futures_util::stream::iter(ends).buffer_unordered(SESSIONS).collect().await;
    let closed = ends.iter().filter(|end| matches!(end, Ok(Err(End::Closed { code: 4504, .. })))).count();
    let wrong = ends.iter().find(|end| !matches!(end, Ok(Err(End::Closed { code: 4504, .. }))));
    assert_eq!(closed, SESSIONS, "one of the others: {wrong:?}");
    let going_on = others.into_iter().map(async |mut link| {
        link.send(r#"{"t":"ping","n":7}"#)?;
        link.next().await
    });
    let answers = futures_util::stream::iter(going_on).buffer_unordered(SESSIONS).collect::<Vec<_>>();
    let answers = timeout_at(Instant::now() + PATIENCE, answers).await.expect("answers in time");
    let gone = answers.iter().find(|answer| !matches!(answer, Ok(text) if text.contains("\"pong\"")));
    assert!(gone.is_none(), "{gone:?}");
    assert!(world.edges.link(1, &world.edges.key).await.is_err(), "the key is good for nothing any more");
}
