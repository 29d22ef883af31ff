//! `riser send`, `events` and `notify`, and the client library against a whole cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_client::{
    Api, Client, Commands, Config, Event, Gateway, Memory, Notice, Order, Request, Subscription, Update,
};
use riser_core::Json;
use riser_core::command::Status;
use riser_core::frame::Credential;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Dev, Riser, WAIT};

fn config(url: &str, credential: &str) -> Config {
    Config::new(url.parse().expect("an endpoint"), Credential::new(credential))
}

/// A gateway on an edge, with a token made by the tool that users have.
async fn gateway(dev: &Dev, edge: usize, address: &str) -> (Gateway, Commands) {
    let token = Riser::start(dev.tool(&["token", "gateway", address])).line().expect("a token");
    let (gateway, commands) = Gateway::serve(config(&dev.url("http", edge), &token), Memory::default());
    // Stored, and so the session has begun.
    gateway.full(BTreeMap::new()).await.expect("stored");
    (gateway, commands)
}

/// Does what the action of each command says, and tells which there were.
async fn obey(mut commands: Commands, did: mpsc::Sender<String>) {
    let mut never = Vec::new();
    while let Some(mut request) = commands.next().await {
        did.send(request.action().to_owned()).await.expect("the test goes on");
        let done = match request.action() {
            "fail" => request.fail("jammed", None).await,
            "refuse" => request.reject("not_now", None).await,
            "wait" => {
                request.cancelled().await;
                request.stop().await
            }
            "never" => {
                never.push(request);
                Ok(())
            }
            _ => {
                let data = Json::of(&request.args());
                request.succeed(Some(data)).await
            }
        };
        done.expect("it lives");
    }
}

fn send(dev: &Dev, args: &[&str]) -> Riser {
    let mut command = dev.tool(&[&["send", "b9/g", "hall/lock"], args].concat());
    // Not the edge that the gateway is at.
    command.env("RISER_URL", dev.url("http", 1));
    Riser::start(command)
}

