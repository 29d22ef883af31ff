//! `noisy`: a tenant that does far more than it may, beside a quiet one: its gateways flood with state and with events, its
//! clients subscribe and unsubscribe without end, others read nothing, and a crowd of gateways connects and leaves over
//! and over, all at the same time. What the quiet tenant sees is measured alone and beside the noise.
//!
//! The noise, and those who make it, take the processors of this machine too, which delays the quiet ones whatever the edge does. So
//! the same noise is made at another server as well: what the quiet tenant sees beside that is the machine's doing, and what
//! it sees more beside noise at its own edge is the edge's.
//!
//! A cluster that is started here has a tenant for the noise. `riser dev` has one tenant: there, and on a cluster that was
//! started elsewhere, the noise is other buildings of the quiet tenant, which share with it even what tenants have apart.

use std::cell::Cell;

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, DELIVERY, LISTENERS, Meter, OTHERS, RESTING, arrived, reporter, schedule, together, watcher};
use crate::fleet::Fleet;
use crate::result::{Latency, Run, ratio};
use crate::server::Server;
use crate::worker::order::{Order, Report, Reporter, Role, Schedule};

/// The buildings of those who send state, of those who send events, and of those who come and go.
const BUILDINGS: [u32; 3] = [500, 600, 700];
/// The building of the first pattern that is subscribed to, and how many patterns there are.
const PATTERNS: (u32, u32) = (2_000, 1_000);
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
    /// Noisy gateways: so many that send state, and so many that send events.
    pub(crate) noisy_gateways: u32,
    /// Frames of state in a second. An edge reads 2 000 of each gateway.
    pub(crate) noisy_per_second: f64,
    pub(crate) events_per_second: f64,
    /// Subscribes and unsubscribes in a second.
    pub(crate) subscriptions_per_second: f64,
    pub(crate) subscribers: u32,
    /// Gateways that connect, leave, and connect again.
    pub(crate) storm: u32,
    /// Listeners to all of the noise that read nothing.
    pub(crate) slow: u32,
}

/// Those who make noise.
struct Noise {
    /// Those who send what a schedule says, each with its rate: states, events, subscriptions.
    senders: [(Fleet, f64); 3],
    storm: Fleet,
    slow: Fleet,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for noise in [Where::Nowhere, Where::Elsewhere, Where::Here] {
                let server = bench.riser(1).await?;
                let elsewhere = match noise {
                    // Of a cluster that runs already there is no second one.
                    Where::Elsewhere if !server.is_ours() => continue,
                    Where::Elsewhere => Some(bench.riser(1).await?),
                    Where::Nowhere | Where::Here => None,
                };
                let variant = match (noise, &server.other_tenant) {
                    (Where::Nowhere, _) => ALONE,
                    (Where::Elsewhere, _) => BESIDE_ELSEWHERE,
                    (Where::Here, Some(_)) => BESIDE_ANOTHER,
                    (Where::Here, None) => BESIDE_ITS_OWN,
                };
                bench.step(round, &format!("{name}, {variant}"));
                let mut run = bench.run_of_riser(name, variant, round);
                let noisy = if noise == Where::Here { Some(&server) } else { elsewhere.as_ref() };
                self.measure(bench, &server, noisy, &mut run).await?;
                out.push(run);
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, server: &Server, noisy: Option<&Server>, run: &mut Run) -> Result<()> {
        let mut quiet = bench.spread(server, Role::Report(reporter()), self.gateways, 0).await?;
        let mut board = bench.spread(server, Role::Watch(watcher("b0/*")), 1, LISTENERS).await?;
        let mut loud = match noisy {
            Some(at) => Some(self.noise(bench, at).await?),
            None => None,
        };
        let meter = Meter::begin(server, &mut [&mut quiet, &mut board])?;
        let mut calm = schedule(self.per_second, self.seconds, 1);
        let mut noises: [Report; 3] = Default::default();
        let rounds = Cell::new(0);
        if let Some(loud) = &mut loud {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let around = (AROUND_S * 1e6) as u64;
            calm.start_us += around;
            noises = loud.beside(quiet.go(calm), self.seconds + 2.0 * AROUND_S, &rounds).await?;
        } else {
            quiet.go(calm).await?;
        }
        let shown = arrived(&mut board, calm.ticks, DELIVERY).await?;
        let (sent, seen) = (quiet.report().await?, board.report().await?);
        let (cpu, generator) = meter.end(server, &[&quiet, &board], &sent.late)?;
        run.take(&seen);
        for (what, count) in sent.errors {
            run.notes.push(format!("quiet gateways: {count} × {what}"));
        }
        run.figure("not_shown", ratio(calm.ticks.saturating_sub(shown), 1));
        run.figure("unanswered", ratio(sent.sent - sent.answered.min(sent.sent), 1));
        if let Some(ok) = Latency::of(&sent.latency) {
            run.figure("ok_p99_us", ratio(ok.at(0.99), 1));
        }
        run.figure("server_cpu_us_per_second", ratio(cpu, 1) / (self.seconds + 2.0 * AROUND_S));
        for (kind, report) in ["states", "events", "subscriptions"].iter().zip(&noises) {
            run.figure(&format!("noise_{kind}_answered"), ratio(report.answered, 1));
        }
        let noises = together(noises);
        run.figure("noise_sent", ratio(noises.sent, 1));
        run.figure("noise_refused", ratio(noises.errors.values().sum(), 1));
        run.figure("noise_sessions_ended", ratio(noises.lost, 1));
        run.figure("noise_rounds_of_storm", f64::from(rounds.get()));
        run.generator = Some(generator);
        Ok(())
    }

