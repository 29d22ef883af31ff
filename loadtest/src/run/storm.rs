//! `storm`: all gateways come back at once, with credentials: after a clean end, and after their edge was killed.

use anyhow::Result;
use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep};

use super::{Bench, reporter};
use crate::clock::now_us;
use crate::result::{Generator, Run, ratio};
use crate::server::{Server, Subject};
use crate::worker::order::{Order, Role};

/// Gateways of one building.
const PER_BUILDING: u32 = 200;
/// How long presence may take to be right afterwards: a dead edge's gateways are told within 15 s, and theirs come late
/// when sessions were refused.
const PRESENCE: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) sessions: u32,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            // Whoever started a cluster elsewhere does not want it killed.
            let ends: &[bool] = if bench.programs.ours() == Subject::Given { &[false] } else { &[false, true] };
            for &killed in ends {
                let variant = if killed { "edge killed" } else { "clean end" };
                bench.step(round, &format!("{name}, {variant}"));
                let mut run = bench.run_of_riser(name, variant, round);
                self.measure(bench, killed, &mut run).await?;
                out.push(run);
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, killed: bool, run: &mut Run) -> Result<()> {
        let mut server = bench.riser(1).await?;
        let mut fleet = bench.spread(&server, Role::Report(reporter()), self.sessions, 0).await?;
        if killed {
            server.switch(false).await?;
        }
        fleet.all(&Order::Leave { close: !killed }).await?;
        if killed {
            server.switch(true).await?;
        }
        // What ending the sessions cost is over by now.
        settled(&server).await?;
        fleet.report().await?;
        fleet.begin()?;
        let (cpu, since) = (server.cpu_us()?, now_us());
        fleet.all(&Order::Return).await?;
        let wall = now_us() - since;
        let cpu = server.cpu_us()?.saturating_sub(cpu);
        let generator = Generator::of(fleet.spent_us()?, wall, fleet.processes(), &[]);
        let report = fleet.report().await?;
        run.take(&report);
        run.figure("cpu_us_per_session", ratio(cpu, report.answered));
        run.figure("seconds_until_all_are_back", ratio(wall, 1_000_000));
        run.figure("refused_with_retry_after", ratio(report.refused[0], 1));
        run.figure("refused_without", ratio(report.refused[1], 1));
        run.figure("not_online_in_the_end", f64::from(self.offline(&server).await?));
        run.generator = Some(generator);
        let after = fleet.report().await?;
        run.figure("lost_afterwards", ratio(after.lost, 1));
        Ok(())
    }

    /// How many gateways presence does not show as online, once it has had its time.
    async fn offline(&self, server: &Server) -> Result<u32> {
        let until = Instant::now() + PRESENCE;
        loop {
            let mut online = 0;
            for building in 0..self.sessions.div_ceil(PER_BUILDING) {
                online += server.online(building).await?;
            }
            let offline = self.sessions.saturating_sub(u32::try_from(online)?);
            if offline == 0 || Instant::now() > until {
                return Ok(offline);
            }
            sleep(LOOK).await;
        }
    }
}

/// Waits until the server has spent next to nothing for a while.
async fn settled(server: &Server) -> Result<()> {
    let until = Instant::now() + PRESENCE;
    let mut before = server.cpu_us()?;
    loop {
        sleep(LOOK * 2).await;
        let now = server.cpu_us()?;
        // Two ticks of the kernel's clock within half a second.
        if now - before <= 20_000 || Instant::now() > until {
            return Ok(());
        }
        before = now;
    }
}
