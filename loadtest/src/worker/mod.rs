//! A generator: one process with one thread that holds some thousand connections and does what it is told.
//!
//! Generators are processes so that each stays below the limit of open files, and so that what generating costs can be
//! read apart from what the server costs. Frames go out at moments that were fixed before; what comes back is measured
//! from those moments, so that a server that stalls is charged for everything that would have been sent meanwhile. How
//! late the generator itself was is counted beside it.

mod conn;
mod open;
pub(crate) mod order;
mod poll;
mod stores;
mod wire;
mod world;

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, yield_now};
use tokio::time::sleep;

use crate::clock::{Timer, now_us};
use order::{Order, Role, Schedule, Told};
use world::World;
pub(crate) use world::{add, histogram};

/// Between two looks at whether everything is answered.
const LOOK: Duration = Duration::from_millis(2);
/// How long connections may take to end when they leave.
const LEAVE: Duration = Duration::from_secs(30);
/// Between two words about how many connections are open.
const STEP: u32 = 250;

/// Runs a generator on standard input and output until its input ends.
pub(crate) fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let done = local.block_on(&runtime, run());
    // The reader of standard input is a thread that waits for a line which may never come.
    runtime.shutdown_background();
    done
}

async fn run() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    match serve(&mut lines).await {
        Ok(()) => Ok(()),
        Err(error) => tell(&Told::Failed(format!("{error:#}"))),
    }
}

async fn serve(lines: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    let Some(Order::Open(job)) = next(lines).await? else { bail!("the first order is to open") };
    let world = World::new(*job);
    if let Role::Poll { period_ms, keep_alive } = world.job.role {
        return poll::serve(&world, period_ms, keep_alive, lines).await;
    }
    if let Role::Answer | Role::Call(_) = world.job.role {
        return stores::serve(&world, lines).await;
    }
    open_all(&world, None, world.job.at_once).await?;
    loop {
        let told = match next(lines).await? {
            None => return Ok(()),
            Some(Order::Open(_)) => bail!("it is open already"),
            Some(Order::Go(schedule)) => go(&world, schedule).await?,
            Some(Order::Count) => Told::Count(world.counts.borrow().report.values),
            Some(Order::Pause(ms)) => {
                world.paused_until.set(now_us() + ms * 1_000);
                Told::Done
            }
            Some(Order::Leave { close }) => leave(&world, close).await?,
            Some(Order::Return) => {
                world.leaving.set(false);
                open_all(&world, Some(now_us()), u32::MAX).await?;
                Told::Done
            }
            Some(Order::Report) => Told::Report(Box::new(world.report())),
        };
        tell(&told)?;
    }
}

async fn next(lines: &mut Lines<BufReader<Stdin>>) -> Result<Option<Order>> {
    let line = lines.next_line().await.context("failed to read an order")?;
    line.map(|line| serde_json::from_str(&line).context("an order that is not understood")).transpose()
}

fn tell(told: &Told) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, told)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Opens all connections. Those that return tell how long it took each from `since_us` on.
async fn open_all(world: &Rc<World>, since_us: Option<u64>, at_once: u32) -> Result<()> {
    let places = Arc::new(Semaphore::new(at_once.min(1 << 20) as usize));
    let mut tasks = tokio::task::JoinSet::new();
    for place in 0..world.job.count {
        let (world, places) = (world.clone(), places.clone());
        tasks.spawn_local(async move {
            let _place = places.acquire_owned().await?;
            let conn = open::open(&world, place, since_us).await?;
            world.conns.borrow_mut()[place as usize] = Some(conn.clone());
            Ok::<_, anyhow::Error>((conn, place))
        });
    }
    let mut open = 0;
    while let Some(opened) = tasks.join_next().await {
        let (conn, place) = opened??;
        // It belongs to the generator's set, and ends with its connection or with the process.
        drop(tokio::task::spawn_local(conn.serve(world.clone(), place as usize)));
        open += 1;
        if open % STEP == 0 || open == world.job.count {
            tell(&Told::Opened(open))?;
        }
    }
    Ok(())
}

/// Sends what the schedule says, and waits for what is to come of it.
async fn go(world: &Rc<World>, schedule: Schedule) -> Result<Told> {
    let timer = Timer::new()?;
    let end = schedule.due(schedule.ticks);
    if schedule.closed {
        timer.until(schedule.start_us).await?;
        world.closed_until.set(end);
        for place in 0..world.job.count as usize {
            send(world, place, now_us());
        }
        timer.until(end).await?;
    } else {
        pace(&timer, &schedule, world.job.count, |place, due| send(world, place, due)).await?;
    }
    linger(world, &schedule).await;
    world.closed_until.set(0);
    Ok(Told::Done)
}

/// Does something at each moment of an open loop, for the connections in turn.
async fn pace(timer: &Timer, schedule: &Schedule, count: u32, mut act: impl FnMut(usize, u64)) -> Result<()> {
    for tick in 0..schedule.ticks {
        let due = schedule.due(tick);
        if now_us() < due {
            timer.until(due).await?;
        } else {
            // Who is late still reads.
            yield_now().await;
        }
        for i in 0..u64::from(schedule.burst) {
            let turn = tick * u64::from(schedule.burst) + i;
            act(usize::try_from(turn % u64::from(count.max(1)))?, due);
        }
    }
    Ok(())
}

/// Waits until everything is answered, for as long as the schedule says.
async fn linger(world: &World, schedule: &Schedule) {
    let until = now_us() + schedule.linger_ms * 1_000;
    while world.unanswered() > 0 && now_us() < until {
        sleep(LOOK).await;
    }
}

fn send(world: &World, place: usize, due_us: u64) {
    let conn = world.conns.borrow()[place].clone();
    let Some(conn) = conn else { return world.error("not connected") };
    let frame = world.next_frame(&conn, due_us);
    conn.send(world, &frame);
    let late = now_us().saturating_sub(due_us);
    world::record(&mut world.counts.borrow_mut().late, late);
}

async fn leave(world: &World, close: bool) -> Result<Told> {
    world.leaving.set(true);
    if close {
        let conns: Vec<_> = world.conns.borrow().iter().flatten().cloned().collect();
        for conn in &conns {
            conn.close(world);
        }
    }
    let until = now_us() + u64::try_from(LEAVE.as_micros()).unwrap_or(u64::MAX);
    while world.open() > 0 {
        if now_us() > until {
            bail!("{} connections do not end", world.open());
        }
        sleep(LOOK).await;
    }
    Ok(Told::Done)
}
