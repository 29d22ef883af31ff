//! The servers that are measured: Riser, the peers, the baselines. Each is a process that this one starts on the loopback,
//! configured as its own documentation recommends, and ends by its id; but a cluster can also be one that runs already.

mod cluster;
mod given;
mod peer;
mod riser;
mod subject;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::process::{self, Cost, Owned};
use crate::worker::order::Dialect;
use cluster::Cluster;
pub(crate) use given::Given;
pub(crate) use subject::Subject;

/// How long an answer to one HTTP call may take: a killed edge comes back within 20 s.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the servers' programs are, and which of Riser's ways is measured.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The riser binary.
    pub(crate) riser: PathBuf,
    /// The folder that `npm install` was told.
    pub(crate) npm: PathBuf,
    /// The mosquitto binary.
    pub(crate) mosquitto: PathBuf,
    /// The centrifugo binary.
    pub(crate) centrifugo: PathBuf,
    /// The nats-server binary.
    pub(crate) nats: PathBuf,
    /// The redis-server binary.
    pub(crate) redis: PathBuf,
    /// How many edges of a cluster are measured instead of `riser dev`, if so.
    pub(crate) cluster: Option<u16>,
    /// The cluster that is measured instead of one that is started, if so.
    pub(crate) given: Option<Given>,
}

impl Programs {
    /// Why a server cannot be started, if so.
    pub(crate) fn missing(&self, subject: Subject) -> Option<String> {
        let get = "see `riser-loadtest peers --help`";
        let riser = || missing(&self.riser, "build it with cargo build --release");
        match subject {
            Subject::Riser => riser(),
            Subject::Cluster | Subject::Stores => {
                riser().or_else(|| missing(&self.nats, get)).or_else(|| missing(&self.redis, get))
            }
            Subject::Uws => missing(&self.bun(), get),
            Subject::Ws => missing(&self.npm.join("node_modules/ws"), get),
            Subject::Mosquitto => missing(&self.mosquitto, get),
            Subject::Centrifugo => missing(&self.centrifugo, get),
            Subject::Given | Subject::Tcp => None,
        }
    }

    /// Riser in the way in which it is measured.
    pub(crate) fn ours(&self) -> Subject {
        if self.given.is_some() || self.cluster.is_some() { self.clustered() } else { Subject::Riser }
    }

    /// Riser on NATS and Redis.
    pub(crate) fn clustered(&self) -> Subject {
        if self.given.is_some() { Subject::Given } else { Subject::Cluster }
    }

    fn bun(&self) -> PathBuf {
        self.npm.join("node_modules/bun/bin/bun.exe")
    }

    /// Starts a server. Riser's has so many edges at least.
    pub(crate) async fn start(&self, subject: Subject, edges: u16) -> Result<Server> {
        if let Some(why) = self.missing(subject) {
            bail!("{} cannot be measured: {why}", subject.name());
        }
        match subject {
            Subject::Riser => riser::start(&self.riser, edges).await,
            Subject::Cluster => cluster::start(self, edges.max(self.cluster.unwrap_or(1))).await,
            Subject::Given => self.given.as_ref().context("no cluster was named")?.server(edges),
            Subject::Stores => bail!("what is behind edges is started with a cluster"),
            Subject::Uws => peer::uws(&self.bun()).await,
            Subject::Ws => peer::ws(&self.npm).await,
            Subject::Mosquitto => peer::mosquitto(&self.mosquitto).await,
            Subject::Centrifugo => peer::centrifugo(&self.centrifugo).await,
            Subject::Tcp => peer::tcp().await,
        }
    }
}

fn missing(path: &Path, how: &str) -> Option<String> {
    (!path.exists()).then(|| format!("there is no {}: {how}", path.display()))
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    runs: Runs,
    /// Where it is connected to; several for a cluster's edges.
    pub(crate) at: Vec<SocketAddr>,
    /// What it speaks.
    pub(crate) dialect: Dialect,
    /// The same for another tenant, where there are several.
    pub(crate) other_tenant: Option<Dialect>,
    /// Riser's admin ports, one per edge.
    admin: Vec<SocketAddr>,
    /// Riser's API key.
    key: String,
    /// Its files, which go when it does.
    _files: Option<Folder>,
}

