//! A registry in Redis: one server, or a master that Sentinels choose. `redis` is named here and below, and nowhere else.
//!
//! What changes is changed by scripts, one for each operation, by Redis' own clock. The names of all keys are in `keys`, with
//! what stands behind them. Rules of riser-core are applied in Rust where a second round trip does no harm (commands: read,
//! decide, and write if nothing came in between), and by a script where it would (changes of state).
//!
//! All keys of a building are in one slot, those of leases in another. A session and the index of its lease must agree all
//! the same: the building is put into the index before the session begins, and each sweep leaves a note in the building.
//! A session that would begin behind that note is put into the index once more, and the mark that the building has there
//! with it, which a sweep compares before it takes the building out.
//!
//! What is in Redis and was not written by us is counted, logged once, and treated as missing; a key of another type is
//! removed. Redis keeps what it is told to keep: without an append-only file a restart loses everything, and a failover
//! loses what had not reached the replica. Edges find what is missing by their audits.
//!
//! A user of an edge needs the commands on hashes, sets, sorted sets, texts and scripts, those that every connection needs,
//! and `TIME`, `TYPE`, `UNLINK`, `EXISTS`, `PERSIST`, `PEXPIRE`, `PEXPIREAT` and `INFO`, on keys that begin with `riser:`; a
//! restore also needs `SCAN`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riser_core::TenantId;
use tokio::task::JoinHandle;

mod backup;
mod commands;
mod config;
mod counts;
mod erase;
mod head;
mod info;
mod keys;
mod link;
mod open;
mod queue;
mod replies;
mod scripts;
mod sessions;
mod state;
mod streams;

pub use backup::{BadSaved, SavedGateway};
pub use config::{Address, ConnectError, Identity, Password, RedisConfig, Servers, Tls};
pub use counts::Counts;
pub use info::{LeaseInfo, ServerInfo};
pub use keys::Naming;

use crate::RegistryError;
use link::{Call, Link};

/// Greater than any number that is kept: Lua counts exactly below it.
const FIRST_INEXACT: u64 = 1 << 53;

/// The registry of one cluster, over one connection. Clones are the same connection; it ends with the last of them.
#[derive(Clone)]
pub struct RedisRegistry {
    link: Arc<Link>,
    /// Tenants whose open commands took all that they may when one was recorded last.
    full: Arc<Mutex<BTreeSet<TenantId>>>,
    _keeper: Arc<Keeper>,
}

/// The task that keeps the connection, which ends with it.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisRegistry {
    /// Connects, or says why not. Afterwards the connection is made anew whenever it is lost.
    pub async fn connect(config: RedisConfig) -> Result<Self, ConnectError> {
        open::check_config(&config)?;
        let link = Link::new(config).await?;
        let keeper = {
            let link = link.clone();
            #[expect(clippy::disallowed_methods, reason = "the keeper owns it")]
            tokio::spawn(async move { link.keep().await })
        };
        Ok(Self { link, full: Arc::default(), _keeper: Arc::new(Keeper(keeper)) })
    }

    /// Whether there is a connection now. One to a server that hangs is noticed after a call's time.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    /// Waits for an answer.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        self.link.run(Call::new().command("PING", None, &[])).await.map(drop)
    }

    /// What was counted since it was connected first.
    pub fn counts(&self) -> Counts {
        self.link.counters.counts()
    }
}

/// Whole milliseconds of a duration, as far as Lua counts.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(FIRST_INEXACT / 2)
}
