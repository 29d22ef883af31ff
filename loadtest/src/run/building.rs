//! `building`: a building as it is, with its flats, their devices, and dashboards that watch all of it.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, DELIVERY, LISTENERS, Meter, arrived, reporter, schedule, watcher};
use crate::result::{Latency, Run, ratio};
use crate::worker::order::{Reporter, Role};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) flats: u32,
    pub(crate) devices: u32,
    pub(crate) dashboards: u32,
    /// Values of all devices in a second.
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    /// Edges; flats are on the first, dashboards on the last.
    pub(crate) edges: u16,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            let variant = format!("{} × {} × {}", self.flats, self.devices, self.dashboards);
            bench.step(round, &format!("{name}, {variant}"));
            let server = bench.riser(self.edges).await?;
            let role = Reporter { devices: self.devices, per_building: self.flats, ..reporter() };
            let mut flats = bench.open(&server, 0, Role::Report(role), self.flats, 0).await?;
            let role = Role::Watch(watcher("b0/*"));
            let mut boards = bench.open(&server, server.at.len() - 1, role, self.dashboards, LISTENERS).await?;
            let schedule = schedule(self.per_second, self.seconds, 1);
            let meter = Meter::begin(&server, &mut [&mut flats, &mut boards])?;
            flats.go(schedule).await?;
            let expected = schedule.ticks * u64::from(self.dashboards);
            let values = arrived(&mut boards, expected, DELIVERY).await?;
            let (sent, shown) = (flats.report().await?, boards.report().await?);
            let (cpu, generator) = meter.end(&server, &[&flats, &boards], &sent.late)?;
            let mut run = bench.run_of_riser(name, variant, round);
            run.take(&shown);
            run.figure("cpu_us_per_frame", ratio(cpu, sent.sent));
            run.figure("cpu_us_per_delivery", ratio(cpu, values));
            run.figure("not_shown", ratio(expected.saturating_sub(values), 1));
            if let Some(ok) = Latency::of(&sent.latency) {
                run.figure("ok_p99_us", ratio(ok.at(0.99), 1));
            }
            run.generator = Some(generator);
            out.push(run);
        }
        Ok(())
    }
}
