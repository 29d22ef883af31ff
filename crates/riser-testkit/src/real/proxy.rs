//! A TCP proxy that makes a network bad: slow, silent, cut or refusing, in one direction or both, while it is used. With
//! several servers behind it, it is also what spreads peers over edges: each connection goes to the next that is there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

#[cfg(test)]
mod tests;

/// Connections at once; further ones are reset. As many as an edge's sockets in the greatest test, and some.
const CONNECTIONS: usize = 8_192;
/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// Pieces of one direction that are on their way at once, like the packets that a long line holds: a megabyte at most.
const ON_THE_WAY: usize = 64;

/// Before accepting is tried again after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the server.
    In,
    /// Back.
    Out,
}

/// How bytes go one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How long each piece takes.
    pub delay: Duration,
    /// How much longer some take, at most. None overtakes another.
    pub jitter: Duration,
    /// Nothing arrives, and nobody is told: what is sent waits.
    pub stalled: bool,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cut,
    Reset,
}

/// A proxy to one server or several. Dropping it ends its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    // Ends with the proxy.
    _accepting: JoinSet<()>,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Line {
    to: Vec<SocketAddr>,
    ways: [watch::Sender<Traffic>; 2],
    refused: watch::Sender<bool>,
    /// The number of the last order to end, and the order.
    end: watch::Sender<(u64, End)>,
    open: AtomicUsize,
    accepted: AtomicU64,
}

impl Proxy {
    /// Begins to pass on to a server. The seed decides the jitter.
    pub async fn start(to: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::among(vec![to], seed).await
    }

    /// Begins to pass on to several servers, in turn.
    pub async fn among(to: Vec<SocketAddr>, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let line = Arc::new(Line {
            to,
            ways: [watch::Sender::new(Traffic::default()), watch::Sender::new(Traffic::default())],
            refused: watch::Sender::new(false),
            end: watch::Sender::new((0, End::Cut)),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, line.clone(), Rng::with_seed(seed)));
        Ok(Self { address, line, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how bytes go one way, also on connections that are open. What is on its way already keeps its delay.
    pub fn set(&self, way: Way, traffic: Traffic) {
        self.line.way(way).send_replace(traffic);
    }

    /// The same for both ways.
    pub fn set_both(&self, traffic: Traffic) {
        self.set(Way::In, traffic);
        self.set(Way::Out, traffic);
    }

    /// Stalls both ways, as a network that was cut off, or lets everything go on without delay.
    pub fn stall(&self, stalled: bool) {
        self.set_both(Traffic { stalled, ..Traffic::default() });
    }

    /// Resets connections as soon as they are made, or takes them again. Those that are open stay.
    pub fn refuse(&self, refused: bool) {
        self.line.refused.send_replace(refused);
    }

    /// Ends all connections in order, as a server that closes them.
    pub fn cut(&self) {
        self.end(End::Cut);
    }

    /// Ends all connections with a reset, as a machine that has forgotten them.
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    fn end(&self, how: End) {
        self.line.end.send_modify(|end| *end = (end.0 + 1, how));
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.line.open.load(Ordering::Relaxed)
    }

    /// Connections that were ever made, the refused ones too.
    pub fn accepted(&self) -> u64 {
        self.line.accepted.load(Ordering::Relaxed)
    }
}

impl Line {
    fn way(&self, way: Way) -> &watch::Sender<Traffic> {
        &self.ways[usize::from(way == Way::Out)]
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>, mut rng: Rng) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: trying at once would not bring any.
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let number = line.accepted.fetch_add(1, Ordering::Relaxed);
        if *line.refused.borrow() || connections.len() >= CONNECTIONS {
            drop(client.set_zero_linger());
            continue;
        }
        connections.spawn(connection(client, number, line.clone(), rng.fork()));
    }
}

/// Counts an open connection for as long as it lives.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to the first server that is there, beginning with another one each time.
async fn connect(to: &[SocketAddr], number: u64) -> Option<TcpStream> {
    let first = usize::try_from(number).unwrap_or_default() % to.len().max(1);
    for address in to[first..].iter().chain(&to[..first]) {
        if let Ok(server) = TcpStream::connect(address).await {
            return Some(server);
        }
    }
    None
}

async fn connection(mut client: TcpStream, number: u64, line: Arc<Line>, mut rng: Rng) {
    let _open = Open::new(&line.open);
    // From here on, so that an order that comes while the server is connected to is not missed.
    let mut ended = line.end.subscribe();
    let Some(mut server) = connect(&line.to, number).await else {
        drop(client.set_zero_linger());
        return;
    };
    // What the proxy adds is what it is told to add.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let inward = pass(from_client, to_server, line.way(Way::In).subscribe(), rng.fork());
        let outward = pass(from_server, to_client, line.way(Way::Out).subscribe(), rng);
        tokio::select! {
            passed = async { tokio::try_join!(inward, outward) } => match passed {
                Ok(_) => return,
                Err(_) => End::Reset,
            },
            _ = ended.changed() => ended.borrow().1,
        }
    };
    match how {
        End::Cut => drop(tokio::join!(client.shutdown(), server.shutdown())),
        End::Reset => drop((client.set_zero_linger(), server.set_zero_linger())),
    }
}

/// Passes bytes on one way until there are no more.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut traffic: watch::Receiver<Traffic>,
    mut rng: Rng,
) -> io::Result<()> {
    let (sender, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let speed = traffic.clone();
    let read = async move {
        let mut last = Instant::now();
        loop {
            let mut piece = vec![0; CHUNK];
            let bytes = from.read(&mut piece).await?;
            piece.truncate(bytes);
            let Traffic { delay, jitter, .. } = *speed.borrow();
            last = last.max(Instant::now() + delay + jitter.mul_f64(rng.f64()));
            // At the end an empty piece, so that the end takes as long as bytes do.
            if sender.send((last, piece)).await.is_err() || bytes == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = on_the_way.recv().await {
            sleep_until(due).await;
            if traffic.wait_for(|traffic| !traffic.stalled).await.is_err() {
                break;
            }
            if piece.is_empty() {
                to.shutdown().await?;
            } else {
                to.write_all(&piece).await?;
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}
