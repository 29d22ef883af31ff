//! `ingest`: frames of state from gateways, each stored and acknowledged. Beside many sessions that rest, it shows what
//! they cost those that work.

use anyhow::Result;
use serde::Deserialize;
use tokio::time::{Duration, sleep};

use super::{Bench, Meter, RESTING, reporter, schedule};
use crate::result::{Run, ratio};
use crate::server::Subject;
use crate::worker::order::{Reporter, Role};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Gateways that send.
    pub(crate) gateways: u32,
    /// Frames of all of them in a second.
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    /// Seconds in which nothing is sent, before: what the server does meanwhile anyway can be taken off.
    pub(crate) rest_s: f64,
    /// Sessions that rest beside them; Riser is measured with each of these numbers.
    pub(crate) idle: Vec<u32>,
    pub(crate) subjects: Vec<Subject>,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for subject in bench.present(&self.subjects) {
                let resting: &[u32] = if subject.is_riser() { &self.idle } else { &[] };
                for idle in [0].iter().chain(resting) {
                    bench.step(round, &format!("{name}, {} beside {idle}", subject.name()));
                    out.push(self.measure(bench, name, round, subject, *idle).await?);
                }
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, name: &str, round: u32, subject: Subject, idle: u32) -> Result<Run> {
        let server = bench.programs.start(subject, 1).await?;
        let resting = Role::Report(Reporter { building: 1_000, ..reporter() });
        let _resting = bench.spread(&server, resting, idle, RESTING).await?;
        let mut senders = bench.spread(&server, Role::Report(reporter()), self.gateways, 0).await?;
        let rest = Meter::begin(&server, &mut [])?;
        sleep(Duration::from_secs_f64(self.rest_s)).await;
        let rest = rest.rate(&server)?;
        let meter = Meter::begin(&server, &mut [&mut senders])?;
        senders.go(schedule(self.per_second, self.seconds, 1)).await?;
        let report = senders.report().await?;
        let busy = meter.rate(&server)?;
        let (cpu, generator) = meter.end(&server, &[&senders], &report.late)?;
        let mut run = Run::new(name, format!("{idle} rest"), subject.name(), round);
        run.take(&report);
        run.figure("cpu_us_per_frame", ratio(cpu, report.answered));
        // As a share, so that the time that the last answers took does not count.
        let above = if busy > 0.0 { ((busy - rest) / busy).max(0.0) } else { 0.0 };
        run.figure("cpu_us_per_frame_above_rest", ratio(cpu, report.answered) * above);
        run.figure("unanswered", ratio(report.sent - report.answered.min(report.sent), 1));
        run.generator = Some(generator);
        Ok(run)
    }
}
