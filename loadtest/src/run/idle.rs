//! `idle`: what a session that rests costs in user-space memory. Sessions are opened in steps; the slope of the server's
//! PSS over them is what one more costs, whatever it is made of. The kernel's share of a socket comes on top.

use anyhow::{Context as _, Result, bail};
use riser_core::limits::Limits;
use riser_core::{Address, Change, EdgeId, GatewayKey, Json, Path, Version};
use riser_registry::memory::MemoryRegistry;
use riser_registry::{Lease, Registry as _, StateStore as _};
use serde::Deserialize;
use tokio::time::{Duration, sleep};

use super::{Bench, reporter};
use crate::clock::now_us;
use crate::process;
use crate::result::{Run, ratio};
use crate::server::Subject;
use crate::worker::order::{Reporter, Role};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Sessions, in rising steps.
    pub(crate) sessions: Vec<u32>,
    /// Frames that each exchanges before it rests.
    pub(crate) frames: u32,
    /// Seconds of rest before each reading.
    pub(crate) rest_s: f64,
    pub(crate) subjects: Vec<Subject>,
}

impl Params {
    pub(crate) async fn run(&self, bench: &Bench, name: &str, out: &mut Vec<Run>) -> Result<()> {
        for round in 1..=bench.rounds {
            for subject in bench.present(&self.subjects) {
                bench.step(round, &format!("{name}, {}", subject.name()));
                out.push(self.measure(bench, name, round, subject).await?);
            }
        }
        Ok(())
    }

    async fn measure(&self, bench: &Bench, name: &str, round: u32, subject: Subject) -> Result<Run> {
        let server = bench.programs.start(subject, 1).await?;
        let mut run = Run::new(name, "at rest", subject.name(), round);
        let (mut fleets, mut open, mut readings) = (Vec::new(), 0, Vec::new());
        for &step in &self.sessions {
            let role = Role::Report(Reporter { greet: self.frames, ..reporter() });
            let more = step.checked_sub(open).context("the steps of sessions must rise")?;
            fleets.push(bench.spread(&server, role, more, open).await?);
            open = step;
            sleep(Duration::from_secs_f64(self.rest_s / 2.0)).await;
            let (cpu, since) = (server.cpu_us()?, now_us());
            sleep(Duration::from_secs_f64(self.rest_s / 2.0)).await;
            let cost = server.cost()?;
            let second = ratio(cost.cpu_us - cpu, now_us() - since) * 1_000_000.0;
            run.figure("rest_cpu_us_per_session_second", second / f64::from(step));
            run.figure(&format!("pss_bytes_at_{step:06}"), float(cost.pss));
            readings.push((step, cost.pss));
        }
        for fleet in &mut fleets {
            run.take(&fleet.report().await?);
        }
        run.latency = None;
        run.figure("bytes_per_session", slope(&readings)?);
        Ok(run)
    }
}

#[expect(clippy::cast_precision_loss)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Bytes per session between the least and the greatest step.
fn slope(readings: &[(u32, u64)]) -> Result<f64> {
    match readings {
        [(least, from), .., (most, to)] if least < most => Ok((float(*to) - float(*from)) / f64::from(most - least)),
        _ => bail!("a slope needs two different numbers of sessions"),
    }
}

/// What the memory registry keeps of a gateway with the values that the gateways here send: the slope between two
/// numbers of them, in bytes. It fills this process' memory, and so must be a process of its own.
pub(crate) async fn registry_share(least: u32, most: u32) -> Result<f64> {
    let id: EdgeId = "edge-0".parse()?;
    let store = MemoryRegistry::new(1).client(&id);
    let lease = Lease { edge: id, start: 1 };
    let mut readings = Vec::new();
    for i in 0..most {
        if i == least {
            readings.push((i, process::cost(std::process::id())?.pss));
        }
        let address: Address = format!("b{}/g{i}", i / 200).parse()?;
        let key = GatewayKey::new("dev".parse()?, address);
        let acquired = store.acquire(&lease, &key, None).await?;
        let value = |p: &str, v: &str| -> Result<(Path, Option<Json>)> { Ok((p.parse()?, Some(Json::parse(v)?))) };
        let set = [value("hall/lock", "\"locked\"")?, value("kitchen/light", r#"{"on":true}"#)?, value("meter", "2")?];
        let version = Version::start(acquired.epoch).next();
        store.apply(&key, version, &Change::values(set, false), &Limits::default()).await?;
    }
    readings.push((most, process::cost(std::process::id())?.pss));
    slope(&readings)
}
