//! `riser dev`: a whole cluster in one process, on the memory twins of everything that it needs.

mod cluster;
mod ready;

use std::process::ExitCode;
use std::time::Duration;

use riser_client::Endpoint;
use riser_ops::Signals;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{interval, timeout};

use crate::cli::Dev;
use crate::exit::{self, Failure};
use crate::sim;
use cluster::Cluster;
use ready::Ready;

/// How long a cluster in memory may take to serve. It takes milliseconds.
const START_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at whether it serves.
const LOOK: Duration = Duration::from_millis(5);
/// How long what is left of a cluster that was ended at once may take.
const LEFTOVERS_WAIT: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &Dev) -> Result<ExitCode, Failure> {
    args.log.begin()?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(args));
    end(runtime);
    done
}

fn end(runtime: Runtime) {
    // What is still running holds nothing that is worth waiting for.
    runtime.shutdown_timeout(LEFTOVERS_WAIT);
}

async fn serve(args: &Dev) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let cluster = Cluster::start(args).await?;
    if let Some(file) = &args.ready_file {
        // One that an earlier run left behind would be taken for this one's. There is none in most cases.
        let _ = std::fs::remove_file(file);
    }
    let started = tokio::select! {
        started = timeout(START_WAIT, serving(|| cluster.readiness())) => started,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    started.map_err(|_| Failure::Unavailable("the cluster in memory does not become ready".into()))?;
    let ready = Ready::of(&cluster)?;
    let building = building(args, &cluster, &ready)?;
    if let Some(file) = &args.ready_file {
        ready.write(file)?;
    }
    exit::print(&ready.banner(args))?;
    signals.next().await;
    drop(building);
    let code = tokio::select! {
        biased;
        _ = signals.next() => ExitCode::from(exit::INTERRUPTED),
        () = cluster.drain() => ExitCode::SUCCESS,
    };
    if let Some(file) = &args.ready_file {
        // Its keys are of no use any more. Whoever has taken it away already was right to.
        let _ = std::fs::remove_file(file);
    }
    Ok(code)
}

async fn serving(readiness: impl Fn() -> Result<(), String>) {
    let mut looks = interval(LOOK);
    while readiness().is_err() {
        looks.tick().await;
    }
}

fn building(args: &Dev, cluster: &Cluster, ready: &Ready) -> Result<sim::Building, Failure> {
    let endpoint = |url: &String| -> Result<Endpoint, Failure> {
        url.parse().map_err(|error| Failure::Other(anyhow::Error::new(error)))
    };
    let plan = sim::Plan {
        endpoints: ready.http.iter().map(endpoint).collect::<Result<_, _>>()?,
        key: cluster.key(),
        building: sim::DEV_BUILDING.parse().map_err(anyhow::Error::new)?,
        flats: args.flats,
        seed: fastrand::u64(..),
    };
    sim::Building::start(&plan)
}
