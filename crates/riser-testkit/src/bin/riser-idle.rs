//! What an idle gateway session costs the server in user-space memory.
//!
//! Starts `riser dev` as another process, opens gateway sessions in steps, lets each exchange three frames each way,
//! rests, and reads the server's proportional set size (PSS). The slope between the least and the greatest step is what
//! one session costs; of several servers the median counts. The memory registry's share is measured apart, as the same
//! slope of a registry that is filled in this process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use riser_client::Api;
use riser_core::frame::Credential;
use riser_core::limits::Limits;
use riser_core::{Address, Change, EdgeId, GatewayKey, Json, Path, Version};
use riser_registry::memory::MemoryRegistry;
use riser_registry::{Lease, Registry as _, StateStore as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Frames that each session sends before it rests, each of which is answered.
const FRAMES: usize = 3;
/// Sessions opened at once.
const AT_ONCE: usize = 100;
/// How long one session may take to open.
const OPEN: Duration = Duration::from_secs(30);
/// How long the server's metrics may take to come.
const ANSWER: Duration = Duration::from_secs(10);

/// Measures what an idle gateway session costs the server.
#[derive(Parser)]
#[command(after_help = "Example:\n  cargo build --release && cargo run --release -p riser-testkit --bin riser-idle")]
struct Args {
    /// How many sessions, in rising steps
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 4_000, 8_000])]
    sessions: Vec<usize>,
    /// How many servers are measured, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Seconds of rest before each reading
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// The server's binary
    #[arg(long, default_value = "target/release/riser")]
    server: PathBuf,
    /// Bytes per session above which the exit code is 1
    #[arg(long, default_value_t = 4_096)]
    limit: i64,
}

/// The server, which ends with this program.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing that must survive, and an error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(measure(&args))) {
        Ok(slope) if slope <= args.limit => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(69)
        }
    }
}

async fn measure(args: &Args) -> Result<i64> {
    let (Some(&least), Some(&most)) = (args.sessions.iter().min(), args.sessions.iter().max()) else {
        bail!("no steps");
    };
    if least == most {
        bail!("a slope needs two different numbers of sessions");
    }
    // Before any session, whose freed memory the registry would be given.
    let registry = registry_share(least, most).await?;
    println!("{:>6} {:>9} {:>11} {:>14}", "round", "sessions", "PSS bytes", "bytes/session");
    let mut slopes = Vec::new();
    for i in 1..=args.rounds {
        let readings = round(args).await?;
        let slope = slope(&readings)?;
        for (n, (step, pss)) in readings.iter().enumerate() {
            let shown = if n + 1 == readings.len() { slope.to_string() } else { String::new() };
            println!("{i:>6} {step:>9} {pss:>11} {shown:>14}");
        }
        slopes.push(slope);
    }
    slopes.sort_unstable();
    let median = slopes[slopes.len() / 2];
    println!("\none idle gateway session      {median:>6} bytes (limit {})", args.limit);
    println!("of it in the memory registry  {registry:>6} bytes");
    Ok(median)
}

/// Measures one server: how many sessions rested in it, and its PSS, for each step.
async fn round(args: &Args) -> Result<Vec<(usize, i64)>> {
    let ready = std::env::temp_dir().join(format!("riser-idle-{}.json", std::process::id()));
    let server = start(args, &ready)?;
    let told = std::fs::read(&ready);
    // It holds keys, and a server that is killed does not remove it.
    std::fs::remove_file(&ready)?;
    let told: serde_json::Value = serde_json::from_slice(&told?)?;
    let url = |of: &str| told[of][0].as_str().with_context(|| format!("the ready file names no {of} URL"));
    let (http, admin) = (url("http")?, port(url("admin")?)?);
    let api = Api::new(http.parse()?, Credential::new(told["api_key"].as_str().context("no key")?));
    let (api, port) = (Arc::new(api), port(http)?);
    let (mut open, mut tasks) = (0, JoinSet::new());
    let mut readings = Vec::new();
    for &step in &args.sessions {
        while open < step {
            let batch: Vec<_> = (open..step.min(open + AT_ONCE)).collect();
            open += batch.len();
            let opened = batch.into_iter().map(|i| timeout(OPEN, session(api.clone(), port, i)));
            for stream in futures_util::future::join_all(opened).await {
                tasks.spawn(hold(stream.context("a session did not open in time")??));
            }
        }
        sleep(Duration::from_secs(args.rest)).await;
        let held = timeout(ANSWER, sessions(admin)).await.context("the server's metrics do not come")??;
        if tasks.try_join_next().is_some() || held != open {
            bail!("of {open} sessions that should rest the server holds {held}");
        }
        readings.push((open, pss(server.0.id())?));
    }
    Ok(readings)
}

