//! The second layer: what NATS itself refuses an edge. The first layer is switched off here, which is that an edge asks only for
//! what its tenants' names say: somebody who has an edge's password asks for whatever he likes.

use riser_testkit::real::nats::{NatsOptions, NatsServers, NatsWire, Said};
use serde_json::{Value, json};

use crate::deploy::rights;
use crate::program;

/// Where answers go to who asks.
const INBOX: &str = "_INBOX.one";

/// What is not an edge's to send.
const UNSENT: [&str; 23] = [
    "$JS.API.STREAM.DELETE.riser-ev-acme",
    "$JS.API.STREAM.DELETE.KV_riser-held",
    "$JS.API.STREAM.DELETE.orders",
    "$JS.API.STREAM.SNAPSHOT.riser-ev-acme",
    "$JS.API.STREAM.RESTORE.riser-ev-acme",
    "$JS.API.STREAM.PEER.REMOVE.riser-ev-acme",
    "$JS.API.STREAM.LEADER.STEPDOWN.riser-ev-acme",
    "$JS.API.STREAM.LIST",
    "$JS.API.CONSUMER.DURABLE.CREATE.riser-ev-acme.spy",
    "$JS.API.CONSUMER.MSG.NEXT.riser-ev-acme.spy",
    "$JS.API.CONSUMER.LIST.riser-ev-acme",
    "$JS.API.ACCOUNT.PURGE.OTHER",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.SERVER.REMOVE",
    "$JS.ACK.orders.spy.1.1.1.1.0",
    "$KV.riser-tenants.acme",
    "$KV.orders.one",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.OTHER.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "riser.v2.up.acme.b1.g1",
    "orders.new",
    "_INBOX.of-another",
];

/// What is not an edge's to hear.
const UNHEARD: [&str; 11] = [
    ">",
    "*",
    "*.>",
    "riser.>",
    "riser.*.up.>",
    "orders.>",
    "$SYS.>",
    "$SYS.ACCOUNT.OTHER.>",
    "$JS.>",
    "$JS.API.>",
    "$KV.>",
];

/// A server with the accounts of `deploy/`, beside another one that has the same streams, and somebody in each who may do all.
async fn server() -> NatsServers {
    let others = "accounts {\n  OTHER: { jetstream: enabled, users: [ { user: other, password: right } ] }\n  \
                  SYSTEM: { users: [ { user: system, password: right } ] }";
    let witness = "users: [\n      { user: witness, password: right }\n      { user: edge,";
    let rights =
        rights("right", "right").replace("accounts {", others).replace("users: [\n      { user: edge,", witness);
    assert!(rights.contains("witness") && rights.contains("OTHER"), "{rights}");
    let extra = format!("{rights}\nsystem_account: SYSTEM\n");
    let options = NatsOptions { extra, ..NatsOptions::default() };
    NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server")
}

async fn connect(server: &NatsServers, user: &str) -> NatsWire {
    let mut wire = NatsWire::connect(server.address(0).port(), Some((user, "right"))).await.expect("a connection");
    wire.subscribe(INBOX, 1).await.expect("a subscription");
    assert_eq!(wire.settled().await.expect("an answer"), []);
    wire
}

/// Asks JetStream, and gives what it answers.
async fn ask(wire: &mut NatsWire, call: &str, body: &Value) -> Value {
    wire.publish(&format!("$JS.API.{call}"), INBOX, &body.to_string()).await.expect("sent");
    loop {
        match wire.next().await.expect("an answer") {
            Said::Message(subject, text) if subject == INBOX => {
                return serde_json::from_str(&text).unwrap_or(json!(text));
            }
            Said::Message(..) | Said::Pong => {}
            Said::Error(error) => panic!("{call}: {error}"),
        }
    }
}

/// A stream like a tenant's, with one event in it.
async fn fill(wire: &mut NatsWire, says: &str) {
    let config = json!({"name":"riser-ev-acme","subjects":["riser.v1.log.acme.*"],"storage":"file"});
    let made = ask(wire, "STREAM.CREATE.riser-ev-acme", &config).await;
    assert!(made["error"].is_null(), "{made}");
    wire.publish("riser.v1.log.acme.0000000000000001", INBOX, says).await.expect("sent");
    let stored = wire.next().await.expect("an answer");
    assert!(matches!(&stored, Said::Message(subject, _) if subject == INBOX), "{stored:?}");
}

fn denied(said: &[Said], subject: &str) -> bool {
    let is_it = |said: &Said| matches!(said, Said::Error(error) if error.contains("Permissions Violation") && error.contains(subject));
    said.len() == 1 && said.iter().all(is_it)
}

