//! The simulated building: flats that are real gateway sessions, with rates and jitter like a home's, that do what they
//! are told to and ring their doorbells.

mod flat;
mod home;
mod life;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use riser_client::{Api, Endpoint};
use riser_core::frame::Credential;
use riser_core::{Address, BuildingId};
use riser_ops::Signals;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cli::Sim;
use crate::exit::{self, Failure};
use flat::{Board, Flat};

/// Flats on one floor.
const FLOOR: u16 = 4;
/// How long the goodbyes of all flats may take.
const GOODBYE_WAIT: Duration = Duration::from_secs(5);
/// Between two progress lines on a terminal, and elsewhere.
const PROGRESS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A building to simulate.
pub(crate) struct Plan {
    /// The flats are spread over these.
    pub(crate) endpoints: Vec<Endpoint>,
    /// An API key that tokens are made with.
    pub(crate) key: Credential,
    /// The building's name.
    pub(crate) building: BuildingId,
    /// How many flats.
    pub(crate) flats: u16,
    /// The same seed makes the same homes.
    pub(crate) seed: u64,
}

/// A building that lives. Dropping it cuts all its links.
pub(crate) struct Building {
    flats: JoinSet<()>,
    board: Arc<Board>,
    leave: watch::Sender<bool>,
}

impl Building {
    /// Moves everybody in, spread over a second.
    pub(crate) fn start(plan: &Plan) -> Result<Self, Failure> {
        let board = Arc::new(Board::new(usize::from(plan.flats)));
        let leave = watch::Sender::new(false);
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let mut flats = JoinSet::new();
        for (i, endpoint) in (0..plan.flats).zip(plan.endpoints.iter().cycle()) {
            let flat = Flat {
                number: usize::from(i),
                address: address(&plan.building, i)?,
                endpoint: endpoint.clone(),
                api: Api::new(endpoint.clone(), plan.key.clone()),
                board: board.clone(),
                leave: leave.subscribe(),
            };
            flats.spawn(flat.live(rng.fork()));
        }
        Ok(Self { flats, board, leave })
    }

    /// All flats say goodbye.
    async fn close(mut self) {
        self.leave.send_replace(true);
        let gone = async { while self.flats.join_next().await.is_some() {} };
        // Who does not get a word out in time is cut off.
        let _ = timeout(GOODBYE_WAIT, gone).await;
    }
}

/// The name of the building in `riser dev`.
pub(crate) const DEV_BUILDING: &str = "b1";

/// Floor and flat, counted from 1: `f0101`, `f0102`, … `f0201`.
fn address(building: &BuildingId, i: u16) -> Result<Address, Failure> {
    let gateway = format!("f{:02}{:02}", i / FLOOR + 1, i % FLOOR + 1);
    let parse = || Address::new(building.clone(), gateway.parse()?);
    Ok(parse().map_err(anyhow::Error::new)?)
}

/// Runs `riser sim`.
pub(crate) fn run(args: &Sim) -> Result<ExitCode, Failure> {
    args.log.begin()?;
    let key = args.cluster.credential()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let plan = Plan {
            endpoints: vec![args.cluster.url.clone()],
            key: key.clone(),
            building: args.building.clone(),
            flats: args.flats,
            seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        };
        // Asked once by itself: whatever stands in the way of all is said at once, and once.
        let first = address(&args.building, 0)?;
        let asked = Api::new(args.cluster.url.clone(), key);
        tokio::select! {
            minted = asked.gateway_token(&first, Some(60)) => drop(minted?),
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
        let mut building = Building::start(&plan)?;
        let refused = tokio::select! {
            _ = signals.next() => false,
            refused = watched(&mut building, args.flats) => refused,
        };
        if std::io::stdout().is_terminal() {
            // The progress line ends here.
            exit::print("\n")?;
        }
        building.close().await;
        if refused {
            Err(Failure::Denied("the cluster turned all flats away for good".into()))
        } else {
            Ok(ExitCode::SUCCESS)
        }
    })
}

/// Says now and then how the building is. Ready when every flat has given up (true) or nobody reads it (false).
async fn watched(building: &mut Building, flats: u16) -> bool {
    let terminal = std::io::stdout().is_terminal();
    let mut ticks = interval(if terminal { PROGRESS.0 } else { PROGRESS.1 });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            gone = building.flats.join_next() => if gone.is_none() { return true },
            _ = ticks.tick() => {
                let (online, changes) = (building.board.online(), building.board.changes());
                let line = format!("{online} of {flats} flats online, {changes} changes stored");
                let line = if terminal { format!("\r{line}\u{1b}[K") } else { format!("{line}\n") };
                if !exit::print(&line).unwrap_or(false) {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flats_are_numbered_by_floor() {
        let building: BuildingId = "b1".parse().expect("a building");
        let name = |i| address(&building, i).expect("an address").to_string();
        assert_eq!([name(0), name(3), name(4), name(1_999)], ["b1/f0101", "b1/f0104", "b1/f0201", "b1/f50004"]);
    }
}
