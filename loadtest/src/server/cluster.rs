//! A cluster: edges as processes of their own, on one NATS and one Redis, all of them started here.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use riser_testkit::real::edges::{Edges, EdgesOptions, TENANT};
use riser_testkit::real::nats::NatsServers;
use riser_testkit::real::redis::{RedisOptions, RedisServers};

use super::{Programs, Runs, Server};
use crate::worker::order::Dialect;

/// The tenant that makes noise.
const OTHER: &str = "noisy";

/// The processes. The edges end first.
pub(super) struct Cluster {
    edges: Edges,
    count: usize,
    nats: NatsServers,
    redis: RedisServers,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("edges", &self.count).finish_non_exhaustive()
    }
}

pub(super) async fn start(programs: &Programs, edges: u16) -> Result<Server> {
    let nats = NatsServers::start(&programs.nats, 1).await?;
    let redis = RedisServers::start(&programs.redis, &RedisOptions::default()).await?;
    let count = usize::from(edges);
    let options = EdgesOptions { nats: nats.urls(), redis: redis.port(0), ..EdgesOptions::default() };
    let edges = Edges::prepare(&programs.riser, count, &options)?;
    let noisy = edges.add_tenant(OTHER)?;
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (addresses, admin) =
        ((0..count).map(|n| at(edges.port(n))).collect(), (0..count).map(|n| at(edges.admin_port(n))).collect());
    let (key, secret) = (edges.key.clone(), edges.secret.clone());
    let mut cluster = Cluster { edges, count, nats, redis };
    cluster.switch(true).await?;
    Ok(Server {
        runs: Runs::Cluster(Box::new(cluster)),
        at: addresses,
        dialect: Dialect::Riser { tenant: TENANT.into(), kid: "a".into(), key: secret },
        other_tenant: Some(Dialect::Riser { tenant: OTHER.into(), kid: "a".into(), key: noisy.secret }),
        admin,
        key,
        _files: None,
    })
}

impl Cluster {
    /// The ids of the edges' processes.
    pub(super) fn edges(&self) -> Vec<u32> {
        self.edges.ids()
    }

    /// The ids of the processes behind the edges.
    pub(super) fn stores(&self) -> Vec<u32> {
        [self.nats.ids(), self.redis.ids()].concat()
    }

    /// How they are called without the edges.
    pub(super) fn dialect_of_stores(&self) -> Dialect {
        Dialect::Stores { nats: self.nats.url(0), redis: self.redis.port(0) }
    }

    /// Kills all edges, or starts all and waits until they are ready.
    pub(super) async fn switch(&mut self, up: bool) -> Result<()> {
        if !up {
            (0..self.count).for_each(|number| self.edges.kill(number));
            return Ok(());
        }
        (0..self.count).try_for_each(|number| self.edges.launch(number))?;
        for number in 0..self.count {
            self.edges.ready(number).await?;
        }
        Ok(())
    }
}
