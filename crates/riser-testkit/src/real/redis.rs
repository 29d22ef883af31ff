//! Real Redis servers: one, or a master with a replica and three Sentinels that watch them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

mod raw;

pub use raw::{RawRedis, Reply};

use super::folder::Folder;
use super::ports::free_ports;
use super::process::Process;
use super::servers::{self, Servers};

/// What the Sentinels call the master.
pub const MASTER: &str = "riser";
/// How long a master may be silent until a Sentinel takes it for dead, in milliseconds.
const DOWN_AFTER_MS: u32 = 1_000;

/// What is different from the servers of most tests.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Further lines of each server's configuration, but the Sentinels'.
    pub extra: Vec<String>,
    /// What the servers are asked with whether they are ready: a user and a password.
    pub login: Option<(String, String)>,
    /// Whether clients are to speak TLS, as further lines say how; and then only the output tells that a server is ready.
    pub tls: bool,
}

/// Servers that belong together. Dropping it ends them and removes what they stored.
pub struct RedisServers {
    program: PathBuf,
    options: RedisOptions,
    /// One that is a master at first; with Sentinels then its replica and they.
    nodes: Vec<Node>,
    // Behind the nodes, so that no server writes any more when it is removed.
    folder: Folder,
}

struct Node {
    port: u16,
    process: Option<Process>,
}

impl RedisServers {
    /// Starts one server.
    pub async fn start(program: &Path, options: &RedisOptions) -> anyhow::Result<Self> {
        Self::start_nodes(program, options, 1).await
    }

    /// Starts a master, a replica and three Sentinels, and waits until they know each other.
    pub async fn start_with_sentinels(program: &Path, options: &RedisOptions) -> anyhow::Result<Self> {
        Self::start_nodes(program, options, 5).await
    }

    async fn start_nodes(program: &Path, options: &RedisOptions, count: usize) -> anyhow::Result<Self> {
        servers::start(|| Self::prepare(program, options, count), async |servers| servers.begin().await).await
    }

    /// The Sentinels last: they ask a replica every ten seconds only, and take none for good that had not followed yet.
    async fn begin(&mut self) -> anyhow::Result<()> {
        for mut numbers in [0..self.nodes.len().min(2), self.nodes.len().min(2)..self.nodes.len()] {
            numbers.try_for_each(|number| self.launch(number))?;
            self.ready().await?;
        }
        Ok(())
    }

