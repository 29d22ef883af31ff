//! The servers that are measured: Riser, the peers, the baselines. Each is a process that this one starts on the loopback,
//! configured as its own documentation recommends, and ends by its id.

mod peer;
mod riser;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::process::{self, Cost, Owned};
use crate::worker::order::Dialect;

/// How long an answer to one HTTP call may take: a killed edge comes back within 20 s.
const ANSWER: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// `riser dev`.
    Riser,
    /// uWebSockets through bun.
    Uws,
    /// npm's ws on node.
    Ws,
    /// Mosquitto over WebSocket.
    Mosquitto,
    /// An echo over TCP, which does nothing.
    Tcp,
}

impl Subject {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Riser, Self::Uws, Self::Ws, Self::Mosquitto, Self::Tcp];

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Riser => "riser",
            Self::Uws => "uws",
            Self::Ws => "ws",
            Self::Mosquitto => "mosquitto",
            Self::Tcp => "tcp",
        }
    }

    /// What stands beside its figures.
    pub(crate) fn does(self) -> &'static str {
        match self {
            Self::Riser => {
                "`riser dev`: tokens verified, grants checked, presence fenced by epochs, state stored before it is \
                 acknowledged, sent through a bus, conflated for slow readers; all stores in its own memory"
            }
            Self::Uws => {
                "uWebSockets in bun: topics in native code; no credentials, presence, state or acknowledgements; what a \
                 slow reader does not take is dropped at a limit"
            }
            Self::Ws => "ws on node: a loop over sockets; no credentials, presence, state or acknowledgements",
            Self::Mosquitto => {
                "Mosquitto: MQTT 3.1.1 over WebSocket, anonymous; QoS 0 to listeners, QoS 1 where it is acknowledged; no \
                 presence but wills, no state but retained messages, nothing on disk"
            }
            Self::Tcp => "an echo over TCP: no WebSocket, no JSON, nothing but the sockets",
        }
    }
}

/// Where the servers' programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The riser binary.
    pub(crate) riser: PathBuf,
    /// The folder that `npm install` was told.
    pub(crate) npm: PathBuf,
    /// The mosquitto binary.
    pub(crate) mosquitto: PathBuf,
}

impl Programs {
    /// Why a server cannot be started, if so.
    pub(crate) fn missing(&self, subject: Subject) -> Option<String> {
        let get = "see `riser-loadtest peers --help`";
        match subject {
            Subject::Riser => missing(&self.riser, "build it with cargo build --release"),
            Subject::Uws => missing(&self.bun(), get),
            Subject::Ws => missing(&self.npm.join("node_modules/ws"), get),
            Subject::Mosquitto => missing(&self.mosquitto, get),
            Subject::Tcp => None,
        }
    }

    fn bun(&self) -> PathBuf {
        self.npm.join("node_modules/bun/bin/bun.exe")
    }

    /// Starts a server.
    pub(crate) async fn start(&self, subject: Subject, edges: u16) -> Result<Server> {
        if let Some(why) = self.missing(subject) {
            bail!("{} cannot be measured: {why}", subject.name());
        }
        match subject {
            // A cluster on real NATS and Redis would be started here, beside `riser dev`, and give the same value with
            // several processes in it.
            Subject::Riser => riser::start(&self.riser, edges).await,
            Subject::Uws => peer::uws(&self.bun()).await,
            Subject::Ws => peer::ws(&self.npm).await,
            Subject::Mosquitto => peer::mosquitto(&self.mosquitto).await,
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
    process: Owned,
    /// Where it is connected to; several for a cluster's edges.
    pub(crate) at: Vec<SocketAddr>,
    /// What it speaks.
    pub(crate) dialect: Dialect,
    /// Riser's admin ports, one per edge.
    admin: Vec<SocketAddr>,
    /// Riser's API key.
    key: String,
    /// Its files, which go when it does.
    _files: Option<Folder>,
}

impl Server {
    /// Its CPU time and memory by now.
    pub(crate) fn cost(&self) -> Result<Cost> {
        process::cost(self.process.pid())
    }

    /// Its CPU time by now, in microseconds.
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        process::cpu_us(self.process.pid())
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

    /// Ends an edge without a goodbye, or brings it back.
    pub(crate) async fn switch(&self, edge: usize, up: bool) -> Result<()> {
        let at = self.admin.first().context("only Riser has edges that can be switched")?;
        let path = format!("/dev/edges/{edge}/{}", if up { "start" } else { "kill" });
        match call(*at, "POST", &path, None).await? {
            (200, _) => Ok(()),
            (status, why) => bail!("{path} was answered with {status}: {}", why.trim()),
        }
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
