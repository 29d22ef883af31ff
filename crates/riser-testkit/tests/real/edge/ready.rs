//! When an edge is ready, and when it is not.

use riser_testkit::real::edges::Edges;
use riser_testkit::real::nats::NatsOptions;

use super::{cluster, frame, options, riser, servers};

#[tokio::test]
async fn what_a_gateway_reports_to_one_edge_is_seen_at_another_and_counted() {
    let cluster = cluster(3, &[]).await;
    let key = cluster.edges.key.clone();
    let api =
        riser_client::Api::new(cluster.edges.url(1).parse().expect("a URL"), riser_core::frame::Credential::new(&*key));
    let token = api.gateway_token(&"b1/g1".parse().expect("an address"), None).await.expect("a token").token;
    let mut watcher = cluster.link(2, &key).await;
    watcher.send(r#"{"t":"subscribe","n":1,"to":"b1/*","lanes":["state","presence"]}"#).expect("sent");
    frame(&mut watcher, "synced").await;
    let mut gateway = cluster.link(0, token.expose()).await;
    gateway.send(r#"{"t":"state","n":1,"full":true,"set":{"hall/lock":"locked"}}"#).expect("sent");
    frame(&mut gateway, "ok").await;
    loop {
        let next = tokio::time::timeout(super::PATIENCE, watcher.next()).await.expect("in time").expect("a frame");
        if next.contains(r#""hall/lock":"locked""#) {
            break;
        }
    }
    assert!(cluster.metric(0, "riser_redis_calls_total").await > 0);
    assert_eq!(cluster.metric(0, "riser_nats_ignored_total").await, 0);
    assert_eq!(cluster.metric(0, r#"riser_sessions{peer="gateway"}"#).await, 1);
    let mut raw = cluster.nats.raw(0).await.expect("NATS");
    raw.publish("riser.v1.edges", "noise", 1).await.expect("published");
    cluster.until_metric(0, r#"riser_bus_ignored_total{reason="malformed"}"#, 1).await;
}

#[tokio::test]
async fn an_edge_that_does_not_hear_itself_is_not_ready() {
    let user = "{ user: edge, password: right, permissions: { subscribe: { deny: [\"riser.v1.edges\"] } } }";
    let extra = format!("authorization {{ users = [ {user} ] }}");
    let (nats, redis) = servers(&NatsOptions { extra, ..NatsOptions::default() }).await;
    let set = ["nats.user=edge"];
    let mut edges = Edges::prepare(&riser(), 1, &options(&nats, &redis, &set)).expect("files");
    edges.write("nats.password", "right\n").expect("a file");
    let config = std::fs::read_to_string(edges.path("riser.toml")).expect("the configuration");
    edges.write("riser.toml", &config.replace("[nats]", "[nats]\npassword_file = \"nats.password\"")).expect("a file");
    edges.launch(0).expect("an edge");
    let why = "no message of this edge came back to it through the bus yet";
    edges.until_ready_says(0, 503, why).await.expect("it is not ready");
    assert!(!edges.log(0).contains("right"));
}

#[tokio::test]
async fn an_edge_says_whom_it_cannot_reach_until_it_can_again() {
    let mut cluster = cluster(1, &[]).await;
    cluster.nats.kill(0);
    cluster.edges.until_ready_says(0, 503, "the bus cannot be reached").await.expect("it is not ready");
    cluster.nats.start_again(0).expect("NATS");
    cluster.edges.ready(0).await.expect("it is ready again");
    cluster.until_metric(0, "riser_nats_reconnects_total", 1).await;
    cluster.redis.pause(0).expect("Redis");
    cluster.edges.until_ready_says(0, 503, "the registry has not answered for").await.expect("it is not ready");
    cluster.redis.resume(0).expect("Redis");
    cluster.edges.ready(0).await.expect("it is ready again");
}
