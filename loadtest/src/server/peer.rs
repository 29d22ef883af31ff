//! Starts the peers and baselines.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use super::{Folder, Runs, Server};
use crate::process::Owned;
use crate::worker::order::Dialect;

/// How long a peer may take to listen.
const START: Duration = Duration::from_secs(20);
/// Between two looks at whether it listens.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn uws(bun: &Path) -> Result<Server> {
    let files = Folder::new()?;
    let script = files.write("uws.js", include_str!("../../peers/uws.js"))?;
    let mut command = Command::new(bun);
    command.arg(script);
    told_port(command, Dialect::Ws, Some(files)).await
}

pub(super) async fn ws(npm: &Path) -> Result<Server> {
    let files = Folder::new()?;
    let script = files.write("ws.js", include_str!("../../peers/ws.js"))?;
    let modules = npm.canonicalize().with_context(|| format!("failed to find {}", npm.display()))?.join("node_modules");
    let mut command = Command::new("node");
    command.arg(script).env("NODE_PATH", modules);
    told_port(command, Dialect::Ws, Some(files)).await
}

pub(super) async fn tcp() -> Result<Server> {
    let mut command = Command::new(std::env::current_exe().context("this program does not know where it is")?);
    command.arg("echo");
    told_port(command, Dialect::Tcp, None).await
}

pub(super) async fn mosquitto(program: &Path) -> Result<Server> {
    let files = Folder::new()?;
    // It takes no port 0. Whoever takes these meanwhile makes it fail, and is told. Version 2.0.11 does not start when all
    // its listeners are for WebSocket.
    let (at, other) = (free()?, free()?);
    let text = format!(
        "listener {} 127.0.0.1\nlistener {} 127.0.0.1\nsocket_domain ipv4\nprotocol websockets\nallow_anonymous true\nuser root\nlog_type error\n",
        other.port(),
        at.port()
    );
    let config = files.write("mosquitto.conf", &text)?;
    listening(program, &config, at, Dialect::Mqtt, files).await
}

pub(super) async fn centrifugo(program: &Path) -> Result<Server> {
    let files = Folder::new()?;
    let at = free()?;
    // Anonymous clients may publish and subscribe; all else is as it comes.
    let text = format!(
        r#"{{
  "http_server": {{ "address": "127.0.0.1", "port": {} }},
  "log": {{ "level": "error" }},
  "usage_stats": {{ "disabled": true }},
  "client": {{ "allow_anonymous_connect_without_token": true }},
  "channel": {{ "without_namespace": {{
    "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
    "allow_publish_for_client": true, "allow_publish_for_anonymous": true
  }} }}
}}"#,
        at.port()
    );
    let config = files.write("centrifugo.json", &text)?;
    listening(program, &config, at, Dialect::Centrifugo, files).await
}

/// A server that reads a file and listens where that says.
async fn listening(program: &Path, config: &Path, at: SocketAddr, dialect: Dialect, files: Folder) -> Result<Server> {
    let mut command = Command::new(program);
    command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Owned::start(&mut command)?;
    let until = Instant::now() + START;
    while TcpStream::connect(at).await.is_err() {
        if process.has_ended() || Instant::now() > until {
            bail!("{} does not listen on {at}", program.display());
        }
        sleep(LOOK).await;
    }
    Ok(server(process, at, dialect, Some(files)))
}

/// An address on which nobody listens.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn server(process: Owned, at: SocketAddr, dialect: Dialect, files: Option<Folder>) -> Server {
    Server {
        runs: Runs::One(process),
        at: vec![at],
        dialect,
        other_tenant: None,
        admin: Vec::new(),
        key: String::new(),
        _files: files,
    }
}

/// A server that prints its port once it listens.
async fn told_port(mut command: Command, dialect: Dialect, files: Option<Folder>) -> Result<Server> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Owned::start(&mut command)?;
    let out = process.output().context("a peer without output")?;
    let line = tokio::task::spawn_blocking(move || first_line(out)).await??;
    let port: u16 = line.trim().parse().with_context(|| format!("{name} did not print its port"))?;
    Ok(server(process, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dialect, files))
}

fn first_line(out: ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).context("a peer says nothing")?;
    Ok(line)
}
