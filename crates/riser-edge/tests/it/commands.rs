//! Commands from a client's frame to the gateway's word and back, over two edges and their twins.

use std::time::Duration;

use riser_bus::Subject;
use riser_bus::log::Log;
use riser_core::Grant;
use riser_edge::Ports;
use serde_json::{Value, json};

use super::harness::*;

impl Peerling {
    /// Issues a command and gives its `cmd`.
    async fn command(&mut self, n: u64, more: &Value) -> String {
        let mut frame = json!({"t":"command","n":n,"to":"b/g","path":"hall/lock","action":"unlock"});
        frame.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.send(&frame).await;
        let ok = self.answer(n).await;
        assert_eq!(ok["t"], "ok", "{ok}");
        ok["cmd"].as_str().expect("a cmd").to_owned()
    }

    /// The answer to a number; what else comes before it is kept in `seen`.
    async fn answer(&mut self, n: u64) -> Value {
        loop {
            let frame = self.read().await;
            if frame["n"] == n && (frame["t"] == "ok" || frame["t"] == "error") {
                return frame;
            }
            self.seen.push_back(frame);
        }
    }

    /// The next frame of this type about a command, also one that came before something else.
    async fn about(&mut self, t: &str, cmd: &str) -> Value {
        if let Some(at) = self.seen.iter().position(|f| f["t"] == t && f["cmd"] == cmd) {
            return self.seen.remove(at).expect("it is there");
        }
        loop {
            let frame = self.read().await;
            if frame["t"] == t && frame["cmd"] == cmd {
                return frame;
            }
            self.seen.push_back(frame);
        }
    }

    /// The next outcome of a command.
    async fn outcome(&mut self, cmd: &str) -> Value {
        self.about("outcome", cmd).await
    }

    /// The statuses of a command up to the final one.
    async fn statuses(&mut self, cmd: &str) -> Vec<String> {
        let mut list = Vec::new();
        loop {
            let outcome = self.outcome(cmd).await;
            list.push(outcome["status"].as_str().expect("a status").to_owned());
            if outcome["final"] == true {
                return list;
            }
        }
    }

    async fn result(&mut self, n: u64, cmd: &str, status: &str) -> Value {
        self.send(&json!({"t":"result","n":n,"cmd":cmd,"status":status})).await;
        self.answer(n).await
    }