/// What runs.
#[derive(Debug)]
enum Runs {
    /// One process.
    One(Owned),
    /// Edges, and what is behind them.
    Cluster(Box<Cluster>),
    /// What somebody else started.
    Elsewhere,
}

impl Server {
    fn processes(&self) -> Vec<u32> {
        match &self.runs {
            Runs::One(process) => vec![process.pid()],
            Runs::Cluster(cluster) => cluster.edges(),
            Runs::Elsewhere => Vec::new(),
        }
    }

    /// The CPU time and memory of its processes by now: of a cluster those of its edges.
    pub(crate) fn cost(&self) -> Result<Cost> {
        let processes = self.processes();
        if processes.is_empty() {
            bail!("memory is read of processes, and those of this cluster were started elsewhere");
        }
        let mut sum = Cost { cpu_us: 0, pss: 0 };
        for process in processes {
            let cost = process::cost(process)?;
            sum = Cost { cpu_us: sum.cpu_us + cost.cpu_us, pss: sum.pss + cost.pss };
        }
        Ok(sum)
    }

    /// Its CPU time by now, in microseconds. Nothing when it was started elsewhere.
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        self.processes().into_iter().map(process::cpu_us).sum()
    }

    /// The CPU time of what is behind a cluster's edges.
    pub(crate) fn stores_cpu_us(&self) -> Result<u64> {
        match &self.runs {
            Runs::Cluster(cluster) => cluster.stores().into_iter().map(process::cpu_us).sum(),
            _ => Ok(0),
        }
    }

    /// How what is behind a cluster's edges is called without them.
    pub(crate) fn stores(&self) -> Option<Dialect> {
        match &self.runs {
            Runs::Cluster(cluster) => Some(cluster.dialect_of_stores()),
            _ => None,
        }
    }

    /// Whether it can be looked into: metrics, and ends of edges.
    pub(crate) fn is_ours(&self) -> bool {
        !self.admin.is_empty()
    }

    /// The sum of a counter of all edges, over its labels.
    pub(crate) async fn counter(&self, name: &str) -> Result<u64> {
        let mut sum = 0;
        for at in &self.admin {
            let (_, text) = call(*at, "GET", "/metrics", None).await?;
            let lines =
                text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
            sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(sum)
    }

    /// Ends all edges without a goodbye, or brings them back.
    pub(crate) async fn switch(&mut self, up: bool) -> Result<()> {
        if let Runs::Cluster(cluster) = &mut self.runs {
            return cluster.switch(up).await;
        }
        let at = self.admin.first().context("only edges that were started here can be ended")?;
        for edge in 0..self.at.len() {
            let path = format!("/dev/edges/{edge}/{}", if up { "start" } else { "kill" });
            match call(*at, "POST", &path, None).await? {
                (200, _) => {}
                (status, why) => bail!("{path} was answered with {status}: {}", why.trim()),
            }
        }
        Ok(())
    }

    /// How many gateways of a building are online.
    pub(crate) async fn online(&self, building: u32) -> Result<usize> {
        let path = format!("/v1/presence?building=b{building}&limit=1000");
        let (status, text) = call(self.at[0], "GET", &path, Some(&self.key)).await?;
        if status != 200 {
            bail!("{path} was answered with {status}");
        }
        let page: serde_json::Value = serde_json::from_str(&text).context("presence that is no JSON")?;
        let rows = page["gateways"].as_array().context("presence without gateways")?;
        Ok(rows.iter().filter(|row| row["online"] == true).count())
    }
}

/// One HTTP call: the status and the body.
async fn call(at: SocketAddr, method: &str, path: &str, bearer: Option<&str>) -> Result<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        let auth = bearer.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{auth}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(ANSWER, asked).await.with_context(|| format!("no answer to {path} of {at}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer to {path} of {at}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    Ok((status, body.to_owned()))
}

/// A folder for a server's files, for this user alone. It goes when this is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("riser-loadtest-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody needs it any more; one that stays does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
