//! Held commands outlive a loss of Redis, are never told to be held without their copy, and are in the ledger afterwards.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use riser_client::{Commands, Config, Gateway, Memory, Order, Status};
use riser_core::Address;
use riser_core::command::Status as Became;
use riser_testkit::real::edges::TENANT;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::World;
use super::degraded::status_of;
use crate::{PATIENCE, program};

/// A deadline that does not pass within a test.
const FAR: Duration = Duration::from_secs(3_600);
/// Between two looks at what only says it when asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn address(name: &str) -> Address {
    name.parse().expect("an address")
}

fn order(to: &Address, action: &str, deadline: Duration) -> Order {
    Order { deadline, hold: true, ..Order::new(to.clone(), "hall/lock".parse().expect("a path"), action) }
}

/// Connects a gateway that remembers commands for so long.
async fn connect(world: &World, of: &Address, remembers: Duration) -> (Gateway, Commands) {
    let token = world.api().gateway_token(of, None).await.expect("a token").token;
    let config = Config::new(world.gateways_at(), token);
    let (gateway, commands) = Gateway::serve(config, Memory::new(remembers));
    let mut status = gateway.status();
    let online = timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Online(_)))).await;
    assert!(online.expect("a session in time").is_ok(), "the gateway has ended");
    (gateway, commands)
}

/// The next command that a gateway is given: its `cmd` and its action. It is answered when it is to succeed.
async fn given(commands: &mut Commands, succeeds: bool) -> (String, String) {
    let request = timeout(PATIENCE, commands.next()).await.expect("a command in time").expect("an open gateway");
    let given = (request.cmd().to_owned(), request.action().to_owned());
    if succeeds {
        request.succeed(None).await.expect("an edge that takes the answer");
    }
    given
}

/// How the commands of an address stand, as the list of the latest ones tells, without what a gateway only says on its way.
async fn listed(world: &World, of: &Address) -> BTreeMap<String, Vec<Became>> {
    let page = world.api().commands(of, None, 64).await.expect("a page");
    let statuses = |outcomes: &[riser_client::Step]| {
        outcomes.iter().map(|step| step.status).filter(|status| *status != Became::Received).collect()
    };
    page.commands.iter().map(|command| (command.cmd.clone(), statuses(&command.outcomes))).collect()
}

/// Waits until a command stands like this.
async fn until(world: &World, of: &Address, cmd: &str, expected: &[Became]) {
    let reached = async {
        while listed(world, of).await.get(cmd).is_none_or(|statuses| statuses != expected) {
            sleep(LOOK_EVERY).await;
        }
    };
    let reached = timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{cmd} never became {expected:?}: {:?}", listed(world, of).await);
}

async fn empty(world: &World) {
    let mut raw = world.redis.raw(0).await.expect("a connection");
    raw.call(&["FLUSHALL"]).await.expect("an answer");
}

