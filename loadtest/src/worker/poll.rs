//! Flats without a socket: each asks over HTTP, once in a period, which command is its newest.

use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use tokio::io::{BufReader, Lines, Stdin};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep_until};

use super::conn::Opening;
use super::open::{self, Peer};
use super::order::{Dialect, Order, Told};
use super::wire;
use super::world::{PER_US, World};

/// Serves orders while flats ask.
pub(crate) async fn serve(
    world: &Rc<World>,
    period_ms: u32,
    keep_alive: bool,
    lines: &mut Lines<BufReader<Stdin>>,
) -> Result<()> {
    let mut flats = tokio::task::JoinSet::new();
    for place in 0..world.job.count {
        flats.spawn_local(flat(world.clone(), world.job.first + place, period_ms, keep_alive));
    }
    super::tell(&Told::Opened(world.job.count))?;
    while let Some(order) = super::next(lines).await? {
        super::tell(&match order {
            Order::Count => Told::Count(world.counts.borrow().report.values),
            Order::Report => Told::Report(Box::new(world.report())),
            order => bail!("flats that ask do not {order:?}"),
        })?;
    }
    Ok(())
}

async fn flat(world: Rc<World>, id: u32, period_ms: u32, keep_alive: bool) {
    let mut last = 0;
    let mut stream = None;
    let period = Duration::from_millis(u64::from(period_ms));
    // Flats do not ask in step.
    let mut due = Instant::now() + period.mul_f64(fastrand::f64());
    let Ok(token) = token(&world, id) else { return world.error("no token") };
    loop {
        sleep_until(due).await;
        due += period;
        world.counts.borrow_mut().report.sent += 1;
        match ask(&world, id, &token, keep_alive, &mut stream).await {
            Ok(newest) => {
                world.counts.borrow_mut().report.answered += 1;
                if newest > last {
                    last = newest;
                    world.came(newest);
                }
            }
            Err(error) => {
                stream = None;
                world.error(&format!("{error:#}"));
            }
        }
    }
}

fn token(world: &World, id: u32) -> Result<String> {
    let Dialect::Riser { tenant, kid, key } = &world.job.dialect else { bail!("only Riser is asked") };
    open::token(tenant, kid, key, &Peer::Client(id))
}

/// Asks once. Gives the number in the newest command, or nothing.
async fn ask(world: &World, id: u32, token: &str, keep_alive: bool, kept: &mut Option<TcpStream>) -> Result<u64> {
    let stream = match kept.take() {
        Some(stream) => stream,
        None => open::dial(world.at(id)?, id).await?,
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let request = format!(
        "GET /v1/commands?to={}&limit=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Connection: {connection}\r\n\r\n",
        world.address(id)
    );
    let mut opening = Opening { stream, left: Vec::new() };
    opening.write(request.as_bytes()).await?;
    let head = opening.head().await?;
    let length: usize =
        wire::header(&head, "content-length").and_then(|length| length.parse().ok()).context("no length")?;
    while opening.left.len() < length {
        opening.more().await?;
    }
    {
        let bytes = &mut world.counts.borrow_mut().report.bytes;
        bytes[0] += (head.len() + opening.left.len()) as u64;
        bytes[1] += request.len() as u64;
    }
    if wire::status(&head) != 200 {
        bail!("answered with {}", wire::status(&head));
    }
    if keep_alive {
        *kept = Some(opening.stream);
    }
    Ok(wire::number_after(&opening.left, br#""action":"t"#).unwrap_or(0))
}

impl World {
    /// A command was seen for the first time.
    fn came(&self, n: u64) {
        let mut counts = self.counts.borrow_mut();
        counts.report.values += 1;
        super::world::record(&mut counts.latency, crate::clock::now_us().saturating_sub(n / PER_US));
    }
}
