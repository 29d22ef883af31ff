//! What still works while NATS or Redis does not, how that shows, and that all is right again afterwards.

use std::time::Duration;

use riser_client::Order;
use riser_core::command::Status;
use riser_testkit::real::nats::NatsOptions;

use super::flats::Flats;
use super::watchers::{Commander, Watchers};
use super::world::Shape;
use super::{FLATS, World, addresses, check_commands, thirty};

/// How soon every connected gateway is asked for its full state, once Redis has lost it.
const ASKED: Duration = Duration::from_secs(10);

/// Watchers at every edge, whose sessions must last.
pub(super) async fn at_each_edge(world: &World) -> Watchers {
    Watchers::connect(&world.clients_at(), &world.key(), &["*/*"; 3]).await
}

/// Checks that no session ended and nobody was shown offline.
pub(super) fn undisturbed(watchers: &Watchers) {
    for watcher in &watchers.all {
        let shown = watcher.shown();
        assert_eq!(shown.sessions, 1, "a client of {} lost its session", watcher.of);
        let offline: Vec<_> = shown.online.iter().filter(|(_, online)| online.contains(&false)).collect();
        assert!(offline.is_empty(), "shown offline at {}: {offline:?}", watcher.of);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_sessions_stay_events_are_refused_and_all_converges_afterwards() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 60).await;
    let watchers = at_each_edge(&world).await;
    flats.load(true);
    world.to_nats.refuse(true);
    world.to_nats.reset();
    for edge in 0..3 {
        let why = world.readiness(edge, 503).await;
        assert!(why.contains("bus"), "{why}");
        world.until(edge, "riser_bus_up", |up| up < 0.5).await;
    }
    // State is kept in the store; an event is refused rather than lost.
    let flat = flats.iter().next().expect("a gateway");
    let before = flat.said();
    let notice = riser_client::Notice::new("ring");
    let refused = world.api().event(&flat.address, &notice).await.expect_err("an event that nobody can store");
    assert_eq!(status_of(&refused), Some(503), "{refused}");
    flat.gateway
        .set([("load/kept".parse().expect("a path"), Some(riser_core::Json::of(&before.number)))].into())
        .await
        .expect("state is kept without NATS");
    world.to_nats.refuse(false);
    for edge in 0..3 {
        world.readiness(edge, 200).await;
    }
    flats.finish().await;
    watchers.converge(&flats).await;
    undisturbed(&watchers);
}

/// The HTTP status of a refusal.
pub(super) fn status_of(end: &riser_client::End) -> Option<u16> {
    match end {
        riser_client::End::Refused { status, .. } => Some(*status),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_a_command_is_refused_or_ends_and_is_never_done_twice() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 60).await;
    let every = Duration::from_millis(100);
    let commander = Commander::start(&world.clients_at(), &world.key(), addresses(&flats), every).await;
    flats.load(true);
    for _ in 0..2 {
        world.to_nats.stall(true);
        for edge in 0..3 {
            world.readiness(edge, 503).await;
        }
        world.to_nats.stall(false);
        for edge in 0..3 {
            world.readiness(edge, 200).await;
        }
    }
    flats.finish().await;
    check_commands(&flats, &commander.finish().await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_sessions_stay_and_all_converges_afterwards() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 60).await;
    let watchers = at_each_edge(&world).await;
    flats.load(true);
    world.to_redis.refuse(true);
    world.to_redis.reset();
    for edge in 0..3 {
        world.until(edge, "riser_registry_up", |up| up < 0.5).await;
        let why = world.readiness(edge, 503).await;
        assert!(why.contains("registry"), "{why}");
    }
    world.to_redis.refuse(false);
    for edge in 0..3 {
        world.until(edge, "riser_registry_up", |up| up > 0.5).await;
        world.readiness(edge, 200).await;
    }
    flats.finish().await;
    watchers.converge(&flats).await;
    undisturbed(&watchers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_costs_no_session_and_all_converges_afterwards() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 60).await;
    let watchers = at_each_edge(&world).await;
    flats.load(true);
    world.redis.pause(0).expect("a server that runs");
    for edge in 0..3 {
        world.until(edge, "riser_registry_up", |up| up < 0.5).await;
    }
    world.redis.resume(0).expect("a server that was stopped");
    for edge in 0..3 {
        world.readiness(edge, 200).await;
    }
    flats.finish().await;
    watchers.converge(&flats).await;
    undisturbed(&watchers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_emptied_under_load_is_filled_again_by_every_gateway() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), FLATS).await;
    let watchers = thirty(&world).await;
    flats.load(true);
    let mut raw = world.redis.raw(0).await.expect("a connection");
    raw.call(&["FLUSHALL"]).await.expect("an answer");
    let asked = async {
        while world.count(&[0, 1, 2], "riser_resyncs_total").await < f64::from(u32::try_from(FLATS).expect("few")) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ASKED, asked).await.expect("every gateway is asked for its full state in time");
    flats.finish().await;
    watchers.converge(&flats).await;
    // Who comes now is shown the same as who was there.
    at_each_edge(&world).await.converge_state(&flats).await;
    undisturbed(&watchers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_jetstream_refuses_events_and_nothing_else() {
    let of_nats = NatsOptions { max_file_store: Some(1 << 20), ..NatsOptions::default() };
    let world = World::shaped(&Shape { edges: 2, of_nats, ..Shape::default() }).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 10).await;
    let flat = flats.iter().next().expect("a gateway").clone();
    let api = world.api();
    let mut stored = 0;
    let refused = loop {
        let notice = riser_client::Notice {
            data: Some(riser_core::Json::of(&"x".repeat(30_000))),
            ..riser_client::Notice::new("ring")
        };
        match api.event(&flat.address, &notice).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < 200, "more was stored than there is room for");
    };
    assert_eq!(status_of(&refused), Some(503), "{refused}");
    assert!(refused.to_string().contains("full"), "{refused}");
    let failed = world.count(&[0, 1], "riser_events_total{result=\"full\"}").await;
    assert!(failed > 0.5, "no metric tells it");
    // The edge that was asked says so, and is ready all the same.
    let mut said = vec![];
    for edge in 0..2 {
        said.push((world.readiness(edge, 200).await, world.count(&[edge], "riser_log_full").await));
    }
    let is_told =
        |(text, full): &(String, f64)| text.contains("degraded: the event store is full") && (full - 1.0).abs() < 0.1;
    assert!(said.iter().any(is_told), "{said:?}");
    let order = Order::new(flat.address.clone(), "hall/light".parse().expect("a path"), "toggle");
    let recorded = api.command_to_end(&order).await.expect("an outcome");
    assert_eq!(recorded.decided().map(|step| step.status), Some(Status::Succeeded));
    flats.finish().await;
}
