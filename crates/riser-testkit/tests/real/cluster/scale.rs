//! Two thousand gateways and two hundred clients, as many as the three edges of a house of some buildings have.

use std::time::Duration;

use riser_core::Address;
use tokio::time::timeout;

use super::flats::Flats;
use super::watchers::{Commander, Shown, Watcher, Watchers};
use super::world::Shape;
use super::{World, addresses, check_commands};

/// Gateways: seven hundred for each edge.
const FLATS: usize = 2_100;
/// Clients that watch one of ten buildings.
const OF_A_BUILDING: usize = 192;
/// Clients that watch everything.
const OF_ALL: usize = 8;
/// Between two numbers of one gateway: seventy changes a second in all, of which each comes to 27 clients.
const EVERY: Duration = Duration::from_secs(30);
/// Between two pings: half of what edges do by themselves. Two thousand peers in one process answer late now and then.
const HEARTBEAT: &str = "10s";
/// For how long a gateway of a drained edge stays online after its session was ended, at least.
const MOVING: Duration = Duration::from_secs(15);
/// How soon the gateways of a dead edge are offline for everybody.
const NOTICED: Duration = Duration::from_secs(15);

async fn flats(world: &World) -> Flats {
    Flats::each(&world.gateways_at(), &world.api(), FLATS, EVERY).await
}

async fn two_hundred(world: &World) -> Watchers {
    let buildings: Vec<String> = (0..OF_A_BUILDING).map(|number| format!("b{}/*", number % 10)).collect();
    let mut patterns: Vec<&str> = buildings.iter().map(String::as_str).collect();
    patterns.extend(["*/*"; OF_ALL]);
    Watchers::connect(&world.clients_at(), &world.key(), &patterns).await
}

/// Connections that these edges sent away because too many came at once.
async fn turned_away(world: &World, edges: &[usize]) -> f64 {
    let mut sum = 0.0;
    for reason in ["busy", "busy_address", "busy_tenant"] {
        sum += world.count(edges, &format!("riser_refused_total{{reason=\"{reason}\"}}")).await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_two_thousand_under_load_loses_nothing_and_shows_nobody_offline() {
    let mut world = World::shaped(&Shape { heartbeat: HEARTBEAT, ..Shape::default() }).await;
    let mut flats = flats(&world).await;
    let watchers = two_hundred(&world).await;
    let every = Duration::from_millis(100);
    let commander = Commander::start(&world.clients_at(), &world.key(), addresses(&flats), every).await;
    flats.load(true);
    let mut away = 0.0;
    for edge in 0..3 {
        // An edge that ends takes its count with it.
        away += turned_away(&world, &[edge]).await;
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
    away += turned_away(&world, &[0, 1, 2]).await;
    assert!(away < 0.5, "{away} were sent away because too many came at once");
    let late: Vec<_> = flats.iter().filter(|flat| flat.said().away >= MOVING).map(|flat| &flat.address).collect();
    for watcher in &watchers.all {
        let shown = watcher.shown();
        assert!(shown.sessions > 1, "a client of {} was never moved", watcher.of);
        let in_time = |of: &Address| !late.contains(&of);
        let offline: Vec<_> =
            shown.online.iter().filter(|(of, online)| online.contains(&false) && in_time(of)).collect();
        let gone: Vec<_> = shown.gone.keys().filter(|of| in_time(of)).collect();
        let attempts: Vec<_> = gone.iter().map(|of| flats.get(of).said().attempts).collect();
        let (of, why) = (&watcher.of, &shown.reasons);
        assert!(offline.is_empty() && gone.is_empty(), "shown offline at {of}: {offline:?} {why:?} {attempts:#?}");
    }
    assert!(late.is_empty(), "while other edges were ready these did not come back in time: {late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seven_hundred_gateways_of_a_killed_edge_go_once_in_time_and_come_back_once() {
    let mut world = World::shaped(&Shape { heartbeat: HEARTBEAT, ..Shape::default() }).await;
    let mut flats = flats(&world).await;
    let watchers = two_hundred(&world).await;
    let lost = flats.at("edge-1");
    assert!(lost.len() > FLATS / 4, "edge-1 holds {} gateways", lost.len());
    // Nobody comes back before everybody has seen them go.
    world.gateways.refuse(true);
    world.edges.kill(1);
    let is_gone = |of: &Address, shown: &Shown| shown.online.get(of).and_then(|online| online.last()) == Some(&false);
    let all_gone =
        |watcher: &Watcher, shown: &Shown| lost.iter().filter(|of| watcher.of.matches(of)).all(|of| is_gone(of, shown));
    let gone = timeout(NOTICED, watchers.each("that the gateways went", all_gone)).await;
    assert!(gone.is_ok(), "somebody was not shown within {NOTICED:?} that the gateways went");
    world.gateways.refuse(false);
    flats.online().await;
    flats.finish().await;
    watchers.converge(&flats).await;
    for watcher in &watchers.all {
        let shown = watcher.shown();
        for (of, online) in &shown.online {
            let (expected, gone): (&[bool], u32) =
                if lost.contains(of) { (&[true, false, true], 1) } else { (&[true], 0) };
            assert_eq!(online, expected, "{of} at a client of {}", watcher.of);
            let told = shown.gone.get(of).copied().unwrap_or_default();
            // Who was at the killed edge itself may have been told by a snapshot.
            assert!(told == gone || shown.sessions > 1 && told < gone, "{of} went {told} times at {}", watcher.of);
        }
    }
    let swept = world.count(&[0, 2], "riser_swept_total").await;
    assert!((swept - f64::from(u32::try_from(lost.len()).expect("few"))).abs() < 0.5, "{swept} of {}", lost.len());
}
