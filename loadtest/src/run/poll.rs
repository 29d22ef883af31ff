//! `poll`: flats that ask over HTTP for commands that come once a minute, against flats with a socket: bytes, CPU and
//! delay per command. Bytes are those of HTTP and WebSocket; TCP's and IP's heads, and TLS, come on top.

use anyhow::Result;
use serde::Deserialize;
use tokio::time::Duration;

use super::{Bench, Meter, OTHERS, arrived, reporter, schedule, together};
use crate::result::{Run, ratio};
use crate::worker::order::Role;

/// A command's deadline. Flats that ask are not connected: their commands are held for so long, and listed for an hour.
const DEADLINE_MS: u32 = 5_000;
/// The server ends a connection on which nothing is asked for 5 s, so that only who asks more often keeps it.
const KEPT_S: f64 = 4.0;
/// Clients that send commands take turns, since each may have 256 open.
const CLIENTS: u32 = 8;
/// How long the last command may take to be seen, beyond a period.
const REST_S: f64 = 5.0;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) flats: u32,
    /// Between two questions of a flat, in seconds; each is measured.
    pub(crate) periods_s: Vec<f64>,
    /// Between two commands to a flat, in seconds.
    pub(crate) command_every_s: f64,
    pub(crate) seconds: f64,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for period in std::iter::once(None).chain(self.periods_s.iter().copied().map(Some)) {
                let variant = period.map_or_else(|| "a socket each".into(), |s| format!("asks every {s} s"));
                bench.step(round, &format!("{name}, {variant}"));
                let mut run = bench.run_of_riser(name, variant, round);
                self.measure(bench, period, &mut run).await?;
                out.push(run);
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, period: Option<f64>, run: &mut Run) -> Result<()> {
        let server = bench.riser(1).await?;
        let role = match period {
            None => Role::Report(reporter()),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(s) => Role::Poll { period_ms: (s * 1_000.0) as u32, keep_alive: s < KEPT_S },
        };
        let mut flats = bench.spread(&server, role, self.flats, 0).await?;
        let hold = period.is_some();
        let role = Role::Command { gateways: self.flats, hold, deadline_ms: DEADLINE_MS };
        let mut clients = bench.spread(&server, role, CLIENTS, OTHERS).await?;
        let mut schedule = schedule(f64::from(self.flats) / self.command_every_s, self.seconds, 1);
        schedule.linger_ms = 0;
        flats.report().await?;
        let meter = Meter::begin(&server, &mut [&mut flats, &mut clients])?;
        clients.go(schedule).await?;
        let (asked, commands) = (flats.report().await?, clients.report().await?);
        let (cpu, generator) = meter.end(&server, &[&flats, &clients], &commands.late)?;
        // Bytes and CPU are those of the time in which commands came. For delays the last ones are waited for.
        let rest = Duration::from_secs_f64(period.unwrap_or(0.0) + REST_S);
        arrived(&mut flats, schedule.ticks.saturating_sub(asked.values), rest).await?;
        let later = flats.report().await?;
        let (bytes, questions) = (asked.bytes[0] + asked.bytes[1], asked.sent);
        let all = together([asked, later]);
        run.take(&all);
        run.figure("cpu_us_per_command", ratio(cpu, schedule.ticks));
        run.figure("bytes_per_command", ratio(bytes, schedule.ticks));
        run.figure("questions_per_command", ratio(questions, schedule.ticks));
        run.figure("commands_not_seen", ratio(schedule.ticks.saturating_sub(all.values), 1));
        run.generator = Some(generator);
        Ok(())
    }
}
