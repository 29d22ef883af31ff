//! `slow`: listeners that stop reading under a stream of updates. The server's memory must stay bounded, others must not
//! notice, and who reads again must end with the last values.

use std::cell::Cell;

use anyhow::Result;
use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep};

use super::{Bench, DELIVERY, LISTENERS, Meter, OTHERS, arrived, reporter, schedule, watcher};
use crate::fleet::Fleet;
use crate::result::{Run, ratio};
use crate::server::Server;
use crate::worker::order::{Order, Report, Reporter, Role, Watcher};

/// How long those who read again may take to be told the last values.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Between two looks at the server's memory or at what listeners have.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) gateways: u32,
    pub(crate) devices: u32,
    /// Values of all devices in a second.
    pub(crate) per_second: f64,
    /// How long nothing is read.
    pub(crate) seconds: f64,
    /// Listeners that stop, and those that go on.
    pub(crate) stopped: u32,
    pub(crate) reading: u32,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            let variant = format!("{} stop for {} s", self.stopped, self.seconds);
            bench.step(round, &format!("{name}, {variant}"));
            let mut run = bench.run_of_riser(name, variant, round);
            self.measure(bench, &mut run).await?;
            out.push(run);
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, run: &mut Run) -> Result<()> {
        let server = bench.riser(1).await?;
        let role = Reporter { devices: self.devices, per_building: self.gateways, ..reporter() };
        let mut gateways = bench.spread(&server, Role::Report(role), self.gateways, 0).await?;
        let listener = Role::Watch(Watcher { track: true, ..watcher("b0/*") });
        let mut reading = bench.spread(&server, Role::Watch(watcher("b0/*")), self.reading, LISTENERS).await?;
        let mut stopped = bench.spread(&server, listener, self.stopped, OTHERS).await?;
        let before = server.cost()?.pss;
        let schedule = schedule(self.per_second, self.seconds, 1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        stopped.all(&Order::Pause((self.seconds * 1_000.0) as u64 + 200)).await?;
        let meter = Meter::begin(&server, &mut [&mut gateways, &mut reading, &mut stopped])?;
        let peak = Cell::new(before);
        watching(gateways.go(schedule), &server, &peak).await?;
        let sent = gateways.report().await?;
        let shown = arrived(&mut reading, schedule.ticks * u64::from(self.reading), DELIVERY).await?;
        let others = reading.report().await?;
        let (late, wrong) = self.caught_up(&mut stopped, &sent).await?;
        let (cpu, generator) = meter.end(&server, &[&gateways, &reading, &stopped], &sent.late)?;
        run.take(&others);
        run.figure("cpu_us_per_frame", ratio(cpu, sent.sent));
        run.figure("peak_bytes_per_stopped", ratio(peak.get().saturating_sub(before), u64::from(self.stopped)));
        run.figure("last_values_wrong", ratio(wrong, 1));
        run.figure("caught_up_after_ms", ratio(late.1, 1));
        run.figure("values_shown_to_stopped", ratio(late.0, 1));
        run.figure("not_shown_to_reading", ratio((schedule.ticks * u64::from(self.reading)).saturating_sub(shown), 1));
        run.generator = Some(generator);
        Ok(())
    }

    /// Waits until listeners have the last values. Gives how many values came and after how many milliseconds, and how
    /// many last values are wrong in the end.
    async fn caught_up(&self, stopped: &mut Fleet, sent: &Report) -> Result<((u64, u64), u64)> {
        let began = Instant::now();
        let mut values = 0;
        loop {
            let report = stopped.report().await?;
            values += report.values;
            let differ: u64 = report.errors.values().sum();
            let wrong = sent.last.iter().filter(|(path, value)| report.last.get(*path) != Some(value)).count() as u64;
            let passed = began.elapsed();
            if wrong + differ + report.lost == 0 || passed > CATCH_UP {
                let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
                return Ok(((values, ms), wrong + differ + report.lost));
            }
            sleep(LOOK).await;
        }
    }
}

/// Keeps the greatest memory that a server has while something is done.
async fn watching(what: impl Future<Output = Result<()>>, server: &Server, peak: &Cell<u64>) -> Result<()> {
    let mut what = std::pin::pin!(what);
    loop {
        peak.set(peak.get().max(server.cost()?.pss));
        tokio::select! {
            done = &mut what => return done,
            () = sleep(LOOK) => {}
        }
    }
}
