//! The scenarios. Each interleaves its subjects in every round, so that what the machine does meanwhile meets all alike.

mod building;
pub(crate) mod command;
mod fanout;
mod idle;
mod ingest;
pub(crate) mod noisy;
mod poll;
mod slow;
pub(crate) mod state;
mod stores;
mod storm;

use std::net::SocketAddr;

use anyhow::Result;
use serde::Deserialize;
use tokio::time::{Duration, sleep};

use crate::clock::now_us;
use crate::fleet::Fleet;
use crate::progress::Progress;
use crate::result::{Generator, Run, ratio};
use crate::server::{Programs, Server, Subject};
use crate::worker::add;
use crate::worker::order::{Dialect, Job, Report, Reporter, Role, Schedule, Watcher};

pub(crate) use idle::registry_share;

/// From the order to the first tick: generators must have read it.
const AHEAD_US: u64 = 100_000;
/// How long deliveries may take to come after the last frame was sent.
const DELIVERY: Duration = Duration::from_secs(20);
/// Between two counts of deliveries.
const LOOK: Duration = Duration::from_millis(50);
/// Connections that a generator opens at once.
const AT_ONCE: u32 = 200;
/// How long answers may take after the last frame was sent, in milliseconds.
const LINGER_MS: u64 = 10_000;

/// A scenario with its parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Plan {
    /// Memory of sessions at rest.
    Idle(idle::Params),
    /// Frames from gateways to the store.
    Ingest(ingest::Params),
    /// One frame to many.
    Fanout(fanout::Params),
    /// One value to one dashboard, over two edges.
    State(state::Params),
    /// Flats and dashboards as they are.
    Building(building::Params),
    /// Commands and their outcomes.
    Command(command::Params),
    /// All come back at once.
    Storm(storm::Params),
    /// Listeners that stop reading.
    Slow(slow::Params),
    /// A neighbour that sends too much.
    Noisy(noisy::Params),
    /// Flats that ask instead of listening.
    Poll(poll::Params),
}

impl Plan {
    /// Runs it. What was measured before an error is in `out` all the same.
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        match self {
            Self::Idle(params) => params.run(bench, name, out).await,
            Self::Ingest(params) => params.run(bench, name, out).await,
            Self::Fanout(params) => params.run(bench, name, out).await,
            Self::State(params) => params.run(bench, name, out).await,
            Self::Building(params) => params.run(bench, name, out).await,
            Self::Command(params) => params.run(bench, name, out).await,
            Self::Storm(params) => params.run(bench, name, out).await,
            Self::Slow(params) => params.run(bench, name, out).await,
            Self::Noisy(params) => params.run(bench, name, out).await,
            Self::Poll(params) => params.run(bench, name, out).await,
        }
    }

    /// How many measurements one round has at most.
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::Idle(params) => params.subjects.len(),
            Self::Ingest(params) => params.subjects.len() + params.idle.len(),
            Self::Fanout(params) => params.listeners.len() * (params.subjects.len() + 1),
            Self::State(_) => 2 + state::PARTS.len(),
            Self::Command(_) => 6 + command::PARTS.len(),
            Self::Storm(_) | Self::Noisy(_) => 2,
            Self::Building(_) | Self::Slow(_) => 1,
            Self::Poll(params) => params.periods_s.len() + 1,
        }
    }
}

/// What scenarios run with.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Where the servers' programs are.
    pub(crate) programs: Programs,
    /// Where to tell how far it is.
    pub(crate) progress: Progress,
    /// How often everything is measured.
    pub(crate) rounds: u32,
}

impl Bench {
    /// Those of the subjects that are there, with Riser in the way in which it is measured.
    fn present<'a>(&'a self, subjects: &'a [Subject]) -> impl Iterator<Item = Subject> + 'a {
        let way = |subject| if subject == Subject::Riser { self.programs.ours() } else { subject };
        subjects.iter().copied().map(way).filter(|subject| self.programs.missing(*subject).is_none())
    }

