//! Edges as processes of their own, over real servers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use riser_client::{Config, Link, Welcome};
use riser_core::frame::Credential;
use riser_core::tenant::KeyHash;
use tokio::time::{Instant, sleep, timeout};

use super::folder::Folder;
use super::http;
use super::ports::free_ports;
use super::process::Process;
use super::redis::MASTER;

/// How long an edge may take until it is ready, or has ended: seconds, on a machine that is busy.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The tenant of all edges.
pub const TENANT: &str = "acme";

/// What edges are started with.
#[derive(Debug, Clone, Default)]
pub struct EdgesOptions {
    /// NATS' URLs.
    pub nats: Vec<String>,
    /// Redis' port.
    pub redis: u16,
    /// The ports of Sentinels, which are asked instead when there are any.
    pub sentinels: Vec<u16>,
    /// `section.key=value`, as `--set` takes it.
    pub set: Vec<String>,
    /// Where they log, instead of a file of each.
    pub output: Option<PathBuf>,
}

/// Edges of one cluster. Dropping it kills them and removes their files.
pub struct Edges {
    program: PathBuf,
    options: EdgesOptions,
    nodes: Vec<Node>,
    /// An API key that may do everything.
    pub key: String,
    /// What its tokens are signed with.
    pub secret: String,
    // Behind the nodes, so that no edge reads any more when it is removed.
    folder: Folder,
}

/// What a tenant's back end holds.
#[derive(Clone)]
pub struct Tenant {
    /// An API key that may do everything.
    pub key: String,
    /// What its tokens are signed with.
    pub secret: String,
}

/// A tenant of the tenants file, whose signing key is in a file of its name.
fn tenant(name: &str, keys: &[(&str, KeyHash)]) -> String {
    let mut text = format!("[tenants.{name}]\nsigning_keys = [{{ kid = \"a\", secret_file = \"{name}.secret\" }}]\n");
    for (key, hash) in keys {
        let hash = hash.to_string().replacen("sha256:", "", 1);
        let scope = "*/*:read,command,event,listen,speak,manage";
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[[tenants.{name}.api_keys]]\nname = {key:?}\nsha256 = {hash:?}\nscope = [{scope:?}]");
    }
    text
}

struct Node {
    port: u16,
    admin: u16,
    process: Option<Process>,
}

impl Edges {
    /// Makes the files of so many edges; none runs yet.
    pub fn prepare(program: &Path, count: usize, options: &EdgesOptions) -> anyhow::Result<Self> {
        let folder = Folder::new("edges").context("cannot make a temporary folder")?;
        let ports = free_ports(count * 2).context("cannot find free ports")?;
        let node = |ports: &[u16]| Node { port: ports[0], admin: ports[1], process: None };
        let (key, hash) = riser_edge::auth::new_api_key(None);
        let secret = "s".repeat(43);
        std::fs::write(folder.path().join("acme.secret"), &secret).context("cannot write a secret")?;
        let edges = Self {
            program: program.to_owned(),
            options: options.clone(),
            nodes: ports.chunks(2).map(node).collect(),
            key,
            secret,
            folder,
        };
        edges.write_tenants(&[("everything", hash)])?;
        let nats: Vec<_> = options.nats.iter().map(|url| format!("{url:?}")).collect();
        let sentinels: Vec<_> = options.sentinels.iter().map(|port| format!("\"redis://127.0.0.1:{port}\"")).collect();
        let redis = if sentinels.is_empty() {
            format!("server = \"redis://127.0.0.1:{}\"", options.redis)
        } else {
            format!("sentinels = [{}]\nmaster = \"{MASTER}\"", sentinels.join(", "))
        };
        let config = format!(
            "[edge]\ndrain_window = \"1s\"\n[nats]\nservers = [{}]\n[events]\nreplicas = 1\nmax_size = \"16 MiB\"\n\
             [redis]\n{redis}\n",
            nats.join(", "),
        );
        edges.write("riser.toml", &config)?;
        Ok(edges)
    }

    /// Starts so many edges, and waits until all of them are ready.
    pub async fn start(program: &Path, count: usize, options: &EdgesOptions) -> anyhow::Result<Self> {
        let mut edges = Self::prepare(program, count, options)?;
        (0..count).try_for_each(|number| edges.launch(number))?;
        for number in 0..count {
            edges.ready(number).await?;
        }
        Ok(edges)
    }