    fn prepare(program: &Path, options: &RedisOptions, count: usize) -> anyhow::Result<Self> {
        let folder = Folder::new("redis").context("cannot make a temporary folder")?;
        let ports = free_ports(count).context("cannot find free ports")?;
        let login = |prefix: &str, kind: [&str; 2]| {
            let lines = options.login.iter().flat_map(|(user, password)| [(kind[0], user), (kind[1], password)]);
            lines.map(|(word, value)| format!("{prefix}{word} {value}")).collect::<Vec<_>>()
        };
        for (number, port) in ports.iter().enumerate() {
            let store = folder.path().join(format!("r{number}"));
            std::fs::create_dir(&store).context("cannot make a server's folder")?;
            let mut lines = vec!["bind 127.0.0.1".to_owned(), format!("dir {}", store.display())];
            if options.tls {
                lines.extend(["port 0".to_owned(), format!("tls-port {port}")]);
            } else {
                lines.push(format!("port {port}"));
            }
            if number < 2 {
                lines.extend(["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned));
                if number == 1 {
                    lines.push(format!("replicaof 127.0.0.1 {}", ports[0]));
                }
                lines.extend(login("", ["masteruser", "masterauth"]));
                lines.extend(options.extra.clone());
            } else {
                lines.push(format!("sentinel monitor {MASTER} 127.0.0.1 {} 2", ports[0]));
                lines.push(format!("sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}"));
                lines.push(format!("sentinel failover-timeout {MASTER} 10000"));
                lines.extend(login("sentinel ", [&format!("auth-user {MASTER}"), &format!("auth-pass {MASTER}")]));
            }
            std::fs::write(config_of(&folder, number), lines.join("\n") + "\n")
                .context("cannot write a configuration")?;
        }
        let nodes = ports.into_iter().map(|port| Node { port, process: None }).collect();
        Ok(Self { program: program.to_owned(), options: options.clone(), nodes, folder })
    }

    fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        let config = config_of(&self.folder, number).display().to_string();
        let output = output_of(&self.folder, number);
        let arguments = [&config[..], "--sentinel"];
        let arguments = if number < 2 { &arguments[..1] } else { &arguments };
        self.nodes[number].process = Some(Process::start(&self.program, arguments, &output)?);
        Ok(())
    }

    /// The port of a server: 0 is the first master, 1 its replica.
    pub fn port(&self, number: usize) -> u16 {
        self.nodes[number].port
    }

    /// The ports of the Sentinels.
    pub fn sentinels(&self) -> Vec<u16> {
        self.nodes.iter().skip(2).map(|node| node.port).collect()
    }

    /// A connection to a server that is not an edge's.
    pub async fn raw(&self, number: usize) -> anyhow::Result<RawRedis> {
        let mut raw = RawRedis::connect(self.nodes[number].port).await?;
        if let (Some((user, password)), true) = (&self.options.login, number < 2) {
            raw.call(&["AUTH", user, password]).await?;
        }
        Ok(raw)
    }

    /// Kills a server (SIGKILL). Nothing of what it held is left.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    /// Starts a server that was killed, on its old port and with nothing in it.
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

    /// Waits until all servers take calls and know each other.
    async fn ready(&mut self) -> anyhow::Result<()> {
        servers::ready(self).await
    }

    fn output(&self, number: usize) -> String {
        std::fs::read_to_string(output_of(&self.folder, number)).unwrap_or_default()
    }
}

impl Servers for RedisServers {
    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().filter_map(|node| node.process.as_mut())
    }

    fn outputs(&self) -> Vec<PathBuf> {
        (0..self.nodes.len()).map(|number| output_of(&self.folder, number)).collect()
    }

    async fn look(&self) -> anyhow::Result<()> {
        if self.options.tls {
            ensure!(self.output(0).contains("Ready to accept connections"), "the server does not say that it is ready");
            return Ok(());
        }
        self.raw(0).await?.call(&["PING"]).await?;
        if self.nodes.len() == 1 {
            return Ok(());
        }
        let replication = self.raw(1).await?.call(&["INFO", "replication"]).await?;
        ensure!(replication.text().is_some_and(|text| text.contains("master_link_status:up")), "the replica lags");
        for number in (2..self.nodes.len()).filter(|number| self.nodes[*number].process.is_some()) {
            let state = self.raw(number).await?.call(&["SENTINEL", "MASTER", MASTER]).await?;
            let texts = state.texts();
            let says = |what: &str| texts.chunks_exact(2).find(|pair| pair[0] == what).map(|pair| pair[1]);
            let others = (self.nodes.len() - 3).to_string();
            ensure!(says("num-slaves") == Some("1"), "a Sentinel does not know the replica");
            ensure!(says("num-other-sentinels") == Some(&others), "a Sentinel does not know the others");
            ensure!(says("flags") == Some("master"), "a Sentinel does not see the master");
            let replicas = self.raw(number).await?.call(&["SENTINEL", "REPLICAS", MASTER]).await?;
            let Reply::List(replicas) = replicas else { bail!("a Sentinel does not list replicas") };
            let follows = |replica: &Reply| replica.texts().windows(2).any(|pair| pair == ["master-link-status", "ok"]);
            ensure!(replicas.iter().all(follows), "a Sentinel does not see that the replica follows");
        }
        Ok(())
    }
}

fn config_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("r{number}.conf"))
}

fn output_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("r{number}.log"))
}
