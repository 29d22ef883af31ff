//! Edges as processes of their own: `riser edge` on real servers, killed, stopped and rolled.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use riser_core::TenantId;
use riser_core::frame::Credential;
use riser_edge::auth::new_api_key;
use tokio::time::{Instant, sleep};

use super::folder::Folder;
use super::http;
use super::ports::free_ports;
use super::process::Process;

/// How long an edge may take until it is ready: seconds, on a machine that is busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All rights, as a tenants file has them.
const EVERYTHING: &str = "[\"*/*:read,command,event,listen,speak\"]";

/// What edges are started with.
#[derive(Debug, Clone)]
pub struct EdgesConfig {
    /// How many. They are called `edge-0` and so on.
    pub count: usize,
    /// The tenant, which has one API key that may do everything.
    pub tenant: TenantId,
    /// The sections of the configuration that say how NATS and Redis are reached, and what else is not the default.
    pub sections: String,
    /// Further lines of `[edge]`.
    pub edge: String,
    /// Where they log, instead of a file of each.
    pub output: Option<PathBuf>,
}

/// Edges of one cluster. Dropping it kills them.
pub struct Edges {
    program: PathBuf,
    key: Credential,
    secret: String,
    output: Option<PathBuf>,
    nodes: Vec<Node>,
    // Behind the nodes, so that no edge writes any more when it is removed.
    folder: Folder,
}

struct Node {
    port: u16,
    admin: u16,
    process: Option<Process>,
}

impl Edges {
    /// Starts all of them, and waits until they are ready.
    pub async fn start(program: &Path, config: &EdgesConfig) -> anyhow::Result<Self> {
        let mut edges = Self::prepare(program, config)?;
        for number in 0..config.count {
            edges.launch(number)?;
        }
        for number in 0..config.count {
            edges.ready(number).await?;
        }
        Ok(edges)
    }

    /// Writes what they are configured with, and starts none.
    pub fn prepare(program: &Path, config: &EdgesConfig) -> anyhow::Result<Self> {
        let folder = Folder::new("edges").context("cannot make a temporary folder")?;
        let (key, hash) = new_api_key();
        let hash = hash.map(|byte| format!("{byte:02x}")).concat();
        let secret: String = std::iter::repeat_with(fastrand::alphanumeric).take(48).collect();
        let tenants = format!(
            "[tenants.{tenant}]\nsigning_keys = [{{ kid = \"one\", secret_file = \"signing.secret\" }}]\n\
             [[tenants.{tenant}.api_keys]]\nname = \"test\"\nsha256 = \"{hash}\"\nscope = {EVERYTHING}\n",
            tenant = config.tenant,
        );
        std::fs::write(folder.path().join("tenants.toml"), tenants).context("cannot write the tenants")?;
        std::fs::write(folder.path().join("signing.secret"), &secret).context("cannot write a secret")?;
        let ports = free_ports(config.count * 2).context("cannot find free ports")?;
        let mut nodes = vec![];
        for (number, ports) in ports.chunks(2).enumerate() {
            let (port, admin) = (ports[0], ports[1]);
            let text = format!(
                "[edge]\nid = \"edge-{number}\"\nlisten = \"127.0.0.1:{port}\"\n{}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
                 [tenants]\nfile = \"tenants.toml\"\n{}\n",
                config.edge, config.sections,
            );
            std::fs::write(config_of(&folder, number), text).context("cannot write an edge's configuration")?;
            nodes.push(Node { port, admin, process: None });
        }
        let (program, output) = (program.to_owned(), config.output.clone());
        Ok(Self { program, key: Credential::new(key), secret, output, nodes, folder })
    }

    /// Starts an edge that does not run, on its old ports.
    pub fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        ensure!(self.nodes[number].process.is_none(), "the edge runs");
        let config = config_of(&self.folder, number).display().to_string();
        let process = Process::start(&self.program, &["edge", "--config", &config], &self.log_file(number))?;
        self.nodes[number].process = Some(process);
        Ok(())
    }

    /// Waits until an edge says that it is ready.
    pub async fn ready(&mut self, number: usize) -> anyhow::Result<()> {
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            let answer = self.readiness(number).await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if !self.is_running(number) {
                bail!("edge-{number} ended at once: {}", self.last_words(number));
            }
            ensure!(Instant::now() < give_up, "edge-{number} is not ready: {answer:?}: {}", self.last_words(number));
            sleep(LOOK_EVERY).await;
        }
    }

    /// What an edge answers to `/readyz`.
    pub async fn readiness(&self, number: usize) -> anyhow::Result<(u16, String)> {
        http::ask(self.nodes[number].admin, "GET", "/readyz").await
    }

    /// What an edge counts.
    pub async fn metrics(&self, number: usize) -> anyhow::Result<String> {
        http::get(self.nodes[number].admin, "/metrics").await
    }

    /// The sum of the samples of one metric, over all its labels.
    pub async fn metric(&self, number: usize, name: &str) -> anyhow::Result<f64> {
        let text = self.metrics(number).await?;
        let samples =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Asks an edge to drain over its admin port.
    pub async fn drain(&self, number: usize) -> anyhow::Result<()> {
        let (status, body) = http::ask(self.nodes[number].admin, "POST", "/drain").await?;
        ensure!((200..300).contains(&status), "the edge answered {status} {body}");
        Ok(())
    }

    /// Where peers connect.
    pub fn address(&self, number: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nodes[number].port).into()
    }

    /// The same of all.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|number| self.address(number)).collect()
    }

    /// The tenant's API key, which may do everything.
    pub fn key(&self) -> Credential {
        self.key.clone()
    }

    /// What its tokens are signed with.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The port of an edge's admin pages.
    pub fn admin(&self, number: usize) -> u16 {
        self.nodes[number].admin
    }

    /// Whether an edge runs; a stopped one does.
    pub fn is_running(&mut self, number: usize) -> bool {
        self.nodes[number].process.as_mut().is_some_and(Process::is_running)
    }

    /// Kills an edge (SIGKILL).
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    /// Asks an edge to end (SIGTERM).
    pub fn terminate(&self, number: usize) -> anyhow::Result<()> {
        self.process(number)?.terminate()
    }

    /// Waits until an edge has ended by itself.
    pub async fn ended(&mut self, number: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        let process = self.nodes[number].process.as_mut().context("the edge does not run")?;
        let status = process.ended(within).await?;
        self.nodes[number].process = None;
        Ok(status)
    }

    /// Stops an edge, as if its machine hung (SIGSTOP).
    pub fn pause(&self, number: usize) -> anyhow::Result<()> {
        self.process(number)?.pause()
    }

    /// Lets an edge go on that was stopped.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.process(number)?.resume()
    }

    fn process(&self, number: usize) -> anyhow::Result<&Process> {
        self.nodes[number].process.as_ref().context("the edge does not run")
    }

    /// All that an edge logged.
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.log_file(number)).unwrap_or_default()
    }

    fn log_file(&self, number: usize) -> PathBuf {
        self.output.clone().unwrap_or_else(|| log_of(&self.folder, number))
    }

    fn last_words(&self, number: usize) -> String {
        let log = self.log(number);
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

fn config_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("edge-{number}.toml"))
}

fn log_of(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("edge-{number}.log"))
}