    /// Riser, with so many edges at least.
    async fn riser(&self, edges: u16) -> Result<Server> {
        self.programs.start(self.programs.ours(), edges).await
    }

    /// An empty measurement of Riser.
    fn run_of_riser(&self, scenario: &str, variant: impl Into<String>, round: u32) -> Run {
        Run::new(scenario, variant, self.programs.ours().name(), round)
    }

    fn step(&self, round: u32, text: &str) {
        self.progress.step(&format!("round {round}: {text}"));
    }

    /// Generators at one edge.
    async fn open(&self, server: &Server, edge: usize, role: Role, count: u32, first: u32) -> Result<Fleet> {
        self.fleet(vec![server.at[edge]], &server.dialect, role, count, first).await
    }

    /// Generators whose connections go to all edges in turn.
    async fn spread(&self, server: &Server, role: Role, count: u32, first: u32) -> Result<Fleet> {
        self.fleet(server.at.clone(), &server.dialect, role, count, first).await
    }

    async fn fleet(&self, at: Vec<SocketAddr>, dialect: &Dialect, role: Role, count: u32, first: u32) -> Result<Fleet> {
        let job = Job { at, dialect: dialect.clone(), role, count, first, at_once: AT_ONCE };
        Fleet::open(job, &self.progress).await
    }
}

/// The first connection's number of each kind, so that names and source addresses differ.
const LISTENERS: u32 = 100_000;
/// See [`LISTENERS`].
const OTHERS: u32 = 200_000;
/// See [`LISTENERS`].
const RESTING: u32 = 300_000;

/// A reporter of Riser's that does nothing special.
fn reporter() -> Reporter {
    Reporter { per_building: 200, building: 0, greet: 0, devices: 1, live: false, events: false, acknowledged: true }
}

/// Listeners to state.
fn watcher(to: &str) -> Watcher {
    Watcher { to: to.into(), lane: "state".into(), track: false }
}

/// A schedule that begins soon.
fn schedule(ticks_per_second: f64, seconds: f64, burst: u32) -> Schedule {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ticks = (ticks_per_second * seconds).round().max(1.0) as u64;
    Schedule { start_us: now_us() + AHEAD_US, ticks_per_second, ticks, burst, closed: false, linger_ms: LINGER_MS }
}

/// What a stretch of a run cost the server and the generators.
struct Meter {
    cpu_us: u64,
    since_us: u64,
}

impl Meter {
    fn begin(server: &Server, fleets: &mut [&mut Fleet]) -> Result<Self> {
        for fleet in fleets {
            fleet.begin()?;
        }
        Ok(Self { cpu_us: server.cpu_us()?, since_us: now_us() })
    }

    /// The server's CPU time so far, in cores.
    fn rate(&self, server: &Server) -> Result<f64> {
        Ok(ratio(server.cpu_us()?.saturating_sub(self.cpu_us), now_us() - self.since_us))
    }

    /// CPU of the server in microseconds, and what the generators say.
    fn end(&self, server: &Server, fleets: &[&Fleet], late: &[(u64, u64)]) -> Result<(u64, Generator)> {
        let wall = now_us() - self.since_us;
        let spent = fleets.iter().map(|fleet| fleet.spent_us()).sum::<Result<u64>>()?;
        let processes = fleets.iter().map(|fleet| fleet.processes()).sum();
        Ok((server.cpu_us()?.saturating_sub(self.cpu_us), Generator::of(spent, wall, processes, late)))
    }
}

/// Waits until so many values came, or until no more come. Gives how many came.
async fn arrived(fleet: &mut Fleet, expected: u64, wait: Duration) -> Result<u64> {
    let until = now_us() + u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    loop {
        let values = fleet.values().await?;
        if values >= expected || now_us() > until {
            return Ok(values);
        }
        sleep(LOOK).await;
    }
}

/// The sum of several reports.
fn together(reports: impl IntoIterator<Item = Report>) -> Report {
    let mut sum = Report::default();
    reports.into_iter().for_each(|report| add(&mut sum, report));
    sum
}
