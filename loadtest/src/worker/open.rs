//! Opens connections: from addresses all over 127.0.0.0/8, so that ports do not run out, and with what each server wants
//! to hear before it serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::conn::{Conn, Opening};
use super::order::{Dialect, Reporter, Role, Watcher};
use super::wire::{self, centrifugo, mqtt};
use super::world::World;
use crate::clock::{now_us, unix_s};

/// How long one connection may take to open, once nobody refuses it.
const OPEN: Duration = Duration::from_secs(60);
/// Times that a refused connection comes back.
const TRIES: u32 = 20;
/// Connections from one source address: far fewer than it has ports, so that those that wait to be forgotten do not matter.
const PER_ADDRESS: u32 = 2_000;
/// How long tokens are good for, in seconds.
const TTL_S: u64 = 86_400;
/// Clients' grant to see and command everything.
const EVERYTHING: &str = r#"[{"to":"*/*","may":["read","command","event","listen","speak"]}]"#;

/// How an attempt ended.
enum Tried {
    Open(Rc<Conn>),
    /// Refused, and for how long, if it was said.
    Refused(Option<u64>),
}

/// Opens the connection of a place, and comes back as often as it is told to. The time counts from `since_us`.
pub(crate) async fn open(world: &Rc<World>, place: u32, since_us: Option<u64>) -> Result<Rc<Conn>> {
    for _ in 0..TRIES {
        let tried = timeout(OPEN, attempt(world, world.job.first + place)).await;
        match tried.context("a connection did not open in time")?? {
            Tried::Open(conn) => {
                if let Some(since) = since_us {
                    world.answered(since);
                }
                return Ok(conn);
            }
            Tried::Refused(after) => {
                world.counts.borrow_mut().report.refused[usize::from(after.is_none())] += 1;
                let after = Duration::from_secs(after.unwrap_or(1));
                sleep(after.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
            }
        }
    }
    bail!("refused {TRIES} times");
}

async fn attempt(world: &World, id: u32) -> Result<Tried> {
    let mut opening = Opening { stream: dial(world.at(id)?, id).await?, left: Vec::new() };
    let (path, subprotocol, token) = match (&world.job.dialect, &world.job.role) {
        (Dialect::Tcp, _) => return Ok(Tried::Open(Conn::new(id, opening.stream, opening.left))),
        (Dialect::Riser { tenant, kid, key }, role) => {
            let who = match role {
                Role::Report(_) => Peer::Gateway(world.address(id)),
                _ => Peer::Client(id),
            };
            ("/v1/ws", Some("riser.v1"), Some(token(tenant, kid, key, &who)?))
        }
        (Dialect::Mqtt, _) => ("/mqtt", Some("mqtt"), None),
        (Dialect::Centrifugo, _) => ("/connection/websocket", None, None),
        (Dialect::Stores { .. }, _) => bail!("stores have no sockets for generators"),
        (Dialect::Ws, Role::Watch(_)) => ("/sub", None, None),
        (Dialect::Ws, Role::Report(reporter)) if reporter.acknowledged => ("/echo", None, None),
        (Dialect::Ws, _) => ("/pub", None, None),
    };
    opening.write(wire::upgrade(path, subprotocol, token.as_deref()).as_bytes()).await?;
    let head = opening.head().await?;
    match wire::status(&head) {
        101 => {}
        429 | 503 => {
            return Ok(Tried::Refused(wire::header(&head, "retry-after").and_then(|after| after.parse().ok())));
        }
        status => bail!("the upgrade was answered with {status}"),
    }
    let stream = match greet(world, id, &mut opening).await {
        Ok(stream) => stream,
        Err(error) => match error.downcast_ref::<wire::Closed>() {
            Some(closed) if closed.is_for_now() => return Ok(Tried::Refused(closed.retry_after_s())),
            _ => return Err(error),
        },
    };
    let conn = Conn::new(id, opening.stream, opening.left);
    conn.stream_id.set(stream);
    Ok(Tried::Open(conn))
}

pub(crate) async fn dial(at: SocketAddr, id: u32) -> Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if at.ip().is_loopback() {
        let [_, _, high, low] = (id / PER_ADDRESS + 1).to_be_bytes();
        let from = Ipv4Addr::new(127, 77, high, low);
        socket.bind(SocketAddr::from((from, 0))).context("failed to bind a source address")?;
    }
    let stream = socket.connect(at).await.with_context(|| format!("failed to connect to {at}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What comes before a connection counts as open. Gives the live stream, when there is one.
async fn greet(world: &World, id: u32, opening: &mut Opening) -> Result<u32> {
    match (&world.job.dialect, &world.job.role) {
        (Dialect::Riser { .. }, role) => {
            opening.send(wire::TEXT, br#"{"t":"hello","agent":"riser-loadtest","remembers_ms":600000}"#).await?;
            until(opening, br#"{"t":"welcome""#).await?;
            match role {
                Role::Report(reporter) => return report(world, id, opening, reporter).await,
                Role::Watch(watcher) => subscribe(world, id, opening, watcher).await?,
                _ => {}
            }
        }
        (Dialect::Mqtt, role) => {
            let name = format!("{}-{id}", if matches!(role, Role::Watch(_)) { "w" } else { "p" });
            opening.send(wire::BINARY, &mqtt::connect(&name)).await?;
            packet(opening, 0x20).await?;
            match role {
                Role::Watch(_) => {
                    opening.send(wire::BINARY, &mqtt::subscribe()).await?;
                    packet(opening, 0x90).await?;
                }
                Role::Report(reporter) => {
                    for i in 0..reporter.greet {
                        let number = u16::try_from(i + 1).context("too many greetings")?;
                        opening.send(wire::BINARY, &mqtt::publish(Some(number), b"{\"meter\":1}")).await?;
                        packet(opening, 0x40).await?;
                    }
                }
                _ => {}
            }
        }
        (Dialect::Ws, Role::Report(reporter)) => {
            for _ in 0..reporter.greet {
                opening.send(wire::TEXT, b"{\"meter\":1}").await?;
                opening.message().await?;
            }
        }
        (Dialect::Centrifugo, role) => {
            opening.send(wire::TEXT, centrifugo::CONNECT).await?;
            answered(opening).await?;
            match role {
                Role::Watch(_) => {
                    opening.send(wire::TEXT, centrifugo::SUBSCRIBE).await?;
                    answered(opening).await?;
                }
                Role::Report(reporter) => {
                    for i in 0..reporter.greet {
                        let number = u16::try_from(i + 1).context("too many greetings")?;
                        opening.send(wire::TEXT, centrifugo::publish(number, "{\"meter\":1}").as_bytes()).await?;
                        answered(opening).await?;
                    }
                }
                _ => {}
            }
        }
        (Dialect::Ws | Dialect::Tcp | Dialect::Stores { .. }, _) => {}
    }
    Ok(0)
}

async fn until(opening: &mut Opening, begin: &[u8]) -> Result<Vec<u8>> {
    loop {
        let message = opening.message().await?;
        if message.starts_with(br#"{"t":"error""#) {
            bail!("refused: {}", String::from_utf8_lossy(&message));
        }
        if message.starts_with(begin) {
            return Ok(message);
        }
    }
}

/// Waits for Centrifugo's next answer.
async fn answered(opening: &mut Opening) -> Result<()> {
    loop {
        let message = opening.message().await?;
        for line in centrifugo::lines(&message) {
            match centrifugo::answer(line) {
                None => {}
                Some(Ok(_)) => return Ok(()),
                Some(Err(_)) => bail!("refused: {}", String::from_utf8_lossy(line)),
            }
        }
    }
}

async fn packet(opening: &mut Opening, first: u8) -> Result<()> {
    loop {
        let message = opening.message().await?;
        if mqtt::packets(&message).any(|(kind, _)| kind == first) {
            return Ok(());
        }
    }
}

async fn report(world: &World, id: u32, opening: &mut Opening, reporter: &Reporter) -> Result<u32> {
    for n in 0..reporter.greet {
        let text = format!(
            r#"{{"t":"state","n":{n},"set":{{"hall/lock":"locked","kitchen/light":{{"on":true}},"meter":{n}}}}}"#
        );
        opening.send(wire::TEXT, text.as_bytes()).await?;
        until(opening, br#"{"t":"ok""#).await?;
    }
    if !reporter.live {
        return Ok(0);
    }
    let open = br#"{"t":"open","n":1,"path":"d0","kind":"other","params":{}}"#;
    opening.send(wire::TEXT, open).await?;
    let ok = until(opening, br#"{"t":"ok""#).await?;
    let stream =
        wire::number_after(&ok, b"\"stream\":").with_context(|| format!("no stream at {}", world.address(id)))?;
    Ok(u32::try_from(stream)?)
}

async fn subscribe(world: &World, id: u32, opening: &mut Opening, watcher: &Watcher) -> Result<()> {
    world.clear_held(id);
    let text = format!(r#"{{"t":"subscribe","n":1,"to":"{}","lanes":["{}"]}}"#, watcher.to, watcher.lane);
    opening.send(wire::TEXT, text.as_bytes()).await?;
    until(opening, br#"{"t":"ok""#).await?;
    until(opening, br#"{"t":"synced""#).await?;
    Ok(())
}

/// Whose token.
pub(crate) enum Peer {
    Gateway(String),
    Client(u32),
}

/// A token as PROTOCOL.md says under "Tokens of your own".
pub(crate) fn token(tenant: &str, kid: &str, key: &str, peer: &Peer) -> Result<String> {
    let (iat, jti) = (unix_s(), now_us());
    let exp = iat + TTL_S;
    let (sub, rest) = match peer {
        Peer::Gateway(address) => (address.clone(), r#""peer":"gateway""#.to_owned()),
        Peer::Client(id) => (format!("load-{id}"), format!(r#""peer":"client","grants":{EVERYTHING}"#)),
    };
    let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
    let claims = format!(
        r#"{{"iss":"{tenant}","aud":"riser","sub":"{sub}",{rest},"iat":{iat},"exp":{exp},"jti":"{jti}-{sub}"}}"#
    );
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).context("a signing key of no length")?;
    mac.update(signed.as_bytes());
    Ok(format!("{signed}.{}", BASE64.encode(mac.finalize().into_bytes())))
}
