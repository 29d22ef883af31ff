//! `command`: from a client's command to its final outcome, with gateways that carry it out at once. Open loop, and with
//! a number of commands that are always under way; gateways on the client's edge and on another one. Over two edges on
//! NATS and Redis there stands beside it what a request through that NATS and a record in that Redis take without edges.
//! An echo over TCP at the same rate shows what the machine takes for two of the four ways.

use anyhow::Result;
use serde::Deserialize;

use super::stores::{self, Pace, Part, both};
use super::{Bench, Meter, OTHERS, reporter, schedule};
use crate::result::{Run, ratio};
use crate::server::{Server, Subject};
use crate::worker::order::{Role, Script};

/// A command's deadline: far longer than any takes.
const DEADLINE_MS: u32 = 10_000;
/// The baselines; the budget takes the first.
pub(super) const PARTS: [Part; 2] = [(LOOK, both(Script::Look)), (RECORD, both(Script::Record))];
/// One call of one script of the record.
pub(crate) const LOOK: &str = "one call, then request and reply";
/// A new record, which is two calls.
pub(crate) const RECORD: &str = "new record, then request and reply";
/// The variant that has a budget.
pub(crate) const TWO_EDGES: &str = "two edges, open loop";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) gateways: u32,
    /// Commands in a second, in the open loop.
    pub(crate) per_second: f64,
    /// Commands under way, in the closed loop.
    pub(crate) in_flight: u32,
    /// Seconds before, which are not measured.
    pub(crate) warm_s: f64,
    pub(crate) seconds: f64,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        let ours = bench.programs.ours();
        let clustered = bench.programs.clustered();
        for round in 1..=bench.rounds {
            for (edges, closed) in [(1, false), (2, false), (1, true), (2, true)] {
                if ours == clustered && (edges, closed) == (2, false) {
                    // It comes below, with its baselines.
                    continue;
                }
                bench.step(round, &format!("{name}, {}", variant(edges, closed)));
                let server = bench.programs.start(ours, edges).await?;
                let mut run = Run::new(name, variant(edges, closed), ours.name(), round);
                self.measure(bench, &server, (edges, closed), &mut run).await?;
                out.push(run);
            }
            if bench.programs.missing(clustered).is_none() {
                self.clustered(bench, clustered, name, round, out).await?;
            }
            bench.step(round, &format!("{name}, echo"));
            out.push(self.echo(bench, name, round).await?);
        }
        Ok(())
    }

    /// Over two edges on NATS and Redis, and the baselines on the same servers.
    async fn clustered(
        &self,
        bench: &Bench,
        subject: Subject,
        name: &str,
        round: u32,
        out: &mut Vec<Run>,
    ) -> Result<()> {
        bench.step(round, &format!("{name}, {}, {TWO_EDGES}", subject.name()));
        let server = bench.programs.start(subject, 2).await?;
        let mut run = Run::new(name, TWO_EDGES, subject.name(), round);
        self.measure(bench, &server, (2, false), &mut run).await?;
        out.push(run);
        let Self { gateways, per_second, warm_s, seconds, .. } = *self;
        let pace = Pace { gateways, per_second, seconds, warm_s };
        let parts: &[Part] = if server.stores().is_some() { &PARTS } else { &[] };
        for part in parts {
            bench.step(round, &format!("{name}, {}", part.0));
            out.push(stores::measure(bench, &server, &pace, *part, (name, round)).await?);
        }
        Ok(())
    }

    /// Gateways are on the first edge, clients on the first or the second.
    async fn measure(&self, bench: &Bench, server: &Server, (edges, closed): (u16, bool), run: &mut Run) -> Result<()> {
        let mut gateways = bench.open(server, 0, Role::Report(reporter()), self.gateways, 0).await?;
        let role = Role::Command { gateways: self.gateways, hold: false, deadline_ms: DEADLINE_MS };
        let clients = if closed { self.in_flight } else { 1 };
        let mut clients = bench.open(server, usize::from(edges) - 1, role, clients, OTHERS).await?;
        clients.go(schedule(self.per_second, self.warm_s, 1)).await?;
        gateways.report().await?;
        clients.report().await?;
        let mut schedule = schedule(self.per_second, self.seconds, 1);
        schedule.closed = closed;
        let behind = server.stores_cpu_us()?;
        let meter = Meter::begin(server, &mut [&mut gateways, &mut clients])?;
        clients.go(schedule).await?;
        let (carried, decided) = (gateways.report().await?, clients.report().await?);
        let (cpu, generator) = meter.end(server, &[&gateways, &clients], &decided.late)?;
        let behind = server.stores_cpu_us()?.saturating_sub(behind);
        run.take(&decided);
        run.figure("cpu_us_per_command", ratio(cpu, decided.answered));
        if server.stores().is_some() {
            run.figure("stores_cpu_us_per_command", ratio(behind, decided.answered));
        }
        run.figure("commands_per_second", ratio(decided.answered, 1) / self.seconds);
        run.figure("undecided", ratio(decided.sent.saturating_sub(decided.answered), 1));
        for (what, count) in carried.errors {
            run.notes.push(format!("gateways: {count} × {what}"));
        }
        run.generator = Some(generator);
        Ok(())
    }

    async fn echo(&self, bench: &Bench, name: &str, round: u32) -> Result<Run> {
        let server = bench.programs.start(Subject::Tcp, 1).await?;
        let mut clients = bench.open(&server, 0, Role::Report(reporter()), 1, 0).await?;
        clients.go(schedule(self.per_second, self.warm_s, 1)).await?;
        clients.report().await?;
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