    /// Starts one edge.
    pub fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        let node = &self.nodes[number];
        let mut command = Command::new(&self.program);
        // The variables of the tests are not the edge's.
        command.env_clear().arg("edge").arg("--config").arg(self.path("riser.toml"));
        let own = [
            format!("edge.id=edge-{number}"),
            format!("edge.listen=127.0.0.1:{}", node.port),
            format!("admin.listen=127.0.0.1:{}", node.admin),
        ];
        for set in own.iter().chain(&self.options.set) {
            command.arg("--set").arg(set);
        }
        let log = self.log_of(number);
        self.nodes[number].process = Some(Process::start_command(command, &log)?);
        Ok(())
    }

    /// A file in the edges' folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the edges' folder, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let beside = self.path(&format!("{name}.new"));
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, self.path(name))).context("cannot write")
    }

    /// Writes the tenants file, with API keys of these names and hashes that may do everything.
    pub fn write_tenants(&self, keys: &[(&str, KeyHash)]) -> anyhow::Result<()> {
        self.write("tenants.toml", &tenant(TENANT, keys))
    }

    /// Adds a tenant to the tenants file, beside [`TENANT`]: it has an API key that may do everything, and a signing key
    /// whose id is `a`.
    pub fn add_tenant(&self, name: &str) -> anyhow::Result<Tenant> {
        let (key, hash) = riser_edge::auth::new_api_key(None);
        let secret = name.repeat(43);
        self.write(&format!("{name}.secret"), &secret)?;
        let mut text = std::fs::read_to_string(self.path("tenants.toml")).context("cannot read the tenants file")?;
        text += &tenant(name, &[("everything", hash)]);
        self.write("tenants.toml", &text)?;
        Ok(Tenant { key, secret })
    }

    fn log_of(&self, number: usize) -> PathBuf {
        self.options.output.clone().unwrap_or_else(|| self.path(&format!("edge-{number}.log")))
    }

    /// What an edge wrote to its log so far.
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.log_of(number)).unwrap_or_default()
    }

    /// Where gateways and clients connect.
    pub fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.nodes[number].port)
    }

    /// The public port.
    pub fn port(&self, number: usize) -> u16 {
        self.nodes[number].port
    }

    /// The port of an edge's admin pages.
    pub fn admin_port(&self, number: usize) -> u16 {
        self.nodes[number].admin
    }

    /// The ids of the processes of all edges that run.
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Process::id).collect()
    }

    /// Whether an edge runs; a stopped one does.
    pub fn is_running(&mut self, number: usize) -> bool {
        self.nodes[number].process.as_mut().is_some_and(Process::is_running)
    }

    /// How a client of the crate reaches an edge.
    pub fn config(&self, number: usize, credential: &str) -> anyhow::Result<Config> {
        Ok(Config::new(self.url(number).parse()?, Credential::new(credential)))
    }

    /// A session with this credential.
    pub async fn link(&self, number: usize, credential: &str) -> anyhow::Result<(Link, Welcome)> {
        let opened = timeout(WITHIN, Link::open(&self.config(number, credential)?)).await;
        Ok(opened.context("no session in time")??)
    }

    /// Asks an edge's admin port; the status and the body.
    pub async fn admin(&self, number: usize, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        http::ask(self.nodes[number].admin, method, path).await
    }

    /// Waits until an edge's `/readyz` says this.
    pub async fn until_ready_says(&self, number: usize, status: u16, part: &str) -> anyhow::Result<String> {
        let give_up = Instant::now() + WITHIN;
        loop {
            let answer = self.admin(number, "GET", "/readyz").await;
            match answer {
                Ok((now, body)) if now == status && body.contains(part) => return Ok(body),
                answer if Instant::now() > give_up => bail!("{answer:?}: {}", self.log(number)),
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until an edge is ready.
    pub async fn ready(&mut self, number: usize) -> anyhow::Result<()> {
        let give_up = Instant::now() + WITHIN;
        loop {
            if matches!(self.admin(number, "GET", "/readyz").await, Ok((200, _))) {
                return Ok(());
            }
            let process = self.nodes[number].process.as_mut().context("the edge does not run")?;
            ensure!(process.is_running(), "the edge ended at once: {}", self.log(number));
            ensure!(Instant::now() < give_up, "the edge is not ready: {}", self.log(number));
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks an edge to end (SIGTERM).
    pub fn terminate(&self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process.as_ref().context("the edge does not run")?.terminate()
    }

    /// Stops an edge, as if its machine hung (SIGSTOP).
    pub fn pause(&self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process.as_ref().context("the edge does not run")?.pause()
    }

    /// Lets an edge go on that was stopped.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process.as_ref().context("the edge does not run")?.resume()
    }

    /// Kills an edge (SIGKILL).
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    /// Waits for an edge's end, and gives its exit code.
    pub async fn ended(&mut self, number: usize) -> anyhow::Result<Option<i32>> {
        let give_up = Instant::now() + WITHIN;
        loop {
            let process = self.nodes[number].process.as_mut().context("the edge does not run")?;
            if let Some(code) = process.exit_code() {
                return Ok(code);
            }
            ensure!(Instant::now() < give_up, "the edge does not end: {}", self.log(number));
            sleep(LOOK_EVERY).await;
        }
    }
}
