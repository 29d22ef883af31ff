//! Echoes messages through exactly the WebSocket layer that an edge uses, so that outside conformance suites can run on
//! it:
//!
//! ```text
//! cargo run --release --example ws_echo -- 127.0.0.1:9001
//! ```
//!
//! It takes any path and any subprotocol or none, and messages of up to 16 MiB. It prints where it listens.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use riser_edge::ws::handshake::{self, Subprotocols};
use riser_edge::ws::{self, Conn, Handler, Limits, Settings, frame};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The exit code for wrong usage (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// The largest message that conformance suites send.
const MAX_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;

/// The kernel's share of what waits for a slow reader.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// How long a client may take for its request.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// How long not to accept after a failure, which most likely means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address = args.next().and_then(|arg| arg.parse::<SocketAddr>().ok());
    let (Some(address), None) = (address, args.next()) else {
        eprintln!("usage: ws_echo ADDRESS:PORT");
        return ExitCode::from(EXIT_USAGE);
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ws_echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    println!("listening on ws://{}", listener.local_addr()?);
    let settings = Arc::new(Settings {
        limits: Limits { text_bytes: MAX_MESSAGE_BYTES, binary_bytes: MAX_MESSAGE_BYTES },
        max_queue_bytes: 4 * MAX_MESSAGE_BYTES as usize,
        // Suites measure how fast tiny fragments are taken.
        frames_per_second: 1_000_000,
        ..Settings::default()
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tasks.spawn(handle(stream, settings.clone()));
                }
                Err(error) => {
                    eprintln!("ws_echo: failed to accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Answers a connection's requests, and then echoes if one of them made it a WebSocket.
async fn handle(stream: TcpStream, settings: Arc<Settings>) {
    if ws::tune(&stream, SEND_BUFFER_BYTES).is_err() {
        return;
    }
    let upgrade = Mutex::new(None);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WAIT)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(async |request| Ok::<_, Infallible>(answer(request, &upgrade))),
        )
        .with_upgrades();
    if connection.await.is_err() {
        return;
    }
    let upgrade = upgrade.lock().ok().and_then(|mut upgrade| upgrade.take());
    if let Some(upgrade) = upgrade
        && let Ok(io) = upgrade.await
        && let Ok(parts) = io.downcast::<TokioIo<TcpStream>>()
    {
        let (read, write) = parts.io.into_inner().into_split();
        ws::serve(Conn::new(write, settings), read, &parts.read_buf, Echo).await;
    }
}

fn answer(mut request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Response<Full<Bytes>> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    match handshake::accept(&parts, Subprotocols::Any) {
        Ok(accepted) => {
            if let Ok(mut upgrade) = upgrade.lock() {
                *upgrade = Some(on_upgrade);
            }
            accepted.response()
        }
        Err(refusal) => {
            let mut response = Response::new(Full::from(refusal.detail));
            *response.status_mut() = refusal.status;
            *response.headers_mut() = refusal.headers;
            response
        }
    }
}

struct Echo;

impl Handler for Echo {
    fn text(&mut self, conn: &Arc<Conn>, text: &str) {
        conn.push(frame::text(text));
    }

    fn binary(&mut self, conn: &Arc<Conn>, data: &[u8]) {
        conn.push(frame::binary(data));
    }
}
