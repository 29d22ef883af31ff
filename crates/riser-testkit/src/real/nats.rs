//! Real NATS servers with JetStream: one, or a cluster of three.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::{sleep, timeout};

mod raw;

pub use raw::RawNats;

use super::folder::Folder;
use super::http;
use super::ports::free_ports;
use super::process::Process;
use super::servers::{self, LOOK_EVERY, READY_WITHIN, Servers};

/// What is different from the servers of most tests.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Further lines of each server's configuration.
    pub extra: String,
    /// Bytes on disk that JetStream may use; without it as many as there are.
    pub max_file_store: Option<u64>,
}

/// Servers that belong together. Dropping it ends them and removes what they stored.
pub struct NatsServers {
    program: PathBuf,
    nodes: Vec<Node>,
    // Behind the nodes, so that no server writes any more when it is removed.
    folder: Folder,
}

struct Node {
    client_port: u16,
    monitoring_port: u16,
    process: Option<Process>,
}

impl NatsServers {
    /// Starts so many servers, and waits until JetStream is ready on all of them.
    pub async fn start(program: &Path, count: usize) -> anyhow::Result<Self> {
        Self::start_with(program, count, &NatsOptions::default()).await
    }

    /// The same with other settings.
    pub async fn start_with(program: &Path, count: usize, options: &NatsOptions) -> anyhow::Result<Self> {
        let begin = async |servers: &mut Self| {
            (0..count).try_for_each(|number| servers.launch(number))?;
            servers.ready().await
        };
        servers::start(|| Self::prepare(program, count, options), begin).await
    }

    fn prepare(program: &Path, count: usize, options: &NatsOptions) -> anyhow::Result<Self> {
        let folder = Folder::new("nats").context("cannot make a temporary folder")?;
        let ports = free_ports(count * 3).context("cannot find free ports")?;
        let routes: Vec<_> = ports.chunks(3).map(|ports| format!("nats://127.0.0.1:{}", ports[2])).collect();
        let routes = routes.join(", ");
        // So that servers of another cluster that come upon a port of this one are refused.
        let name = format!("c{:016x}", fastrand::u64(..));
        let limit = options.max_file_store.map_or_else(String::new, |bytes| format!(", max_file_store: {bytes}"));
        let mut nodes = vec![];
        for (number, ports) in ports.chunks(3).enumerate() {
            let store = folder.path().join(format!("store-{number}"));
            let mut lines = vec![
                format!("server_name: n{number}"),
                format!("listen: 127.0.0.1:{}", ports[0]),
                format!("http: 127.0.0.1:{}", ports[1]),
                format!("jetstream {{ store_dir: \"{}\"{limit} }}", store.display()),
                options.extra.clone(),
            ];
            if count > 1 {
                lines.push(format!("cluster {{ name: {name}, listen: 127.0.0.1:{}, routes: [{routes}] }}", ports[2]));
            }
            let config = config_of(&folder, number);
            std::fs::write(config, lines.join("\n")).context("cannot write a server's configuration")?;
            nodes.push(Node { client_port: ports[0], monitoring_port: ports[1], process: None });
        }
        Ok(Self { program: program.to_owned(), nodes, folder })
    }

    fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        let config = config_of(&self.folder, number).display().to_string();
        let output = output_of(&self.folder, number);
        self.nodes[number].process = Some(Process::start(&self.program, &["-c", &config], &output)?);
        Ok(())
    }

    /// How clients reach one server.
    pub fn url(&self, number: usize) -> String {
        format!("nats://127.0.0.1:{}", self.nodes[number].client_port)
    }

    /// How clients reach all of them.
    pub fn urls(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|number| self.url(number)).collect()
    }

    /// Where a proxy reaches one server.
    pub fn address(&self, number: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nodes[number].client_port).into()
    }

    /// A connection to one server that is not an edge's.
    pub async fn raw(&self, number: usize) -> anyhow::Result<RawNats> {
        RawNats::connect(self.nodes[number].client_port).await
    }

    /// Kills a server (SIGKILL). What it stored stays.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    /// Starts a server that was killed, on its old ports and with what it stored.
    pub fn start_again(&mut self, number: usize) -> anyhow::Result<()> {
        ensure!(self.nodes[number].process.is_none(), "the server runs");
        self.launch(number)
    }

    /// Stops a server, as if its machine hung (SIGSTOP).
    pub fn pause(&self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process.as_ref().context("the server was killed")?.pause()
    }

    /// Lets a server go on that was stopped.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process.as_ref().context("the server was killed")?.resume()
    }

    /// Waits until all servers that were not killed say that JetStream is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        servers::ready(self).await
    }

    /// Which server leads a stream, as a server that was not killed sees it.
    pub async fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let find = async {
            loop {
                for node in self.nodes.iter().filter(|node| node.process.is_some()) {
                    if let Ok(Some(leader)) = leader_at(node.monitoring_port, stream).await {
                        return leader;
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(READY_WITHIN, find).await.context("the stream has no leader")
    }
}

impl Servers for NatsServers {
    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().filter_map(|node| node.process.as_mut())
    }

    fn outputs(&self) -> Vec<PathBuf> {
        (0..self.nodes.len()).map(|number| output_of(&self.folder, number)).collect()
    }

    async fn look(&self) -> anyhow::Result<()> {
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            http::get(node.monitoring_port, "/healthz").await?;
            if self.nodes.len() > 1 {
                let state: Value = serde_json::from_str(&http::get(node.monitoring_port, "/jsz").await?)?;
                let meta = &state["meta_cluster"];
                ensure!(meta["leader"].as_str().is_some_and(|leader| !leader.is_empty()), "there is no leader");
                ensure!(meta["cluster_size"] == self.nodes.len(), "not all servers know each other");
                ensure!(others(node.monitoring_port).await? >= running - 1, "not all servers are connected");
            }
        }
        Ok(())
    }
}

/// How many other servers one has routes to.
async fn others(port: u16) -> anyhow::Result<usize> {
    let state: Value = serde_json::from_str(&http::get(port, "/routez").await?)?;
    let routes = state["routes"].as_array().into_iter().flatten();
    Ok(routes.filter_map(|route| route["remote_id"].as_str()).collect::<BTreeSet<_>>().len())
}

async fn leader_at(port: u16, stream: &str) -> anyhow::Result<Option<usize>> {
    let state: Value = serde_json::from_str(&http::get(port, "/jsz?accounts=true&streams=true").await?)?;
    let accounts = state["account_details"].as_array().into_iter().flatten();
    let streams = accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    let found =
        streams.filter(|detail| detail["name"] == stream).find_map(|detail| detail["cluster"]["leader"].as_str());
    Ok(found.and_then(|leader| leader.strip_prefix('n')?.parse().ok()))
}

fn config_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("n{number}.conf"))
}

fn output_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("n{number}.log"))
}
