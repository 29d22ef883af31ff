//! `fanout`: one frame to many listeners of one server, one frame in a tick and several. What counts is the server's CPU
//! time per delivery, and that a frame is encoded once.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, DELIVERY, LISTENERS, Meter, arrived, reporter, schedule, watcher};
use crate::fleet::Fleet;
use crate::result::{Run, ratio};
use crate::server::{Server, Subject};
use crate::worker::order::{Reporter, Role, Watcher};

/// Frames in a second that a live stream may have, with room: more are dropped by its rate.
const LIVE_PER_SECOND: f64 = 160.0;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) listeners: Vec<u32>,
    /// Frames of one tick.
    pub(crate) bursts: Vec<u32>,
    /// Deliveries in a second when a tick has one frame. Larger ticks come as often.
    pub(crate) deliveries_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) subjects: Vec<Subject>,
}

/// How a subject is used.
#[derive(Clone, Copy)]
struct Way {
    subject: Subject,
    live: bool,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for &listeners in &self.listeners {
                for subject in bench.present(&self.subjects) {
                    let ways: &[bool] = if subject.is_riser() { &[false, true] } else { &[false] };
                    for &live in ways {
                        bench.step(round, &format!("{name}, {} to {listeners}", title(subject, live)));
                        self.measure(bench, name, round, Way { subject, live }, listeners, out).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn measure(
        &self,
        bench: &Bench,
        name: &str,
        round: u32,
        way: Way,
        listeners: u32,
        out: &mut Vec<Run>,
    ) -> Result<()> {
        let server = bench.programs.start(way.subject, 1).await?;
        let most = self.bursts.iter().copied().max().unwrap_or(1);
        // State of one gateway merges, so that a tick of Riser's has a gateway for each of its frames.
        let speakers = if way.subject.is_riser() && !way.live { most } else { 1 };
        let role = Reporter { live: way.live, acknowledged: false, ..reporter() };
        let mut speakers = bench.open(&server, 0, Role::Report(role), speakers, 0).await?;
        let lane = if way.live { "live" } else { "state" };
        let role = Role::Watch(Watcher { lane: lane.into(), ..watcher("b0/*") });
        let mut hearers = bench.open(&server, 0, role, listeners, LISTENERS).await?;
        for &burst in &self.bursts {
            let variant = format!("{listeners} × {burst}");
            let mut run = Run::new(name, variant, title(way.subject, way.live), round);
            self.once(&server, &mut speakers, &mut hearers, (listeners, burst, way.live), &mut run).await?;
            out.push(run);
        }
        Ok(())
    }

    async fn once(
        &self,
        server: &Server,
        speakers: &mut Fleet,
        hearers: &mut Fleet,
        (listeners, burst, live): (u32, u32, bool),
        run: &mut Run,
    ) -> Result<()> {
        let mut per_second = self.deliveries_per_second / f64::from(listeners);
        if live {
            per_second = per_second.min(LIVE_PER_SECOND / f64::from(burst));
        }
        let mut schedule = schedule(per_second, self.seconds, burst);
        // What nobody acknowledges is not waited for; deliveries are.
        schedule.linger_ms = 0;
        let encoded = server.counter("riser_frames_encoded_total").await?;
        let meter = Meter::begin(server, &mut [speakers, hearers])?;
        speakers.go(schedule).await?;
        let expected = schedule.ticks * u64::from(burst) * u64::from(listeners);
        let values = arrived(hearers, expected, DELIVERY).await?;
        let (sent, heard) = (speakers.report().await?, hearers.report().await?);
        let (cpu, generator) = meter.end(server, &[speakers, hearers], &sent.late)?;
        run.take(&heard);
        run.figure("cpu_us_per_delivery", ratio(cpu, values));
        run.figure("bytes_per_delivery", ratio(heard.bytes[0], values));
        run.figure("undelivered", ratio(expected.saturating_sub(values), 1));
        if server.is_ours() && !live {
            let encoded = server.counter("riser_frames_encoded_total").await? - encoded;
            run.figure("encodings_per_frame", ratio(encoded, sent.sent));
        }
        run.generator = Some(generator);
        Ok(())
    }
}

fn title(subject: Subject, live: bool) -> String {
    format!("{}{}", subject.name(), if live { " live" } else { "" })
}