/// The exit code and the last line of a command.
fn ended(riser: Riser) -> (i32, String) {
    let mut last = String::new();
    while let Some(line) = riser.line() {
        last = line;
    }
    let ended = riser.ended();
    (ended.status.code().unwrap_or_else(|| panic!("it was killed: {}", ended.stderr)), last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_a_command_is_the_exit_code_and_the_last_line() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    assert_eq!(ended(send(&dev, &["unlock"])), (4, "offline".into()));
    assert_eq!(ended(send(&dev, &["unlock", "--hold", "--deadline", "200ms"])), (5, "expired".into()));
    let (_gateway, commands) = gateway(&dev, 0, "b9/g").await;
    let (did, mut done) = mpsc::channel(16);
    let mut obeying = JoinSet::new();
    obeying.spawn(obey(commands, did));
    for (args, code, line) in [
        (&["unlock", "[1.50]"][..], 0, "succeeded [1.50]"),
        (&["fail"], 1, "failed jammed"),
        (&["refuse"], 3, "rejected not_now"),
        (&["never", "--deadline", "300ms"], 6, "unknown"),
    ] {
        assert_eq!(ended(send(&dev, args)), (code, line.into()), "{args:?}");
        assert_eq!(done.recv().await.as_deref(), Some(args[0]));
    }
    let waiting = send(&dev, &["wait", "--deadline", "60s"]);
    assert_eq!(timeout(WAIT, done.recv()).await.expect("in time").as_deref(), Some("wait"));
    waiting.signal("INT");
    assert_eq!(ended(waiting), (7, "cancelled".into()));
    // What does not hear of its cancelling is not waited for when it is asked twice.
    let mut stubborn = send(&dev, &["never", "--deadline", "60s"]);
    assert_eq!(timeout(WAIT, done.recv()).await.expect("in time").as_deref(), Some("never"));
    stubborn.signal("INT");
    stubborn.says("cancelling");
    stubborn.signal("INT");
    assert_eq!(stubborn.ended().status.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_is_the_same_command_and_another_body_is_refused() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    let (_gateway, commands) = gateway(&dev, 0, "b9/g").await;
    let (did, mut done) = mpsc::channel(16);
    let mut obeying = JoinSet::new();
    obeying.spawn(obey(commands, did));
    let once = || {
        let (code, line) = ended(send(&dev, &["unlock", "--command-key", "k1", "--output", "json"]));
        assert_eq!(code, 0);
        serde_json::from_str::<Value>(&line).expect("JSON")
    };
    let first = once();
    assert_eq!(
        (&first["t"], &first["status"], &first["final"]),
        (&"outcome".into(), &"succeeded".into(), &true.into())
    );
    assert_eq!(first, once());
    let other = send(&dev, &["lock", "--command-key", "k1"]).ended();
    assert_eq!(other.status.code(), Some(3));
    assert!(other.stderr.starts_with("riser: conflict: "), "{}", other.stderr);
    assert_eq!((done.recv().await.as_deref(), done.try_recv().is_err()), (Some("unlock"), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_command_is_done_when_its_gateway_comes() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    let client = Client::connect(config(&dev.url("http", 1), &dev.text("api_key"))).await.expect("a session");
    let order = Order { hold: true, deadline: Duration::from_secs(60), ..order("unlock") };
    let mut command = client.command(order).await.expect("it lives");
    let next = async |command: &mut riser_client::Command| {
        timeout(WAIT, command.next()).await.expect("in time").expect("an outcome").step.status
    };
    assert_eq!(next(&mut command).await, Status::Held);
    let (_gateway, commands) = gateway(&dev, 0, "b9/g").await;
    let (did, _done) = mpsc::channel(16);
    let mut obeying = JoinSet::new();
    obeying.spawn(obey(commands, did));
    let outcome = timeout(WAIT, command.outcome()).await.expect("in time").expect("an outcome");
    assert_eq!(outcome.step.status, Status::Succeeded);
}

fn order(action: &str) -> Order {
    Order::new("b9/g".parse().expect("an address"), "hall/lock".parse().expect("a path"), action)
}

async fn next(commands: &mut Commands) -> Request {
    timeout(WAIT, commands.next()).await.expect("in time").expect("it lives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_lives_through_the_death_of_its_edge_and_is_done_once() {
    let dev = Dev::start(&["--flats", "0"]);
    let (_gateway, mut commands) = gateway(&dev, 0, "b9/g").await;
    let client = Client::connect(config(&dev.url("http", 0), &dev.text("api_key"))).await.expect("a session");
    let order = Order { deadline: Duration::from_secs(60), ..order("unlock") };
    let command = client.command(order).await.expect("it lives");
    let request = next(&mut commands).await;
    assert_eq!(dev.admin(0, "POST /dev/edges/0/kill").0, 200);
    // Said while nobody listens.
    request.succeed(Some(Json::of("open"))).await.expect("it lives");
    assert_eq!(dev.admin(0, "POST /dev/edges/0/start").0, 200);
    let outcome = timeout(WAIT, command.outcome()).await.expect("in time").expect("an outcome");
    let said = outcome.step.data.as_ref().map(Json::as_str);
    assert_eq!((outcome.step.status, said), (Status::Succeeded, Some(r#""open""#)));
    // What was done is not done again: the next to come is another.
    let another = client.command(self::order("lock")).await.expect("it lives");
    assert_eq!(next(&mut commands).await.action(), "lock");
    drop(another);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_heard_without_a_hole_through_the_death_of_an_edge() {
    const EVENTS: usize = 40;
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    let mut client = Client::connect(config(&dev.url("http", 1), &dev.text("api_key"))).await.expect("a session");
    client.subscribe(Subscription::events("b9/*".parse().expect("a pattern"), None)).await.expect("few");
    let synced = async {
        while !matches!(client.next().await, Some(Event::Frame { update: Some(Update::Synced { .. }), .. })) {}
    };
    timeout(WAIT, synced).await.expect("in time");
    let (gateway, _commands) = gateway(&dev, 0, "b9/g").await;
    let telling = async {
        for i in 0..EVENTS {
            if i == EVENTS / 2 {
                assert_eq!(dev.admin(0, "POST /dev/edges/1/kill").0, 200);
            }
            let notice = Notice { id: i.to_string(), ..Notice::new("count") };
            gateway.event(&notice).await.expect("stored");
        }
        assert_eq!(dev.admin(0, "POST /dev/edges/1/start").0, 200);
    };
    let mut heard = Vec::new();
    let hearing = async {
        while heard.last().is_none_or(|last| *last != (EVENTS - 1).to_string()) {
            match client.next().await.expect("an event") {
                Event::Frame { update: Some(Update::Event(event)), .. } => heard.push(event.id.to_string()),
                Event::Frame { update: Some(Update::Gap { .. }), .. } => panic!("a gap"),
                _ => {}
            }
        }
    };
    timeout(WAIT, async { tokio::join!(telling, hearing) }).await.expect("in time");
    // At least once: what had been told before the death may come again, in its order.
    heard.dedup();
    let mut sorted: Vec<usize> = heard.iter().map(|id| id.parse().expect("a number")).collect();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted, (0..EVENTS).collect::<Vec<_>>());
}

#[test]
fn a_notice_is_an_event_that_can_be_seen_again() {
    let dev = Dev::start(&["--flats", "0"]);
    let seeing = Riser::start(dev.tool(&["events", "b9/*", "--output", "json"]));
    seeing.until(|line| line.contains(r#""t":"synced""#));
    let notify = |id: &str| {
        let args = ["notify", "b9/_", "notice", r#"{"text":"hello"}"#, "--id", id];
        let (code, cursor) = ended(Riser::start(dev.tool(&args)));
        assert_eq!(code, 0);
        cursor
    };
    let (first, second) = (notify("n1"), notify("n2"));
    assert_eq!(notify("n1"), first, "the same id is the same event");
    for cursor in [&first, &second] {
        let line = seeing.until(|line| line.contains(r#""t":"event""#));
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&event["cursor"], &event["of"], &event["type"]),
            (&(**cursor).into(), &"b9/_".into(), &"notice".into())
        );
    }
    seeing.signal("INT");
    assert_eq!(seeing.ended().status.code(), Some(0));
    let again = Riser::start(dev.tool(&["events", "b9/*", "--since", &first]));
    let line = again.line().expect("an event");
    assert!(line.ends_with(r#"Z b9/_ notice {"text":"hello"} (client:dev-key)"#), "{line}");
    again.signal("INT");
    let ended = again.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stderr, format!("riser: what follows is shown by --since {second}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_commands_and_tells_by_http() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    let (_gateway, commands) = gateway(&dev, 0, "b9/g").await;
    let (did, _done) = mpsc::channel(16);
    let mut obeying = JoinSet::new();
    obeying.spawn(obey(commands, did));
    let api = Api::new(dev.url("http", 1).parse().expect("an endpoint"), Credential::new(dev.text("api_key")));
    let failed = api.command_to_end(&order("fail")).await.expect("an answer");
    assert_eq!(failed.decided().map(|step| step.status), Some(Status::Failed));
    assert_eq!(failed.outcomes.first().map(|step| step.status), Some(Status::Sent));
    let unlock = Order { key: Some("k1".into()), ..order("unlock") };
    let cmd = api.command(&unlock).await.expect("an answer");
    assert_eq!(api.command(&unlock).await.expect("an answer"), cmd);
    let of = "b9/g".parse().expect("an address");
    let decided = async {
        while api.recorded(&cmd).await.expect("an answer").decided().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(WAIT, decided).await.expect("in time");
    let page = api.commands(&of, None, 1).await.expect("an answer");
    assert_eq!((page.commands[0].cmd.as_str(), page.commands[0].action.as_str()), (cmd.as_str(), "unlock"));
    let page = api.commands(&of, page.next.as_deref(), 10).await.expect("an answer");
    assert_eq!(page.commands.iter().map(|command| command.action.as_str()).collect::<Vec<_>>(), ["fail"]);
    let building = "b9/_".parse().expect("an address");
    let first = api.event(&building, &Notice::new("one")).await.expect("an answer");
    api.event(&building, &Notice::new("two")).await.expect("an answer");
    let events = api.events(&"b9/*".parse().expect("a pattern"), Some(&first), 10).await.expect("an answer");
    assert_eq!(events.events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(!events.gap && events.cursor.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_building_does_what_it_is_told() {
    let dev = Dev::start(&["--flats", "1"]);
    let mut client = Client::connect(config(&dev.url("http", 0), &dev.text("api_key"))).await.expect("a session");
    client.subscribe(Subscription::all("b1/*".parse().expect("a pattern"))).await.expect("few");
    until(&mut client, |event| {
        matches!(event, Event::Frame { update: Some(Update::State { .. } | Update::Snapshot(_)), .. })
    })
    .await;
    let send = |args: &[&str]| ended(Riser::start(dev.tool(&[&["send", "b1/f0101"], args].concat())));
    assert_eq!(send(&["living/light", "on"]), (0, r#"succeeded {"on":true}"#.into()));
    assert_eq!(send(&["bedroom/light", "dim", r#"{"level":40}"#]), (0, r#"succeeded {"level":40,"on":true}"#.into()));
    assert_eq!(send(&["hall/lock", "explode"]), (3, "rejected unknown_action".into()));
    assert_eq!(send(&["hall/bell", "answer"]), (1, "failed not_ringing".into()));
    let turned = send(&["hall/lock", "unlock"]);
    let jammed = (1, "failed jammed".into());
    assert!(turned == (0, r#"succeeded "unlocked""#.into()) || turned == jammed, "{turned:?}");
    let of = "b1/f0101".parse().expect("an address");
    let dimmed = |client: &Client| {
        client
            .view()
            .get(&of)
            .and_then(|seen| seen.values.get("bedroom/light"))
            .is_some_and(|v| v.value.as_str().contains("40"))
    };
    while !dimmed(&client) {
        until(&mut client, |_| true).await;
    }
}

async fn until(client: &mut Client, wanted: impl Fn(&Event) -> bool) {
    let seeing = async { while !wanted(&client.next().await.expect("an event")) {} };
    timeout(WAIT, seeing).await.expect("it is seen in time");
}