    async fn noise(&self, bench: &Bench, server: &Server) -> Result<Noise> {
        let dialect = server.other_tenant.as_ref().unwrap_or(&server.dialect);
        let open = |role, count, first| bench.fleet(server.at.clone(), dialect, role, count, first);
        let [states, events, storm] =
            BUILDINGS.map(|building| Reporter { building, per_building: 1_000, ..reporter() });
        let events = Reporter { events: true, ..events };
        let (building, patterns) = PATTERNS;
        let churn = Role::Churn { building, patterns };
        Ok(Noise {
            // Their numbers name gateways and source addresses, and so differ.
            slow: open(
                Role::Watch(watcher(&format!("b{}/*", BUILDINGS[0] + OTHERS / 1_000))),
                self.slow,
                LISTENERS * 4,
            )
            .await?,
            senders: [
                (open(Role::Report(states), self.noisy_gateways, OTHERS).await?, self.noisy_per_second),
                (open(Role::Report(events), self.noisy_gateways, RESTING).await?, self.events_per_second),
                (open(churn, self.subscribers, LISTENERS * 5).await?, self.subscriptions_per_second),
            ],
            storm: open(Role::Report(storm), self.storm, LISTENERS * 6).await?,
        })
    }
}

/// At which server there is noise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Nowhere,
    Elsewhere,
    Here,
}

/// The variants.
pub(crate) const ALONE: &str = "alone";
/// See [`ALONE`].
pub(crate) const BESIDE_ELSEWHERE: &str = "beside the same noise at another server";
/// See [`ALONE`].
pub(crate) const BESIDE_ANOTHER: &str = "beside another tenant's noise";
/// See [`ALONE`].
pub(crate) const BESIDE_ITS_OWN: &str = "beside noise of its own tenant";

impl Noise {
    /// Makes noise while something else is done, for so many seconds at least, and tells what became of it.
    async fn beside(
        &mut self,
        quiet: impl Future<Output = Result<()>>,
        seconds: f64,
        rounds: &Cell<u32>,
    ) -> Result<[Report; 3]> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.slow.all(&Order::Pause((seconds * 1_000.0) as u64)).await?;
        let floods = self.senders.iter_mut().map(|(fleet, per_second)| {
            let flood = Schedule { linger_ms: 0, ..schedule(*per_second, seconds, 1) };
            fleet.go(flood)
        });
        let floods = futures_util::future::try_join_all(floods);
        let mut storm = std::pin::pin!(come_and_go(&mut self.storm, rounds));
        let work = async { tokio::try_join!(quiet, floods) };
        tokio::select! {
            done = work => drop(done?),
            failed = &mut storm => failed?,
        }
        let [(states, _), (events, _), (subscriptions, _)] = &mut self.senders;
        Ok([states.report().await?, events.report().await?, subscriptions.report().await?])
    }
}

/// All leave and come back, until it is dropped; the generators are of no use afterwards.
async fn come_and_go(storm: &mut Fleet, rounds: &Cell<u32>) -> Result<()> {
    loop {
        storm.all(&Order::Leave { close: true }).await?;
        storm.all(&Order::Return).await?;
        rounds.set(rounds.get() + 1);
    }
}
