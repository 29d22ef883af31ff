//! Edges that are rolled, killed and left behind.

use std::time::Duration;

use riser_client::{Config, Gateway, Memory, Order, Status};
use riser_core::command::Status::Succeeded;
use riser_core::{Address, Json};
use riser_testkit::real::proxy::Proxy;
use tokio::time::timeout;

use super::flats::{Flats, number_path};
use super::watchers::{Commander, Watchers};
use super::world::local;
use super::{FLATS, World, addresses, check_commands, thirty};
use crate::PATIENCE;

/// For how long a gateway of a drained edge stays online after its session was ended, at least.
const MOVING: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_shows_nobody_offline() {
    let mut world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), FLATS).await;
    let watchers = thirty(&world).await;
    let every = Duration::from_millis(100);
    let commander = Commander::start(&world.clients_at(), &world.key(), addresses(&flats), every).await;
    flats.load(true);
    for edge in 0..3 {
        world.edges.terminate(edge).expect("an edge that runs");
        let status = world.edges.ended(edge).await.expect("an edge that ends");
        assert_eq!(status, Some(0), "edge-{edge}: {}", world.edges.log(edge));
        world.edges.launch(edge).expect("an edge that starts");
        world.edges.ready(edge).await.expect("an edge that is ready");
        flats.online().await;
    }
    flats.finish().await;
    let outcomes = commander.finish().await;
    watchers.converge(&flats).await;
    check_commands(&flats, &outcomes, false);
    // Two of three edges are ready at any time, so that nobody has an excuse.
    let longest = flats.iter().map(|flat| flat.said()).max_by_key(|said| said.away).expect("a gateway");
    assert!(longest.away < MOVING, "one came back after {:?} only: {:#?}", longest.away, longest.attempts);
    for watcher in &watchers.all {
        let shown = watcher.shown();
        assert!(shown.sessions > 1, "a client of {} was never moved", watcher.of);
        let offline: Vec<_> = shown.online.iter().filter(|(_, online)| online.contains(&false)).collect();
        assert!(offline.is_empty() && shown.gone.is_empty(), "at {}: {offline:?} {:?}", watcher.of, shown.gone);
    }
}

/// A gateway behind a line of its own.
async fn alone(world: &World, line: &Proxy, address: &Address) -> (Gateway, riser_client::Commands) {
    let token = world.api().gateway_token(address, Some(3_600)).await.expect("a token").token;
    let endpoint = format!("http://{}", line.address()).parse().expect("an endpoint");
    let (gateway, commands) = Gateway::serve(Config::new(endpoint, token), Memory::new(Duration::from_secs(3_600)));
    let mut status = gateway.status();
    let online = timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Online(_)))).await;
    assert!(online.expect("a session in time").is_ok(), "the gateway has ended");
    (gateway, commands)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_comes_back_elsewhere_takes_over_from_its_half_open_socket() {
    let world = World::start(2).await;
    let address: Address = "b1/f1".parse().expect("an address");
    let lines = [
        Proxy::start(local(world.edges.port(0)), 5).await.expect("a proxy"),
        Proxy::start(local(world.edges.port(1)), 6).await.expect("a proxy"),
    ];
    let (_old, mut never) = alone(&world, &lines[0], &address).await;
    let watchers = Watchers::connect(&world.clients_at(), &world.key(), &["*/*", "b1/*"]).await;
    world.until(0, "riser_sessions", |sessions| sessions > 0.5).await;
    lines[0].stall(true);
    let (new, mut commands) = alone(&world, &lines[1], &address).await;
    let metric = "riser_sessions{peer=\"gateway\"}";
    world.until(0, metric, |sessions| sessions < 0.5).await;
    // The old line is good again, and whatever was on its way to it comes.
    lines[0].stall(false);
    let order = Order::new(address.clone(), "hall/light".parse().expect("a path"), "toggle");
    let api = world.api();
    let (recorded, ()) = tokio::join!(timeout(PATIENCE, api.command_to_end(&order)), async {
        let request = timeout(PATIENCE, commands.next()).await.expect("a command in time").expect("an open gateway");
        request.succeed(None).await.expect("an edge that takes the answer");
    });
    let recorded = recorded.expect("an outcome in time").expect("an outcome");
    assert_eq!(recorded.decided().map(|step| step.status), Some(Succeeded));
    let values = [(number_path(), Some(Json::of(&7)))].into();
    new.set(values).await.expect("the new session is the gateway's");
    watchers.each("the new session's value", |_, shown| shown.numbers.get(&address) == Some(&7)).await;
    for watcher in &watchers.all {
        let shown = watcher.shown();
        assert_eq!(shown.online[&address], [true], "shown offline at {}", watcher.of);
    }
    let late = timeout(Duration::from_millis(200), never.next()).await;
    assert!(!matches!(late, Ok(Some(_))), "a command reached the session that was taken over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_hung_gives_up_what_others_took_over() {
    let world = World::start(3).await;
    let mut flats = Flats::connect(&world.gateways_at(), &world.api(), 60).await;
    let watchers = Watchers::connect(&world.clients_at(), &world.key(), &["*/*", "*/*", "*/*"]).await;
    flats.load(true);
    let held = flats.at("edge-2").len();
    assert!(held > 0, "edge-2 holds none");
    world.edges.pause(2).expect("an edge that runs");
    // Its gateways find it silent, and are taken in by the others.
    let moved = async {
        while !flats.at("edge-2").is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, moved).await.expect("gateways that leave a silent edge");
    flats.online().await;
    world.edges.resume(2).expect("an edge that was stopped");
    world.readiness(2, 200).await;
    flats.finish().await;
    watchers.converge(&flats).await;
}
