//! `command`: from a client's command to its final outcome, with gateways that carry it out at once. Open loop, and with
//! a number of commands that are always under way; gateways on the client's edge and on another one. An echo over TCP at
//! the same rate shows what the machine takes for two of the four ways.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Meter, OTHERS, reporter, schedule};
use crate::result::{Run, ratio};
use crate::server::Subject;
use crate::worker::order::Role;

/// A command's deadline: far longer than any takes.
const DEADLINE_MS: u32 = 10_000;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) gateways: u32,
    /// Commands in a second, in the open loop.
    pub(crate) per_second: f64,
    /// Commands under way, in the closed loop.
    pub(crate) in_flight: u32,
    pub(crate) seconds: f64,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for closed in [false, true] {
                for edges in [1, 2] {
                    bench.step(round, &format!("{name}, {}", variant(edges, closed)));
                    out.push(self.measure(bench, name, round, edges, closed).await?);
                }
            }
            bench.step(round, &format!("{name}, echo"));
            out.push(self.echo(bench, name, round).await?);
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, name: &str, round: u32, edges: u16, closed: bool) -> Result<Run> {
        let server = bench.programs.start(Subject::Riser, edges).await?;
        let mut gateways = bench.open(&server, 0, Role::Report(reporter()), self.gateways, 0).await?;
        let role = Role::Command { gateways: self.gateways, hold: false, deadline_ms: DEADLINE_MS };
        let clients = if closed { self.in_flight } else { 1 };
        let mut clients = bench.open(&server, usize::from(edges) - 1, role, clients, OTHERS).await?;
        let mut schedule = schedule(self.per_second, self.seconds, 1);
        schedule.closed = closed;
        let meter = Meter::begin(&server, &mut [&mut gateways, &mut clients])?;
        clients.go(schedule).await?;
        let (carried, decided) = (gateways.report().await?, clients.report().await?);
        let (cpu, generator) = meter.end(&server, &[&gateways, &clients], &decided.late)?;
        let mut run = Run::new(name, variant(edges, closed), "riser", round);
        run.take(&decided);
        run.figure("cpu_us_per_command", ratio(cpu, decided.answered));
        run.figure("commands_per_second", ratio(decided.answered, 1) / self.seconds);
        run.figure("undecided", ratio(decided.sent.saturating_sub(decided.answered), 1));
        for (what, count) in carried.errors {
            run.notes.push(format!("gateways: {count} × {what}"));
        }
        run.generator = Some(generator);
        Ok(run)
    }

    async fn echo(&self, bench: &Bench, name: &str, round: u32) -> Result<Run> {
        let server = bench.programs.start(Subject::Tcp, 1).await?;
        let mut clients = bench.open(&server, 0, Role::Report(reporter()), 1, 0).await?;
        let meter = Meter::begin(&server, &mut [&mut clients])?;
        clients.go(schedule(self.per_second, self.seconds, 1)).await?;
        let report = clients.report().await?;
        let (cpu, generator) = meter.end(&server, &[&clients], &report.late)?;
        let mut run = Run::new(name, "echo, open loop", Subject::Tcp.name(), round);
        run.take(&report);
        run.figure("cpu_us_per_command", ratio(cpu, report.answered));
        run.generator = Some(generator);
        Ok(run)
    }
}

fn variant(edges: u16, closed: bool) -> String {
    let edges = if edges == 1 { "same edge" } else { "two edges" };
    format!("{edges}, {} loop", if closed { "closed" } else { "open" })
}