/// Bytes per session between the least and the greatest step.
fn slope(readings: &[(usize, i64)]) -> Result<i64> {
    let (Some(least), Some(most)) = (readings.iter().min(), readings.iter().max()) else { bail!("nothing was read") };
    Ok((most.1 - least.1) / i64::try_from(most.0 - least.0)?.max(1))
}

fn port(url: &str) -> Result<u16> {
    Ok(url.rsplit(':').next().context("a URL without a port")?.parse()?)
}

/// How many gateway sessions the server says it holds.
async fn sessions(admin: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], admin))).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let gateways = answer.lines().find_map(|line| line.strip_prefix(r#"riser_sessions{peer="gateway"} "#));
    Ok(gateways.context("the metrics do not count gateways")?.trim().parse()?)
}

fn start(args: &Args, ready: &std::path::Path) -> Result<Server> {
    let child = Command::new(&args.server)
        .args(["dev", "--flats", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file"])
        .arg(ready)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}; build it with cargo build --release", args.server.display()))?;
    let mut server = Server(child);
    // It prints its banner once it serves.
    let out = server.0.stdout.take().context("no output")?;
    BufReader::new(out).read_line(&mut String::new())?;
    for _ in 0..500 {
        if ready.exists() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the server does not become ready")
}

/// Opens one session and lets it exchange its frames.
async fn session(api: Arc<Api>, port: u16, i: usize) -> Result<TcpStream> {
    let address: Address = format!("b{}/g{i}", i / 200).parse()?;
    let token = api.gateway_token(&address, None).await.map_err(|end| anyhow::anyhow!("no token: {end}"))?;
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: riser.v1\r\nAuthorization: Bearer {}\r\n\r\n",
        token.token.expose()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        bail!("not upgraded: {}", String::from_utf8_lossy(&answer));
    }
    write(&mut stream, 0x81, br#"{"t":"hello"}"#).await?;
    read(&mut stream).await?;
    for n in 0..FRAMES {
        let text = format!(
            r#"{{"t":"state","n":{n},"set":{{"hall/lock":"locked","kitchen/light":{{"on":true}},"meter":{n}}}}}"#
        );
        write(&mut stream, 0x81, text.as_bytes()).await?;
        read(&mut stream).await?;
    }
    Ok(stream)
}

/// Answers pings for as long as the connection lasts.
async fn hold(mut stream: TcpStream) {
    while let Ok((opcode, payload)) = read(&mut stream).await {
        if opcode == 9 && write(&mut stream, 0x8a, &payload).await.is_err() {
            return;
        }
    }
}

/// The bit that says that a mask follows.
const MASKED: u8 = 0x80;
/// The length that says that the real one follows in two bytes.
const LONG: u8 = 0x7e;

/// A short frame with an empty mask (RFC 6455 §5.2).
async fn write(stream: &mut TcpStream, first: u8, payload: &[u8]) -> Result<()> {
    let mut frame = vec![first];
    if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
        frame.push(MASKED | short);
    } else {
        frame.push(MASKED | LONG);
        frame.extend(u16::try_from(payload.len())?.to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    Ok(stream.write_all(&frame).await?)
}

async fn read(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let mut length = usize::from(stream.read_u8().await?);
    if length == usize::from(LONG) {
        length = usize::from(stream.read_u16().await?);
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((first & 15, payload))
}

/// The proportional set size of a process, in bytes.
fn pss(pid: u32) -> Result<i64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<i64>()? * 1024)
}

/// What the memory registry keeps of a gateway with the values of [`session`]: the slope between two numbers of them.
async fn registry_share(least: usize, most: usize) -> Result<i64> {
    let id: EdgeId = "edge-0".parse()?;
    let store = MemoryRegistry::new(1).client(&id);
    let lease = Lease { edge: id, start: 1 };
    let mut readings = Vec::new();
    for i in 0..most {
        if i == least {
            readings.push((i, pss(std::process::id())?));
        }
        let key = GatewayKey::new("dev".parse()?, format!("b{}/g{i}", i / 200).parse()?);
        let acquired = store.acquire(&lease, &key, None).await?;
        let value = |p: &str, v: &str| -> Result<(Path, Option<Json>)> { Ok((p.parse()?, Some(Json::parse(v)?))) };
        let set = [value("hall/lock", "\"locked\"")?, value("kitchen/light", r#"{"on":true}"#)?, value("meter", "2")?];
        let version = Version::start(acquired.epoch).next();
        store.apply(&key, version, &Change::values(set, false), &Limits::default()).await?;
    }
    readings.push((most, pss(std::process::id())?));
    slope(&readings)
}
