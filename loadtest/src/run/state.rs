//! `state`: one value from a gateway's socket to a dashboard's, over two edges on NATS and Redis; and what a request
//! through the same NATS and the same script in the same Redis take without edges, alone and one after the other. The
//! loops are open, and all of it is measured in every round. An echo over TCP shows what the machine takes at best.

use anyhow::Result;
use serde::Deserialize;

use super::stores::{self, Pace, Part, both};
use super::{Bench, DELIVERY, LISTENERS, Meter, arrived, reporter, schedule, watcher};
use crate::result::{Latency, Run, ratio};
use crate::server::{Server, Subject};
use crate::worker::order::{Call, Role, Script};

/// The baselines; the budget takes the one that is called [`BOTH`].
pub(super) const PARTS: [Part; 3] = [
    ("request and reply", Call { script: None, asks: true }),
    ("script", Call { script: Some(Script::State), asks: false }),
    (BOTH, both(Script::State)),
];
/// What stands against a value over two edges.
pub(crate) const BOTH: &str = "script, then request and reply";
/// A value over two edges.
pub(crate) const TWO_EDGES: &str = "two edges";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) gateways: u32,
    /// Frames of all of them in a second.
    pub(crate) per_second: f64,
    /// Seconds before, which are not measured.
    pub(crate) warm_s: f64,
    pub(crate) seconds: f64,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        let subject = bench.programs.clustered();
        for round in 1..=bench.rounds {
            if bench.programs.missing(subject).is_none() {
                bench.step(round, &format!("{name}, {TWO_EDGES}"));
                let server = bench.programs.start(subject, 2).await?;
                let mut run = Run::new(name, TWO_EDGES, subject.name(), round);
                self.measure(bench, &server, &mut run).await?;
                out.push(run);
                let parts: &[Part] = if server.stores().is_some() { &PARTS } else { &[] };
                for part in parts {
                    bench.step(round, &format!("{name}, {}", part.0));
                    out.push(stores::measure(bench, &server, &self.pace(), *part, (name, round)).await?);
                }
            }
            bench.step(round, &format!("{name}, echo"));
            out.push(self.echo(bench, name, round).await?);
        }
        Ok(())
    }

    fn pace(&self) -> Pace {
        let Self { gateways, per_second, warm_s, seconds } = *self;
        Pace { gateways, per_second, seconds, warm_s }
    }

    async fn measure(&self, bench: &Bench, server: &Server, run: &mut Run) -> Result<()> {
        let mut gateways = bench.open(server, 0, Role::Report(reporter()), self.gateways, 0).await?;
        let mut board = bench.open(server, 1, Role::Watch(watcher("b0/*")), 1, LISTENERS).await?;
        let warm = schedule(self.per_second, self.warm_s, 1);
        gateways.go(warm).await?;
        arrived(&mut board, warm.ticks, DELIVERY).await?;
        gateways.report().await?;
        board.report().await?;
        let schedule = schedule(self.per_second, self.seconds, 1);
        let behind = server.stores_cpu_us()?;
        let meter = Meter::begin(server, &mut [&mut gateways, &mut board])?;
        gateways.go(schedule).await?;
        let shown = arrived(&mut board, schedule.ticks, DELIVERY).await?;
        let (sent, seen) = (gateways.report().await?, board.report().await?);
        let (cpu, generator) = meter.end(server, &[&gateways, &board], &sent.late)?;
        let behind = server.stores_cpu_us()?.saturating_sub(behind);
        run.take(&seen);
        run.figure("cpu_us_per_frame", ratio(cpu, sent.sent));
        run.figure("stores_cpu_us_per_frame", ratio(behind, sent.sent));
        run.figure("not_shown", ratio(schedule.ticks.saturating_sub(shown), 1));
        if let Some(ok) = Latency::of(&sent.latency) {
            run.figure("ok_p99_us", ratio(ok.at(0.99), 1));
        }
        run.generator = Some(generator);
        Ok(())
    }

    async fn echo(&self, bench: &Bench, name: &str, round: u32) -> Result<Run> {
        let server = bench.programs.start(Subject::Tcp, 1).await?;
        let mut senders = bench.open(&server, 0, Role::Report(reporter()), self.gateways, 0).await?;
        senders.go(schedule(self.per_second, self.warm_s, 1)).await?;
        senders.report().await?;
        let meter = Meter::begin(&server, &mut [&mut senders])?;
        senders.go(schedule(self.per_second, self.seconds, 1)).await?;
        let report = senders.report().await?;
        let (cpu, generator) = meter.end(&server, &[&senders], &report.late)?;
        let mut run = Run::new(name, "echo", Subject::Tcp.name(), round);
        run.take(&report);
        run.figure("cpu_us_per_frame", ratio(cpu, report.answered));
        run.generator = Some(generator);
        Ok(run)
    }
}
