//! What is behind a cluster's edges, measured without them: the baselines of `state` and `command`. They are called on the
//! NATS and the Redis that the edges have just used, at the same moments.

use anyhow::{Context as _, Result};

use super::{Bench, Meter, schedule};
use crate::result::{Run, ratio};
use crate::server::{Server, Subject};
use crate::worker::order::{Call, Role, Script};

/// A baseline: its variant, and what is called.
pub(super) type Part = (&'static str, Call);

/// The sending that a baseline has in common with what it is compared with.
pub(super) struct Pace {
    pub(super) gateways: u32,
    pub(super) per_second: f64,
    pub(super) seconds: f64,
    /// Seconds before, in which everything is called once that is slower at first. What was measured then is forgotten.
    pub(super) warm_s: f64,
}

/// A request and its reply, and a script before it.
pub(super) const fn both(script: Script) -> Call {
    Call { script: Some(script), asks: true }
}

/// Measures a baseline.
pub(super) async fn measure(
    bench: &Bench,
    server: &Server,
    pace: &Pace,
    (variant, call): Part,
    (name, round): (&str, u32),
) -> Result<Run> {
    let stores = server.stores().context("only a cluster that was started here has stores that can be called")?;
    let _answers = bench.fleet(Vec::new(), &stores, Role::Answer, 1, 0).await?;
    let mut callers = bench.fleet(Vec::new(), &stores, Role::Call(call), pace.gateways, 0).await?;
    callers.go(schedule(pace.per_second, pace.warm_s, 1)).await?;
    callers.report().await?;
    let behind = server.stores_cpu_us()?;
    let meter = Meter::begin(server, &mut [&mut callers])?;
    callers.go(schedule(pace.per_second, pace.seconds, 1)).await?;
    let report = callers.report().await?;
    let (_, generator) = meter.end(server, &[&callers], &report.late)?;
    let behind = server.stores_cpu_us()?.saturating_sub(behind);
    let mut run = Run::new(name, variant, Subject::Stores.name(), round);
    run.take(&report);
    run.figure("stores_cpu_us_per_frame", ratio(behind, report.answered));
    run.figure("unanswered", ratio(report.sent.saturating_sub(report.answered), 1));
    run.generator = Some(generator);
    Ok(run)
}
