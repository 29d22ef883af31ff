//! What edges call for a frame, called without edges: a request and its reply through NATS, and a script of the registry.
//! The same moments and the same counting as for frames, so that the two can be compared.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use riser_bus::nats::{NatsClient, NatsConfig};
use riser_core::command::{Body, Digest};
use riser_core::limits::Limits;
use riser_core::{Address, Change, EdgeId, GatewayKey, Json, Path, Version};
use riser_registry::redis::{self, RedisConfig, RedisRegistry, Servers};
use riser_registry::{Applied, CommandStore as _, Created, Lease, NewCommand, Registry as _, StateStore as _};
use tokio::io::{BufReader, Lines, Stdin};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::order::{Call, Dialect, Order, Role, Schedule, Script, Told};
use super::world::{World, as_delivered, record};
use super::{linger, pace, tell};
use crate::clock::{Timer, now_us};

/// Under which name requests are answered.
const NAME: &str = "load";
/// How long the gateways stay, and commands have time: far longer than any run, so that nothing ends while it is measured.
const STAY: Duration = Duration::from_secs(3_600);

/// Serves orders.
pub(crate) async fn serve(world: &Rc<World>, lines: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    let Dialect::Stores { nats, redis } = &world.job.dialect else { bail!("only stores are called without edges") };
    let nats = NatsClient::connect(&NatsConfig::new(vec![nats.clone()], "riser-loadtest")).await?;
    let _answers = match world.job.role {
        Role::Answer => Some(nats.answer_probes(NAME).await?),
        _ => None,
    };
    // What answers must have reached the server before somebody is told that it is there.
    if !nats.flush().await {
        bail!("NATS does not take what it is sent");
    }
    let stores = match world.job.role {
        Role::Call(call) => Some(Rc::new(Stores::open(world, nats, *redis, call).await?)),
        _ => None,
    };
    tell(&Told::Opened(world.job.count))?;
    while let Some(order) = super::next(lines).await? {
        tell(&match (order, &stores) {
            (Order::Go(schedule), Some(stores)) => go(world, stores, schedule).await?,
            (Order::Report, _) => Told::Report(Box::new(world.report())),
            (order, _) => bail!("callers of stores do not {order:?}"),
        })?;
    }
    Ok(())
}

async fn go(world: &Rc<World>, stores: &Rc<Stores>, schedule: Schedule) -> Result<Told> {
    let mut calls = JoinSet::new();
    pace(&Timer::new()?, &schedule, world.job.count, |place, due| {
        {
            let mut counts = world.counts.borrow_mut();
            counts.report.sent += 1;
            record(&mut counts.late, now_us().saturating_sub(due));
        }
        let (world, stores) = (world.clone(), stores.clone());
        calls.spawn_local(async move {
            match stores.once(place, due).await {
                Ok(()) => world.answered(due),
                Err(error) => world.error(&format!("{error:#}")),
            }
        });
        while calls.try_join_next().is_some() {}
    })
    .await?;
    linger(world, &schedule).await;
    Ok(Told::Done)
}

/// The connections to both stores, and gateways that are held.
struct Stores {
    nats: NatsClient,
    registry: RedisRegistry,
    call: Call,
    lease: Lease,
    /// Each gateway with where its state stands. One change of a gateway is under way at a time, as in an edge.
    gateways: Vec<(GatewayKey, Mutex<Version>)>,
}

impl Stores {
    async fn open(world: &World, nats: NatsClient, port: u16, call: Call) -> Result<Self> {
        let server = redis::Address { host: "127.0.0.1".into(), port };
        let registry = RedisRegistry::connect(RedisConfig::new(Servers::Single(server))).await?;
        let lease = Lease { edge: "load".parse::<EdgeId>()?, start: now_us() };
        registry.renew(&lease, STAY).await?;
        let mut gateways = Vec::new();
        for id in 0..world.job.count {
            let address: Address = world.address(world.job.first + id).parse()?;
            let key = GatewayKey::new("load".parse()?, address);
            let acquired = registry.acquire(&lease, &key, None).await?;
            gateways.push((key, Mutex::new(Version::start(acquired.epoch))));
        }
        let stores = Self { nats, registry, call, lease, gateways };
        if call.script == Some(Script::Look) {
            for (key, _) in &stores.gateways {
                stores.create(key, Digest([0; 16])).await?;
            }
        }
        Ok(stores)
    }

    /// What one frame takes.
    async fn once(&self, place: usize, due: u64) -> Result<()> {
        let (key, version) = self.gateways.get(place).context("no such gateway")?;
        match self.call.script {
            None => {}
            Some(Script::State) => self.apply(key, &mut *version.lock().await, due).await?,
            Some(Script::Look) => self.create(key, Digest([0; 16])).await?,
            // No two frames of a gateway are due at the same moment.
            Some(Script::Record) => self.create(key, Digest(u128::from(due + 1).to_be_bytes())).await?,
        }
        if self.call.asks {
            // As long as what edges tell each other of a change.
            let payload = Bytes::from(as_delivered(due));
            if self.nats.probe(NAME, payload.clone()).await? != payload {
                bail!("another answer than what was asked");
            }
        }
        Ok(())
    }

    async fn apply(&self, key: &GatewayKey, version: &mut Version, value: u64) -> Result<()> {
        let set = [("d0/v".parse::<Path>()?, Some(Json::parse(&value.to_string())?))];
        let next = version.next();
        match self.registry.apply(key, next, &Change::values(set, false), &Limits::default()).await? {
            Applied::Stored { .. } => {
                *version = next;
                Ok(())
            }
            other => bail!("a change was answered with {other:?}"),
        }
    }

    async fn create(&self, key: &GatewayKey, digest: Digest) -> Result<()> {
        let body =
            Body { path: "d0/v".parse()?, action: "toggle".parse()?, args: Some(Json::parse("1")?), hold: false };
        let deadline_ms = u64::try_from(STAY.as_millis()).unwrap_or(u64::MAX);
        let edge = self.lease.edge.clone();
        let command = NewCommand { digest, body, by: "client:load".into(), deadline_ms, edge, no_room: false };
        match self.registry.create(key, &command).await? {
            Created::Recorded(_) => Ok(()),
            other => bail!("a command was answered with {other:?}"),
        }
    }
}