    async fn error(&mut self, n: u64) -> String {
        let answer = self.answer(n).await;
        assert_eq!(answer["t"], "error", "{answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    /// Comes as a gateway that recognises a command for ten minutes.
    async fn remembering(edge: &riser_edge::Edge, address: &str) -> Self {
        let mut peer = Self::raw(edge, gateway(address));
        peer.send(&json!({"t":"hello","remembers_ms":600_000})).await;
        peer.next("welcome").await;
        peer
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_goes_to_the_gateway_at_the_other_edge_and_its_word_comes_back() {
    let cluster = Cluster::new();
    let ((one, _), (two, metrics)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let cmd = client.command(1, &json!({"args":{"slowly":true},"deadline_ms":5_000})).await;
    let command = gw.next("command").await;
    assert_eq!((&command["cmd"], &command["path"]), (&json!(cmd), &json!("hall/lock")));
    assert_eq!((&command["action"], &command["args"]), (&json!("unlock"), &json!({"slowly":true})));
    assert_eq!(command["by"], "client:alice");
    assert!(command["ttl_ms"].as_u64().is_some_and(|ttl| (4_000..=5_000).contains(&ttl)), "{command}");
    assert_eq!(gw.result(1, &cmd, "received").await["t"], "ok");
    assert_eq!(gw.result(2, &cmd, "running").await["t"], "ok");
    gw.send(&json!({"t":"result","n":3,"cmd":cmd,"status":"failed","code":"jammed","data":{"tries":2}})).await;
    assert_eq!(gw.answer(3).await["t"], "ok");
    for (status, is_final) in [("sent", false), ("received", false), ("running", false)] {
        let outcome = client.outcome(&cmd).await;
        assert_eq!((&outcome["status"], &outcome["final"]), (&json!(status), &json!(is_final)));
    }
    let last = client.outcome(&cmd).await;
    assert_eq!((&last["status"], &last["final"], &last["of"]), (&json!("failed"), &json!(true), &json!("b/g")));
    assert_eq!((&last["code"], &last["data"]), (&json!("jammed"), &json!({"tries":2})));
    assert_eq!(gw.result(4, &cmd, "succeeded").await["t"], "ok", "a word after the final one is heard");
    let late = client.outcome(&cmd).await;
    assert_eq!((&late["late"], &late["final"]), (&json!(true), &json!(false)));
    assert_eq!(counted(&metrics, "riser_commands_total", Some("new")), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_does_is_offline_expired_or_unknown_as_it_is() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let cmd = client.command(1, &json!({})).await;
    assert_eq!(client.statuses(&cmd).await, ["offline"]);
    let cmd = client.command(2, &json!({"if_offline":"hold","deadline_ms":2_000})).await;
    assert_eq!(client.statuses(&cmd).await, ["held", "expired"]);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let cmd = client.command(3, &json!({"deadline_ms":2_000})).await;
    assert_eq!(gw.next("command").await["cmd"], cmd);
    assert_eq!(client.statuses(&cmd).await, ["sent", "unknown"]);
    assert_eq!(gw.result(1, &cmd, "succeeded").await["t"], "ok");
    let late = client.outcome(&cmd).await;
    assert_eq!((&late["status"], &late["late"]), (&json!("succeeded"), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn what_was_held_comes_first_and_in_order_when_the_gateway_connects_elsewhere() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let mut held = Vec::new();
    for n in 0..32 {
        held.push(client.command(n, &json!({"if_offline":"hold","deadline_ms":60_000})).await);
    }
    client.send(&json!({"t":"command","n":32,"to":"b/g","path":"a","action":"x","if_offline":"hold"})).await;
    assert_eq!(client.error(32).await, "queue_full");
    let mut gw = Peerling::raw(&two, gateway("b/g"));
    gw.send(&json!({"t":"hello"})).await;
    gw.next("welcome").await;
    let newer = client.command(33, &json!({})).await;
    for cmd in held.iter().chain([&newer]) {
        assert_eq!(gw.next("command").await["cmd"], **cmd);
    }
    for cmd in held.iter().chain([&newer]) {
        assert_eq!(gw.result(1, cmd, "succeeded").await["t"], "ok");
    }
    assert_eq!(client.statuses(&held[0]).await, ["held", "sent", "succeeded"]);
    assert_eq!(client.statuses(&newer).await, ["sent", "succeeded"]);
    gw.send(&json!({"t":"ping"})).await;
    assert_eq!(gw.next("pong").await["held"], 0);
}

#[tokio::test(start_paused = true)]
async fn commands_of_two_issuers_arrive_in_the_order_of_their_answers() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut a, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut b, _) = Peerling::open(&two, client_of("acme")).await;
    let mut expected = Vec::new();
    for n in 0..50 {
        expected.push(a.command(n, &json!({})).await);
        expected.push(b.command(n, &json!({})).await);
    }
    for cmd in &expected {
        assert_eq!(gw.next("command").await["cmd"], **cmd);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_key_is_the_same_command_whoever_repeats_it() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut a, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut b, _) = Peerling::open(&two, client_of("acme")).await;
    let cmd = a.command(1, &json!({"key":"k","args":{"a":1,"b":2}})).await;
    gw.next("command").await;
    assert_eq!(gw.result(1, &cmd, "received").await["t"], "ok");
    assert_eq!(b.command(1, &json!({"key":"k","args":{"b":2,"a":1}})).await, cmd);
    assert_eq!(b.outcome(&cmd).await["status"], "sent");
    assert_eq!(b.outcome(&cmd).await["status"], "received");
    b.send(&json!({"t":"command","n":2,"to":"b/g","path":"hall/lock","action":"lock","key":"k"})).await;
    assert_eq!(b.error(2).await, "conflict");
    assert_eq!(gw.result(2, &cmd, "succeeded").await["t"], "ok");
    assert_eq!(a.statuses(&cmd).await, ["sent", "received", "succeeded"]);
    assert_eq!(b.outcome(&cmd).await["status"], "succeeded");
    // The issuer's edge dies: the other one knows it all.
    one.kill().await;
    let (mut c, _) = Peerling::open(&two, client_of("acme")).await;
    assert_eq!(c.command(1, &json!({"key":"k","args":{"a":1,"b":2}})).await, cmd);
    assert_eq!(c.statuses(&cmd).await, ["sent", "received", "succeeded"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_sent_it_again_only_when_it_remembers() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let mut gw = Peerling::remembering(&one, "b/g").await;
    let (mut forgetful, _) = Peerling::open(&one, gateway("b/h")).await;
    let cmd = client.command(1, &json!({"deadline_ms":30_000})).await;
    let other = client.command(2, &json!({"to":"b/h","deadline_ms":30_000})).await;
    assert_eq!(gw.next("command").await["cmd"], cmd);
    assert_eq!(forgetful.next("command").await["cmd"], other);
    one.kill().await;
    let mut gw = Peerling::remembering(&two, "b/g").await;
    let (mut forgetful, _) = Peerling::open(&two, gateway("b/h")).await;
    assert_eq!(gw.next("command").await["cmd"], cmd, "the same command comes again");
    assert_eq!(gw.result(1, &cmd, "succeeded").await["t"], "ok");
    assert_eq!(client.statuses(&cmd).await, ["sent", "succeeded"]);
    assert_eq!(client.statuses(&other).await, ["sent", "unknown"]);
    forgetful.send(&json!({"t":"ping"})).await;
    forgetful.next("pong").await;
    assert!(forgetful.seen.iter().all(|frame| frame["t"] != "command"), "{:?}", forgetful.seen);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_ends_its_session_each_time_is_sent_three_times() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let mut gw = Peerling::remembering(&one, "b/g").await;
    let cmd = client.command(1, &json!({"deadline_ms":20_000})).await;
    for _ in 0..3 {
        assert_eq!(gw.next("command").await["cmd"], cmd);
        drop(gw);
        gw = Peerling::remembering(&one, "b/g").await;
    }
    assert_eq!(client.statuses(&cmd).await, ["sent", "unknown"]);
    gw.send(&json!({"t":"ping"})).await;
    gw.next("pong").await;
    assert!(gw.seen.iter().all(|frame| frame["t"] != "command"), "{:?}", gw.seen);
}

#[tokio::test(start_paused = true)]
async fn cancelling_is_at_once_before_it_was_sent_and_the_gateways_word_after() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let held = client.command(1, &json!({"if_offline":"hold"})).await;
    client.send(&json!({"t":"cancel","n":2,"cmd":held})).await;
    assert_eq!(client.answer(2).await["t"], "ok");
    assert_eq!(client.statuses(&held).await, ["held", "cancelled"]);
    client.send(&json!({"t":"cancel","n":3,"cmd":"b.g.07070707070707070707070707070707.1"})).await;
    assert_eq!(client.error(3).await, "not_found");
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let sent = client.command(4, &json!({})).await;
    gw.next("command").await;
    let mut weak = client_of("acme");
    weak.grants = vec![serde_json::from_value::<Grant>(json!({"to":"b/*","may":["read"]})).expect("a grant")];
    let (mut weak, _) = Peerling::open(&one, weak).await;
    weak.send(&json!({"t":"cancel","n":1,"cmd":sent})).await;
    assert_eq!(weak.error(1).await, "forbidden");
    weak.send(&json!({"t":"command","n":2,"to":"b/g","path":"a","action":"x"})).await;
    assert_eq!(weak.error(2).await, "forbidden");
    client.send(&json!({"t":"cancel","n":5,"cmd":sent})).await;
    assert_eq!(client.answer(5).await["t"], "ok");
    assert_eq!(gw.next("cancel").await["cmd"], sent);
    assert_eq!(gw.result(1, &sent, "cancelled").await["t"], "ok");
    assert_eq!(client.statuses(&sent).await, ["sent", "cancelled"]);
    client.send(&json!({"t":"cancel","n":6,"cmd":sent})).await;
    assert_eq!(client.answer(6).await["t"], "ok", "cancelling twice is no mistake");
}

#[tokio::test(start_paused = true)]
async fn the_audit_tells_what_sessions_issue_and_cancel_and_holds_up_no_command() {
    let cluster = Cluster::new();
    cluster.tenants.send_modify(|table| {
        let table = std::sync::Arc::make_mut(table);
        for (name, audit_commands) in [("acme", true), ("other", false)] {
            let audited = riser_core::Tenant { audit_commands, ..tenant() };
            table.insert(name.parse().expect("a tenant"), audited);
        }
    });
    let (one, metrics) = cluster.edge("edge-0").await;
    let log = cluster.log.client(&"edge-9".parse().expect("an edge"));
    let told = async |of: &str| log.read(&of.parse().expect("a tenant"), 1).await.map_or(vec![], |page| page.events);
    for name in ["other", "acme"] {
        let (mut client, _) = Peerling::open(&one, client_of(name)).await;
        let held = client.command(1, &json!({"if_offline":"hold","key":"k"})).await;
        assert_eq!(client.command(2, &json!({"if_offline":"hold","key":"k"})).await, held);
        client.send(&json!({"t":"cancel","n":3,"cmd":held})).await;
        assert_eq!(client.answer(3).await["t"], "ok");
        while name == "acme" && told("acme").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let events = told(name).await;
        let what: Vec<Value> = events
            .iter()
            .map(|stored| {
                let event = &stored.event;
                assert_eq!((event.of.to_string().as_str(), event.from.as_str()), ("b/g", "broker"));
                assert_eq!(event.path.as_ref().map(riser_core::Path::as_str), Some("hall/lock"));
                serde_json::from_str(event.data.as_ref().expect("data").as_str()).expect("JSON")
            })
            .collect();
        let deed = |what| json!({"what":what,"who":"client:alice","cmd":held,"action":"unlock"});
        let all = [deed("command.issue"), deed("command.cancel")];
        assert_eq!(what, if name == "acme" { &all[..] } else { &[] }, "{name}");
    }
    // Nobody else may say so, and who sends an event of any name keeps none from being stored.
    let (mut gw, _) = Peerling::open(&one, gateway("b/h")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    for (peer, of) in [(&mut gw, "b/h"), (&mut client, "b/g")] {
        let data = json!({"who":"client:bob","what":"command.issue"});
        peer.send(&json!({"t":"event","n":7,"to":of,"id":"audit-1","type":"audit","data":data})).await;
        assert_eq!(peer.error(7).await, "forbidden");
    }
    assert_eq!(told("acme").await.len(), 2);
    // An event store that takes nothing.
    cluster.log.set_full(true);
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let asked = tokio::time::Instant::now();
    let cmd = client.command(1, &json!({})).await;
    assert_eq!(client.statuses(&cmd).await, ["offline"]);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    while counted(&metrics, "riser_audits_lost_total", None) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_speaks_of_its_own_commands_and_of_what_it_was_sent() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut foreign, _) = Peerling::open(&one, gateway("b/h")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let cmd = client.command(1, &json!({})).await;
    gw.next("command").await;
    assert_eq!(foreign.result(1, &cmd, "succeeded").await["code"], "forbidden");
    let unknown = "b.g.07070707070707070707070707070707.1";
    assert_eq!(gw.result(1, unknown, "succeeded").await["code"], "not_found");
    for (n, status) in [(2, "running"), (3, "received"), (4, "running"), (5, "succeeded"), (6, "succeeded")] {
        assert_eq!(gw.result(n, &cmd, status).await["t"], "ok");
    }
    assert_eq!(client.statuses(&cmd).await, ["sent", "running", "succeeded"]);
    client.send(&json!({"t":"result","n":9,"cmd":cmd,"status":"failed"})).await;
    assert_eq!(client.error(9).await, "forbidden");
    gw.send(&json!({"t":"command","n":9,"to":"b/g","path":"a","action":"x"})).await;
    assert_eq!(gw.error(9).await, "forbidden");
    assert!(client.seen.iter().all(|frame| frame["late"] != true), "what is repeated is told nobody");
}

#[tokio::test(start_paused = true)]
async fn a_session_has_so_many_commands_open_and_no_more() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let mut gateways = Vec::new();
    for g in 0..4 {
        gateways.push(Peerling::open(&one, gateway(&format!("b/g{g}"))).await.0);
    }
    let mut cmds = Vec::new();
    for n in 0..256u64 {
        cmds.push(client.command(n, &json!({"to":format!("b/g{}", n % 4),"deadline_ms":60_000})).await);
    }
    client.send(&json!({"t":"command","n":256,"to":"b/g0","path":"a","action":"x"})).await;
    assert_eq!(client.error(256).await, "too_many");
    assert_eq!(gateways[0].result(1, &cmds[0], "succeeded").await["t"], "ok");
    client.statuses(&cmds[0]).await;
    client.command(257, &json!({"to":"b/g1"})).await;
}

#[tokio::test(start_paused = true)]
async fn lost_hints_and_notices_cost_time_and_nothing_else() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let edge = |name: &str| name.parse().expect("an edge");
    cluster.net.block(&edge("edge-1"), &edge("edge-0"));
    let cmd = client.command(1, &json!({"deadline_ms":30_000})).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.net.unblock(&edge("edge-1"), &edge("edge-0"));
    assert_eq!(gw.next("command").await["cmd"], cmd);
    cluster.net.block(&edge("edge-0"), &edge("edge-1"));
    assert_eq!(gw.result(1, &cmd, "succeeded").await["t"], "ok");
    assert_eq!(client.statuses(&cmd).await, ["sent", "succeeded"]);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_left_is_told_nothing_and_its_command_still_ends() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let cmd = client.command(1, &json!({"deadline_ms":2_000,"key":"k"})).await;
    assert_eq!(client.outcome(&cmd).await["status"], "sent");
    let told = counted(&metrics, "riser_command_outcomes_told_total", None);
    assert_eq!(told, 1);
    drop(client);
    tokio::time::timeout(PATIENCE, async {
        while counted(&metrics, "riser_command_outcomes_total", Some("unknown")) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the sweeper decides it");
    assert_eq!(counted(&metrics, "riser_command_outcomes_told_total", None), told, "nobody is left to be told");
    drop(gw);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_is_said_to_be_and_loses_nothing() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let cmd = client.command(1, &json!({"deadline_ms":60_000,"key":"k"})).await;
    gw.next("command").await;
    let edge = "edge-0".parse().expect("an edge");
    cluster.store.cut(&edge, Duration::ZERO);
    client.send(&json!({"t":"command","n":2,"to":"b/g","path":"a","action":"x","key":"l"})).await;
    gw.send(&json!({"t":"result","n":1,"cmd":cmd,"status":"succeeded"})).await;
    assert_eq!(client.error(2).await, "unavailable");
    assert_eq!(gw.error(1).await, "unavailable");
    cluster.store.heal(&edge);
    assert_eq!(client.statuses(&cmd).await, ["sent", "succeeded"], "the word was kept");
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_leaves_nobody_waiting() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let cmd = client.command(1, &json!({"deadline_ms":20_000})).await;
    gw.next("command").await;
    assert_eq!(client.outcome(&cmd).await["status"], "sent");
    cluster.store.empty();
    let last = client.outcome(&cmd).await;
    assert_eq!(
        (&last["status"], &last["code"], &last["final"]),
        (&json!("unknown"), &json!("record_lost"), &json!(true))
    );
}

#[tokio::test(start_paused = true)]
async fn no_command_reaches_an_older_session() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut old, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    // The older session's edge hears of no takeover.
    let edge = |name: &str| name.parse().expect("an edge");
    cluster.net.block(&edge("edge-1"), &edge("edge-0"));
    let (mut new, _) = Peerling::open(&two, gateway("b/g")).await;
    let cmd = client.command(1, &json!({"deadline_ms":30_000})).await;
    assert_eq!(new.next("command").await["cmd"], cmd);
    assert_eq!(old.next("closed").await["code"], 4006);
    assert!(old.seen.iter().all(|frame| frame["t"] != "command"), "{:?}", old.seen);
}

#[tokio::test(start_paused = true)]
async fn two_devices_with_one_credential_are_suspected_once() {
    let cluster = Cluster::new();
    let ((one, ones), (two, twos)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let suspected = || {
        let of = |metrics| counted(metrics, "riser_clones_suspected_total", None);
        of(&ones) + of(&twos)
    };
    let mut sessions = Vec::new();
    for i in 0..7 {
        let edge = if i % 2 == 0 { &one } else { &two };
        sessions.push(Peerling::open(edge, gateway("b/g")).await.0);
        assert_eq!(suspected(), u64::from(i >= 4), "after session {i}");
    }
    let log = cluster.log.client(&"witness".parse().expect("an edge"));
    let told = riser_bus::log::Log::read(&log, &"acme".parse().expect("a tenant"), 1).await.expect("an answer");
    let kinds: Vec<_> = told.events.iter().map(|stored| stored.event.kind.as_str()).collect();
    assert_eq!(kinds, ["clone_suspected"]);
}

#[tokio::test(start_paused = true)]
async fn large_commands_and_words_come_whole_and_what_is_said_after_them_too() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let (args, data) = ("a".repeat(50_000), "d".repeat(50_000));
    let cmd = client.command(1, &json!({ "args": args })).await;
    let command = gw.next("command").await;
    assert_eq!((&command["cmd"], &command["args"]), (&json!(cmd), &json!(args)));
    for (n, status) in [(1, "running"), (2, "succeeded"), (3, "failed")] {
        gw.send(&json!({"t":"result","n":n,"cmd":cmd,"status":status,"data":data})).await;
        assert_eq!(gw.answer(n).await["t"], "ok");
    }
    assert_eq!(client.outcome(&cmd).await["status"], "sent");
    for (status, late) in [("running", false), ("succeeded", false), ("failed", true)] {
        let outcome = client.outcome(&cmd).await;
        assert_eq!((&outcome["status"], &outcome["data"]), (&json!(status), &json!(data)));
        assert_eq!(outcome["late"] == true, late, "{status}");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(gw.result(4, &cmd, "cancelled").await["t"], "ok");
    let late = client.outcome(&cmd).await;
    assert_eq!((&late["status"], &late["late"]), (&json!("cancelled"), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_before_the_welcome_is_sent_right_after_it() {
    let cluster = Cluster::new();
    let online = |subject: &Subject, _: &[u8]| matches!(subject, Subject::Up(_));
    let slow = |ports: &mut Ports| SlowBus::put(ports, online, Duration::from_secs(1));
    let ((one, _), (two, _)) = (cluster.edge_with("edge-0", slow).await, cluster.edge("edge-1").await);
    let mut gw = Peerling::raw(&one, gateway("b/g"));
    gw.send(&json!({"t":"hello"})).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for edge in [&two, &one] {
        let (mut client, _) = Peerling::open(edge, client_of("acme")).await;
        let cmd = client.command(1, &json!({"deadline_ms":2_000})).await;
        // Nobody waits for it who would look again.
        drop(client);
        let command = gw.next("command").await;
        assert_eq!(command["cmd"], cmd);
    }
    assert_eq!(gw.seen.front().map(|first| &first["t"]), Some(&json!("welcome")));
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_cancel_that_cannot_be_handed_over_is_not_answered_ok() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let cmd = client.command(1, &json!({"deadline_ms":60_000})).await;
    assert_eq!(gw.next("command").await["cmd"], cmd);
    let edge = "edge-1".parse().expect("an edge");
    cluster.net.cut(&edge);
    client.send(&json!({"t":"cancel","n":2,"cmd":cmd})).await;
    assert_eq!(client.error(2).await, "unavailable");
    cluster.net.heal(&edge);
    client.send(&json!({"t":"cancel","n":3,"cmd":cmd})).await;
    assert_eq!(client.answer(3).await["t"], "ok");
    assert_eq!(gw.next("cancel").await["cmd"], cmd);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_costs_no_gateway_its_session_though_a_command_is_held_for_it() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let held = client.command(1, &json!({"if_offline":"hold","deadline_ms":60_000})).await;
    let edge = "edge-0".parse().expect("an edge");
    cluster.store.set_client_faults(
        &edge,
        riser_registry::memory::Faults {
            delay: Duration::from_millis(50)..=Duration::from_millis(50),
            ..Default::default()
        },
    );
    let mut gw = Peerling::raw(&one, gateway("b/g"));
    gw.send(&json!({"t":"hello"})).await;
    gw.next("welcome").await;
    // The desk has asked what is open, and the store forgets the session before the command is won.
    cluster.store.empty();
    assert_eq!(gw.next("command").await["cmd"], held);
    assert_eq!(gw.result(1, &held, "succeeded").await["t"], "ok");
    assert_eq!(client.statuses(&held).await, ["held", "sent", "succeeded"]);
}
