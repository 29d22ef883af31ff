//! `riser backup` and `riser restore`: what of a cluster on real servers comes back on others.

use std::path::{Path, PathBuf};
use std::process::Command;

use riser_client::{Api, Notice, Order};
use riser_core::Address;
use riser_core::frame::Credential;
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::time::timeout;

use super::{PATIENCE, program};

mod bucket;
mod refused;
mod whole;

/// Servers, and edges that may run on them.
struct Site {
    edges: Edges,
    nats: NatsServers,
    redis: RedisServers,
    /// `section.key=value` for every command.
    set: Vec<String>,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Site {
    /// Starts so many NATS servers and one Redis. Edges have their files, and none runs.
    async fn prepare(servers: usize) -> Self {
        Self::prepare_with(servers, &[]).await
    }

    /// The same, with further settings for every command.
    async fn prepare_with(servers: usize, set: &[&str]) -> Self {
        let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), servers, &NatsOptions::default()).await;
        let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await;
        let (nats, redis) = (nats.expect("NATS"), redis.expect("Redis"));
        let mut all = vec![format!("events.replicas={servers}")];
        all.extend(set.iter().map(|set| (*set).to_owned()));
        let options =
            EdgesOptions { nats: nats.urls(), redis: redis.port(0), set: all.clone(), ..EdgesOptions::default() };
        let edges = Edges::prepare(&program("RISER_BIN"), 2, &options).expect("files");
        Self { edges, nats, redis, set: all }
    }

    /// Starts the edges.
    async fn launch(&mut self) {
        for number in 0..2 {
            self.edges.launch(number).expect("an edge");
        }
        for number in 0..2 {
            self.edges.ready(number).await.expect("a ready edge");
        }
    }

    /// Removes the tenants file and its secret, which a restore brings.
    fn forget_tenants(&self) {
        for name in ["tenants.toml", "acme.secret"] {
            std::fs::remove_file(self.edges.path(name)).expect("a file");
        }
    }

    fn api(&self, edge: usize, key: &str) -> Api {
        Api::new(self.edges.url(edge).parse().expect("a URL"), Credential::new(key))
    }

    /// The command, not yet started.
    fn command(&self, words: &[&str], dir: Option<&Path>) -> Command {
        let mut command = Command::new(program("RISER_BIN"));
        command.env_clear().args(words).arg("--config").arg(self.edges.path("riser.toml"));
        for set in &self.set {
            command.arg("--set").arg(set);
        }
        command.args(dir);
        command
    }

    async fn run(&self, words: &[&str], dir: &Path) -> Ended {
        Self::end(self.command(words, Some(dir))).await
    }

    /// What the doctor says.
    async fn doctor(&self) -> String {
        Self::end(self.command(&["doctor"], None)).await.out
    }

    async fn end(mut command: Command) -> Ended {
        let ran = tokio::task::spawn_blocking(move || command.output());
        let output = timeout(PATIENCE, ran).await.expect("an end in time").expect("it ran").expect("it started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Saves, and gives the folder.
    async fn back_up(&self) -> PathBuf {
        let dir = self.edges.path("backup");
        let ended = self.run(&["backup"], &dir).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        dir
    }

    /// The names of Riser's streams and how many keys Redis has.
    async fn holds(&self) -> (String, String) {
        let mut nats = self.nats.raw(0).await.expect("NATS");
        let streams = nats.ask("$JS.API.STREAM.NAMES", "").await.expect("an answer");
        let streams: serde_json::Value = serde_json::from_str(&streams).expect("JSON");
        let mut redis = self.redis.raw(0).await.expect("Redis");
        let keys = redis.call(&["KEYS", "*"]).await.expect("an answer");
        (streams["streams"].to_string(), format!("{:?}", keys.texts()))
    }
}

fn of(address: &str) -> Address {
    address.parse().expect("an address")
}

/// All events of a tenant from a cursor on, and whether there was a gap.
async fn events(api: &Api, cursor: Option<&str>) -> (Vec<(String, String, u64)>, bool) {
    let pattern = "*/*".parse().expect("a pattern");
    let (mut all, mut gap, mut cursor) = (vec![], false, cursor.map(str::to_owned));
    loop {
        let page = api.events(&pattern, cursor.as_deref(), 256).await.expect("a page");
        gap |= page.gap;
        if page.events.is_empty() {
            return (all, gap);
        }
        all.extend(page.events.into_iter().map(|event| (event.of.to_string(), event.id.to_string(), event.at_ms)));
        cursor = page.cursor;
    }
}

fn notice(id: String) -> Notice {
    Notice { id, ..Notice::new("ring") }
}

/// A command that waits for its gateway.
fn held(to: &str, key: &str) -> Order {
    Order {
        hold: true,
        key: Some(key.into()),
        deadline: std::time::Duration::from_secs(3_600),
        ..Order::new(of(to), "hall/lock".parse().expect("a path"), "lock")
    }
}
