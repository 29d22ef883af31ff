//! A cluster whose NATS or Redis loses one of its servers.

use std::time::Duration;

use tokio::time::timeout;

use super::degraded::{at_each_edge, status_of};
use super::flats::Flats;
use super::watchers::Commander;
use super::world::Shape;
use super::{World, addresses, check_commands};
use crate::PATIENCE;

/// Gateways of each test.
const SOME: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_of_three_nats_servers_is_killed_under_load_nothing_is_lost() {
    let shape = Shape { nats: 3, ..Shape::default() };
    let mut world = World::shaped(&shape).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), SOME).await;
    let watchers = at_each_edge(&world).await;
    let every = Duration::from_millis(100);
    let commander = Commander::start(&world.clients_at(), &world.key(), addresses(&flats), every).await;
    flats.load(true);
    let first = flats.iter().next().expect("a gateway").clone();
    let told = async {
        while flats.iter().all(|flat| flat.said().events.is_empty()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("a first event");
    let leader = world.nats.leader_of("riser-ev-acme").await.expect("a leader");
    world.nats.kill(leader);
    // An event goes through again when the stream has another leader.
    let notice = riser_client::Notice::new("ring");
    let stored = async { while world.api().event(&first.address, &notice).await.is_err() {} };
    timeout(PATIENCE, stored).await.expect("an event that is stored");
    world.nats.start_again(leader).expect("a server that starts");
    world.nats.ready().await.expect("a cluster that is ready");
    for edge in 0..3 {
        world.readiness(edge, 200).await;
    }
    flats.finish().await;
    check_commands(&flats, &commander.finish().await, true);
    watchers.converge(&flats).await;
    super::degraded::undisturbed(&watchers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_events_are_refused_and_sessions_stay() {
    let shape = Shape { nats: 3, ..Shape::default() };
    let mut world = World::shaped(&shape).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), SOME).await;
    let watchers = at_each_edge(&world).await;
    let first = flats.iter().next().expect("a gateway").clone();
    let notice = riser_client::Notice::new("ring");
    world.api().event(&first.address, &notice).await.expect("a quorum");
    flats.load(true);
    world.nats.kill(0);
    world.nats.kill(1);
    let refused = world.api().event(&first.address, &riser_client::Notice::new("ring")).await;
    let refused = refused.expect_err("an event that has no quorum");
    assert_eq!(status_of(&refused), Some(503), "{refused}");
    // Each edge notices, whoever asked, and is ready all the same.
    let why = "degraded: the event store does not answer";
    for edge in 0..3 {
        world.edges.until_ready_says(edge, 200, why).await.expect("it says so");
        world.until(edge, "riser_log_up", |up| up < 0.5).await;
    }
    world.nats.start_again(0).expect("a server that starts");
    world.nats.start_again(1).expect("a server that starts");
    world.nats.ready().await.expect("a cluster that is ready");
    for edge in 0..3 {
        world.until(edge, "riser_log_up", |up| up > 0.5).await;
        assert_eq!(world.readiness(edge, 200).await, "ok\n");
    }
    flats.finish().await;
    watchers.converge_state(&flats).await;
    super::degraded::undisturbed(&watchers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_fails_over_with_a_lost_tail_all_converges() {
    let shape = Shape { sentinels: true, ..Shape::default() };
    let mut world = World::shaped(&shape).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), SOME).await;
    let watchers = at_each_edge(&world).await;
    flats.load(true);
    // What is written from here on, only the master has.
    world.redis.pause(1).expect("a replica that runs");
    let before: Vec<_> = flats.iter().map(|flat| flat.said().number).collect();
    let more = async {
        while flats.iter().zip(&before).any(|(flat, before)| flat.said().number < before + 2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, more).await.expect("more numbers");
    world.redis.kill(0);
    world.redis.resume(1).expect("a replica that was stopped");
    for edge in 0..3 {
        world.until(edge, "riser_registry_up", |up| up > 0.5).await;
        world.readiness(edge, 200).await;
    }
    flats.finish().await;
    watchers.converge(&flats).await;
    super::degraded::undisturbed(&watchers);
}