/// What `riser ledger` prints, by `cmd`.
fn ledger(world: &World) -> BTreeMap<String, Value> {
    let mut command = Command::new(program("RISER_BIN"));
    command.env_clear().arg("ledger").arg("--config").arg(world.edges.path("riser.toml"));
    let output = command.args(["--tenant", TENANT, "--since", "1h", "--json"]).output().expect("a program that runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a text");
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    entries.map(|entry| (entry["cmd"].as_str().expect("a cmd").to_owned(), entry)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_commands_outlive_an_emptied_redis_and_each_is_given_once() {
    let world = World::start(2).await;
    let api = world.api();
    let flats: Vec<_> = (1..=3).map(|number| address(&format!("b1/f{number}"))).collect();
    let (mut held, never) = (vec![], address("b1/f9"));
    for flat in &flats {
        held.push(api.command(&order(flat, "unlock", FAR)).await.expect("a command that is held"));
    }
    let expires = api.command(&order(&never, "unlock", Duration::from_secs(2))).await.expect("a command that is held");
    until(&world, &never, &expires, &[Became::Held]).await;
    empty(&world).await;
    assert!(listed(&world, &flats[0]).await.is_empty(), "nothing was lost");
    let mut gateways = vec![];
    for flat in &flats {
        gateways.push(connect(&world, flat, Duration::ZERO).await);
    }
    for ((flat, cmd), (_, commands)) in flats.iter().zip(&held).zip(&mut gateways) {
        assert_eq!(given(commands, true).await, (cmd.clone(), "unlock".to_owned()));
        until(&world, flat, cmd, &[Became::Held, Became::Sent, Became::Succeeded]).await;
        // What comes next is not the same again.
        let next = api.command(&order(flat, "lock", FAR)).await.expect("a command");
        assert_eq!(given(commands, true).await, (next, "lock".to_owned()));
    }
    until(&world, &never, &expires, &[Became::Held, Became::Expired]).await;
    let written = async {
        loop {
            let entries = ledger(&world);
            if held.iter().chain([&expires]).all(|cmd| entries.contains_key(cmd)) {
                break entries;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let entries = timeout(PATIENCE, written).await.expect("a ledger that is written");
    assert_eq!(
        (&entries[&expires]["of"], &entries[&expires]["outcomes"][1]["status"]),
        (&"b1/f9".into(), &"expired".into())
    );
    assert_eq!(
        entries[&held[0]]["outcomes"].as_array().and_then(|outcomes| Some(&outcomes.last()?["status"])),
        Some(&"succeeded".into())
    );
    assert_eq!(entries.len(), 2 * flats.len() + 1, "one entry for each: {entries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_redis_was_emptied_is_not_sent_again_and_ends() {
    let world = World::start(2).await;
    let (api, unanswered, answered) = (world.api(), address("b1/f1"), address("b1/f2"));
    let lost =
        api.command(&order(&unanswered, "unlock", Duration::from_secs(20))).await.expect("a command that is held");
    let told = api.command(&order(&answered, "unlock", FAR)).await.expect("a command that is held");
    let (gateway, mut commands) = connect(&world, &unanswered, Duration::ZERO).await;
    let (other, mut others) = connect(&world, &answered, Duration::ZERO).await;
    assert_eq!(given(&mut commands, false).await.0, lost);
    assert_eq!(given(&mut others, true).await.0, told);
    until(&world, &answered, &told, &[Became::Held, Became::Sent, Became::Succeeded]).await;
    gateway.close().await;
    other.close().await;
    empty(&world).await;
    // It comes back before anybody has noticed, and does not know what it was given.
    let (_gateway, mut commands) = connect(&world, &unanswered, Duration::ZERO).await;
    let adopted = async {
        while world.count(&[0, 1], "riser_held_adopted_total").await < 1.5 {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, adopted).await.expect("a Redis that is given what it lost");
    until(&world, &answered, &told, &[Became::Held, Became::Sent, Became::Succeeded]).await;
    until(&world, &unanswered, &lost, &[Became::Held, Became::Sent, Became::Unknown]).await;
    let next = api.command(&order(&unanswered, "lock", FAR)).await.expect("a command");
    assert_eq!(given(&mut commands, true).await, (next, "lock".to_owned()), "it was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_jetstream_nothing_is_held_and_a_repetition_is_held_once() {
    let world = World::start(2).await;
    let (api, flat) = (world.api(), address("b1/f1"));
    let wanted = Order { key: Some("one".into()), ..order(&flat, "unlock", FAR) };
    world.to_nats.refuse(true);
    world.to_nats.reset();
    world.until(0, "riser_bus_up", |up| up < 0.5).await;
    let refused = api.command(&wanted).await.expect_err("a command of which no copy can be written");
    assert_eq!(status_of(&refused), Some(503), "{refused}");
    world.to_nats.refuse(false);
    for edge in 0..2 {
        world.readiness(edge, 200).await;
    }
    let cmd = api.command(&wanted).await.expect("a command that is held");
    let (_gateway, mut commands) = connect(&world, &flat, Duration::ZERO).await;
    assert_eq!(given(&mut commands, true).await, (cmd, "unlock".to_owned()));
    let next = api.command(&order(&flat, "lock", FAR)).await.expect("a command");
    assert_eq!(given(&mut commands, true).await, (next, "lock".to_owned()));
}