#[tokio::test]
async fn an_edge_cannot_send_or_hear_what_is_not_its_own_whatever_it_asks_for() {
    let server = server().await;
    let (mut edge, mut witness) = (connect(&server, "edge").await, connect(&server, "witness").await);
    witness.subscribe(">", 2).await.expect("a subscription");
    assert_eq!(witness.settled().await.expect("an answer"), []);
    for subject in UNSENT {
        edge.publish(subject, INBOX, "{}").await.expect("sent");
        let said = edge.settled().await.expect("an answer");
        assert!(denied(&said, subject), "{subject}: {said:?}");
    }
    for subject in UNHEARD {
        edge.subscribe(subject, 3).await.expect("sent");
        let said = edge.settled().await.expect("an answer");
        assert!(denied(&said, &format!("\"{subject}\"")), "{subject}: {said:?}");
    }
    // Who may hear all has heard nothing of it, and does hear what an edge may send.
    assert_eq!(witness.settled().await.expect("an answer"), []);
    edge.publish("riser.v1.up.acme.b1.g1", "", "good").await.expect("sent");
    assert_eq!(edge.settled().await.expect("an answer"), []);
    let heard = Said::Message("riser.v1.up.acme.b1.g1".into(), "good".into());
    assert_eq!(witness.settled().await.expect("an answer"), [heard]);
    // And none of those subscriptions is there.
    witness.publish("orders.new", "", "secret").await.expect("sent");
    assert!(!witness.settled().await.expect("an answer").is_empty());
    assert_eq!(edge.settled().await.expect("an answer"), []);
}

#[tokio::test]
async fn nothing_of_another_account_is_seen_or_lost_that_has_the_same_subjects_and_streams() {
    let server = server().await;
    let (mut edge, mut other) = (connect(&server, "edge").await, connect(&server, "other").await);
    fill(&mut other, "secret").await;
    // Before it has a stream of its own, an edge finds none.
    assert_eq!(ask(&mut edge, "STREAM.NAMES", &json!({})).await["streams"], Value::Null);
    for (call, body) in [
        ("STREAM.INFO.riser-ev-acme", json!({})),
        ("STREAM.MSG.GET.riser-ev-acme", json!({"seq":1})),
        ("STREAM.PURGE.riser-ev-acme", json!({})),
        (
            "STREAM.UPDATE.riser-ev-acme",
            json!({"name":"riser-ev-acme","subjects":["riser.v1.log.acme.*"],"max_msgs":1}),
        ),
        (
            "CONSUMER.CREATE.riser-ev-acme",
            json!({"stream_name":"riser-ev-acme","config":{"deliver_subject":INBOX,"ack_policy":"none"}}),
        ),
    ] {
        let answer = ask(&mut edge, call, &body).await;
        assert_eq!(answer["error"]["code"], 404, "{call}: {answer}");
    }
    // A copy of what another account has is a copy of nothing.
    for external in [json!(null), json!({"api":"$JS.OTHER.API","deliver":"riser.v1.stolen"})] {
        let mirror = json!({"name":"spy","mirror":{"name":"riser-ev-acme","external":external}});
        let _made_or_refused = ask(&mut edge, "STREAM.CREATE.spy", &mirror).await;
    }
    fill(&mut edge, "own").await;
    for wire in [&mut edge, &mut other] {
        wire.subscribe("riser.v1.>", 2).await.expect("a subscription");
        assert_eq!(wire.settled().await.expect("an answer"), []);
    }
    for (wire, says) in [(&mut edge, "own"), (&mut other, "secret")] {
        wire.publish("riser.v1.up.acme.b1.g1", "", says).await.expect("sent");
        wire.settled().await.expect("an answer");
    }
    for (wire, says, foreign) in [(&mut edge, "own", "secret"), (&mut other, "secret", "own")] {
        wire.publish("riser.v1.up.acme.b1.g1", "", says).await.expect("sent");
        let heard = wire.settled().await.expect("an answer");
        assert_eq!(heard, [Said::Message("riser.v1.up.acme.b1.g1".into(), says.into())]);
        let info = ask(wire, "STREAM.INFO.riser-ev-acme", &json!({})).await;
        assert_eq!(info["state"]["messages"], 1, "{info}");
        let kept = ask(wire, "STREAM.MSG.GET.riser-ev-acme", &json!({"seq":1})).await;
        let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        assert_eq!(kept["message"]["data"], encoded(says), "{kept}");
        let spied = ask(wire, "STREAM.INFO.spy", &json!({})).await.to_string();
        assert!(!spied.contains(&encoded(foreign)), "{spied}");
    }
    let copied = ask(&mut edge, "STREAM.INFO.spy", &json!({})).await;
    assert!(copied["error"]["code"] == 404 || copied["state"]["messages"] == 0, "{copied}");
}
