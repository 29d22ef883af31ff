//! `noisy`: gateways that send far more than they may, beside quiet ones. What the quiet ones see is measured alone and
//! beside the noise. `riser dev` has one tenant: here the noise is another building of the same tenant, which shares with
//! the quiet one even what tenants have apart.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, DELIVERY, LISTENERS, Meter, OTHERS, arrived, reporter, schedule, watcher};
use crate::result::{Run, ratio};
use crate::server::Subject;
use crate::worker::order::{Reporter, Role};

/// The noisy building.
const BUILDING: u32 = 500;
/// How much longer there is noise than quiet, in seconds: it begins first and ends last.
const AROUND_S: f64 = 1.0;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Quiet gateways.
    pub(crate) gateways: u32,
    /// Their frames in a second.
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    /// Noisy gateways.
    pub(crate) noisy_gateways: u32,
    /// Their frames in a second. An edge reads 2 000 of each.
    pub(crate) noisy_per_second: f64,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for noise in [false, true] {
                let variant = if noise { "beside noise" } else { "alone" };
                bench.step(round, &format!("{name}, {variant}"));
                let mut run = Run::new(name, variant, "riser", round);
                self.measure(bench, noise, &mut run).await?;
                out.push(run);
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, noise: bool, run: &mut Run) -> Result<()> {
        let server = bench.programs.start(Subject::Riser, 1).await?;
        let role = Reporter { per_building: 1_000, building: BUILDING, ..reporter() };
        let noisy = if noise { self.noisy_gateways } else { 0 };
        let mut loud = bench.open(&server, 0, Role::Report(role), noisy, OTHERS).await?;
        let mut quiet = bench.open(&server, 0, Role::Report(reporter()), self.gateways, 0).await?;
        let mut board = bench.open(&server, 0, Role::Watch(watcher("b0/*")), 1, LISTENERS).await?;
        let meter = Meter::begin(&server, &mut [&mut loud, &mut quiet, &mut board])?;
        let mut flood = schedule(self.noisy_per_second, self.seconds + 2.0 * AROUND_S, 1);
        flood.linger_ms = 0;
        let mut calm = schedule(self.per_second, self.seconds, 1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let around = (AROUND_S * 1e6) as u64;
        calm.start_us += around;
        if noise {
            both(loud.go(flood), quiet.go(calm)).await?;
        } else {
            quiet.go(calm).await?;
        }
        let shown = arrived(&mut board, calm.ticks, DELIVERY).await?;
        let (sent, seen, flood) = (quiet.report().await?, board.report().await?, loud.report().await?);
        let (cpu, generator) = meter.end(&server, &[&loud, &quiet, &board], &sent.late)?;
        run.take(&seen);
        run.figure("not_shown", ratio(calm.ticks.saturating_sub(shown), 1));
        run.figure("server_cores", ratio(cpu, 1_000_000) / (self.seconds + 2.0 * AROUND_S));
        run.figure("noise_sent", ratio(flood.sent, 1));
        run.figure("noise_answered", ratio(flood.answered, 1));
        run.figure("noise_refused", ratio(flood.errors.values().sum(), 1));
        run.figure("unanswered", ratio(sent.sent - sent.answered.min(sent.sent), 1));
        run.generator = Some(generator);
        Ok(())
    }
}

/// Both at once. The first error ends both.
async fn both(a: impl Future<Output = Result<()>>, b: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::try_join!(a, b).map(|_| ())
}
