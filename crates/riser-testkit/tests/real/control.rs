//! The control plane on real NATS and Redis, and edges that follow its bucket.

mod flats;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use riser_bus::nats::{KvConfig, LogConfig, NatsClient, NatsConfig};
use riser_client::{Admin, End};
use riser_control::{Control, Credentials, Ports, Server};
use riser_core::frame::Credential;
use riser_registry::redis::{Address, RedisConfig, RedisRegistry, Servers};
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{PATIENCE, program};

/// The operator's secret.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
/// Between two looks at something that changes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Plane {
    admin: Admin,
    /// Where it is.
    url: String,
    pub(super) serving: JoinSet<()>,
}

pub(super) async fn plane(nats: &NatsServers, redis: &RedisServers) -> Plane {
    plane_of(&NatsConfig::new(nats.urls(), "control"), RedisConfig::new(server(redis))).await
}

/// Where a Redis is.
pub(super) fn server(redis: &RedisServers) -> Servers {
    Servers::Single(Address { host: "127.0.0.1".into(), port: redis.port(0) })
}

/// A control plane that is somebody to its servers.
pub(super) async fn plane_of(nats: &NatsConfig, redis: RedisConfig) -> Plane {
    let client = NatsClient::connect(nats).await.expect("NATS");
    let registry = Arc::new(RedisRegistry::connect(redis).await.expect("Redis"));
    let ports = Ports {
        kv: Arc::new(client.kv(KvConfig { replicas: 1, ..KvConfig::default() })),
        log: Arc::new(client.log(LogConfig { replicas: 1, max_bytes: 16 << 20, ..LogConfig::default() })),
        registry: registry.clone(),
        state: registry.clone(),
        commands: registry,
        bus: Arc::new(client.bus()),
        now_ms: Arc::new(|| 1_800_000_000_000),
        hash_key: None,
    };
    let control = Control::new(ports, &prometheus::Registry::new()).expect("metrics");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let mut serving = JoinSet::new();
    let credentials = Credentials::read(SECRET).expect("a secret");
    serving.spawn(Server::new(control, credentials).serve(listener, std::future::pending()));
    let url = format!("http://{at}");
    let admin = Admin::new(url.parse().expect("a URL"), Credential::new(SECRET.to_owned()));
    Plane { admin, url, serving }
}

impl Plane {
    pub(super) async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        self.admin.call(method, path, Some(body), None).await.expect("an answer").body
    }

    /// Makes a key that may do everything; gives its id and the key.
    pub(super) async fn key(&self, name: &str) -> (String, String) {
        let scope = json!([{ "to": "*/*", "may": ["read", "command", "event", "listen", "speak", "manage"] }]);
        let made = self.ask(Method::POST, "/tenants/acme/keys", &json!({ "name": name, "scope": scope })).await;
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        (text("id"), text("key"))
    }
}

/// A session, once the edge knows the credential.
pub(super) async fn link(edges: &Edges, number: usize, key: &str) -> riser_client::Link {
    let opening = async {
        loop {
            match edges.link(number, key).await {
                Ok((link, _)) => return link,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    timeout(PATIENCE, opening).await.expect("a session in time")
}

async fn end(link: &mut riser_client::Link) -> End {
    let reading = async {
        loop {
            if let Err(end) = link.next().await {
                return end;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an end in time")
}

#[tokio::test]
async fn edges_follow_the_control_plane_and_restart_and_serve_without_it() {
    let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &NatsOptions::default()).await.expect("NATS");
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await.expect("Redis");
    let set = vec!["tenants.source=kv".to_owned()];
    let options = EdgesOptions { nats: nats.urls(), redis: redis.port(0), set, ..EdgesOptions::default() };
    let mut edges = Edges::start(&program("RISER_BIN"), 2, &options).await.expect("edges");
    let mut plane = plane(&nats, &redis).await;
    plane.ask(Method::POST, "/tenants", &json!({ "tenant": "acme" })).await;
    let ((revoked, one), (_, two)) = (plane.key("one").await, plane.key("two").await);
    let mut ending = [link(&edges, 0, &one).await, link(&edges, 1, &one).await];
    let mut staying = link(&edges, 1, &two).await;
    plane.ask(Method::DELETE, &format!("/tenants/acme/keys/{revoked}"), &Value::Null).await;
    for link in &mut ending {
        let end = end(link).await;
        assert!(matches!(end, End::Closed { code: 4504, .. }), "{end:?}");
    }

    plane.serving.shutdown().await;
    edges.kill(0);
    edges.launch(0).expect("an edge");
    edges.ready(0).await.expect("an edge that is ready");
    link(&edges, 0, &two).await;
    let refused = edges.link(0, &one).await.expect_err("a refusal").downcast::<End>().expect("an end");
    assert!(matches!(refused, End::Refused { status: 401, .. } | End::Closed { code: 4501, .. }), "{refused:?}");

    let plane = self::plane(&nats, &redis).await;
    let erased = plane.ask(Method::DELETE, "/tenants/acme", &Value::Null).await;
    assert_eq!(erased["tenant"], "acme");
    // That it was made, two keys, and one of them revoked.
    assert_eq!(erased["events"], 4);
    let end = end(&mut staying).await;
    assert!(matches!(end, End::Closed { code: 4504, .. }), "{end:?}");
}
