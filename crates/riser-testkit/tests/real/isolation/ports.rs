//! What no peer can ask of an edge, but an edge of its servers: leases, overdue commands, buckets, the ledger.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::kv::{Kv as _, Value, Written};
use riser_bus::log::Log as _;
use riser_bus::nats::LedgerFrom;
use riser_bus::{Bucket, Entry};
use riser_core::command::{Body, CommandId, DEADLINE_MS, Digest, Status};
use riser_core::event::Event;
use riser_core::tenant::KeyHash;
use riser_core::{GatewayKey, Json, Pattern, Reason};
use riser_registry::{CommandStore as _, Created, Lease, NewCommand, Registry as _};
use tokio::time::{Instant, sleep, timeout_at};

use super::pair::{Finding, Pair};
use super::world::{LOOK_EVERY, World};

/// What an edge that is gone has left behind: a tenant's part of it.
pub(super) struct Left<'w> {
    world: &'w World,
    pair: &'w Pair,
    whose: usize,
    until: Instant,
    overdue: CommandId,
}

fn missing(what: &str) -> impl Fn() -> Finding {
    move || Finding::Missing(what.to_owned())
}

/// Whether what is there is what is this tenant's; anything else is somebody else's.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, own: &T) -> Result<(), Finding> {
    if got == own { Ok(()) } else { Err(Finding::Foreign(format!("{what} is {got:?} and not {own:?}"))) }
}

impl<'w> Left<'w> {
    fn key(&self, address: &str) -> GatewayKey {
        GatewayKey::new(self.pair.of[self.whose].id.clone(), address.parse().expect("an address"))
    }

    /// An edge of its own takes two gateways for it, one of which no other tenant has, and a command whose deadline passes;
    /// then it is gone, and its gateways are swept.
    pub(super) async fn behind(
        world: &'w World,
        pair: &'w Pair,
        whose: usize,
        until: Instant,
    ) -> Result<Self, Finding> {
        let (canary, registry) = (&pair.of[whose].canary, &world.registry);
        let lease = Lease { edge: canary.parse().expect("an edge name"), start: 1 };
        let overdue = NewCommand {
            digest: Digest(fastrand::u128(..).to_be_bytes()),
            body: Body {
                path: "hall/lock".parse().expect("a path"),
                action: "unlock".parse().expect("an action"),
                args: Some(Json::of(canary)),
                hold: true,
            },
            by: format!("client:{canary}"),
            deadline_ms: *DEADLINE_MS.start(),
            edge: lease.edge.clone(),
            no_room: false,
        };
        pair.mark(overdue.digest.to_string(), whose)?;
        let digest = overdue.digest;
        let cmd = CommandId { of: "b7/f1".parse().expect("an address"), digest, at_ms: 0 };
        let mut left = Self { world, pair, whose, until, overdue: cmd };
        let created = registry.create(&left.key("b7/f1"), &overdue).await;
        let Ok(Created::Recorded(recorded)) = created else { return Err(missing("a record")()) };
        left.overdue = recorded.record.cmd;
        let own = left.key(&format!("{canary}/f1"));
        for key in [&left.key("b7/f1"), &own] {
            let acquired = registry.acquire(&lease, key, None).await.map_err(|_| missing("an epoch")())?;
            same("who held it", &(acquired.before, acquired.taken_from), &(None, None))?;
        }
        let index = registry.lease_index(&lease).await.map_err(|_| missing("an index")())?;
        let mut expected: Vec<_> =
            [left.key("b7/f1"), own].map(|key| (key.tenant, key.address.building().clone())).into();
        expected.sort();
        same("the index of a lease", &index, &expected)?;
        for (tenant, building) in expected {
            let swept = registry.sweep(&lease, Reason::EdgeLost, &tenant, &building).await;
            let swept = swept.map_err(|_| missing("a sweep")())?;
            same("what a sweep ended", &swept.len(), &1)?;
        }
        Ok(left)
    }

    /// What becomes of it; and what lies in buckets and in the ledger.
    pub(super) async fn found(&self) -> Result<(), Finding> {
        self.written().await?;
        self.key_uses().await?;
        self.held().await?;
        let written = async {
            while !self.ledger().await? {
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        timeout_at(self.until, written).await.map_err(|_| missing("the ledger")())?
    }

    /// Its entries in the table of tenants and among the flats are its own.
    async fn written(&self) -> Result<(), Finding> {
        let id = &self.pair.of[self.whose].id;
        for entry in [Entry::Tenant(id.clone()), Entry::Flats(id.clone(), "b7".parse().expect("a building"), 3)] {
            self.entry(entry).await?;
        }
        Ok(())
    }

    async fn entry(&self, entry: Entry) -> Result<(), Finding> {
        let (kv, one) = (self.world.nats.kv(World::kv_config()), &self.pair.of[self.whose]);
        let value = Bytes::from(one.canary.clone());
        let written = kv.put(&entry, value.clone(), 0, None).await.map_err(|_| missing("an entry")())?;
        let Written::Yes(revision) = written else { return Err(Finding::Foreign(format!("{entry} is there"))) };
        let read = kv.get(&entry).await.map_err(|_| missing("an entry")())?;
        same("an entry", &read, &Some(Value { bytes: value, revision }))?;
        self.entries(entry.bucket()).await
    }

    /// When its API key was used last is its own to know; the edges note uses of their own meanwhile.
    async fn key_uses(&self) -> Result<(), Finding> {
        let hash = |whose: usize| KeyHash::of(&self.pair.of[whose].canary, None);
        let (registry, id) = (&self.world.registry, &self.pair.of[self.whose].id);
        let text = hash(self.whose).to_string();
        self.pair.mark(text.rsplit(':').next().unwrap_or(&text), self.whose)?;
        let noted = registry.note_key_uses(id, &[(hash(self.whose), Some(7))].into()).await;
        noted.map_err(|_| missing("when a key was used")())?;
        let uses = registry.key_uses(id).await.map_err(|_| missing("when a key was used")())?;
        same("when its key was used", &uses.get(&hash(self.whose)), &Some(&7))?;
        same("when another's key was used", &uses.get(&hash(1 - self.whose)), &None)
    }

    async fn held(&self) -> Result<(), Finding> {
        self.entries(Bucket::Held).await
    }

    /// Of the entries of a bucket, those that have its marks have its name; and there are some.
    async fn entries(&self, bucket: Bucket) -> Result<(), Finding> {
        let (kv, one) = (self.world.nats.kv(World::kv_config()), &self.pair.of[self.whose]);
        let (mut own, mut after) = (0, Some(0));
        while let Some(from) = after {
            let page = kv.list(bucket, from).await.map_err(|_| missing("a bucket")())?;
            for (entry, value) in page.entries {
                let (Entry::Held(GatewayKey { tenant, .. }, _) | Entry::Tenant(tenant) | Entry::Flats(tenant, ..)) =
                    &entry;
                let (_, marked) = self.pair.shown(&String::from_utf8_lossy(&value.bytes));
                if marked[self.whose] {
                    same("whose an entry is", tenant, &one.id)?;
                    own += 1;
                }
            }
            after = page.next;
        }
        if own == 0 { Err(Finding::Missing(format!("an entry of {bucket:?}"))) } else { Ok(()) }
    }

    /// Whether the end of the command that nobody looked after is in the ledger, where nobody else's is.
    async fn ledger(&self) -> Result<bool, Finding> {
        let (id, mut from, mut done) = (&self.pair.of[self.whose].id, LedgerFrom::Since(0), false);
        loop {
            let page =
                self.world.nats.read_ledger(id, &Pattern::All, from).await.map_err(|_| missing("the ledger")())?;
            for entry in page.entries {
                self.pair.check(self.whose, &entry.cmd.to_string())?;
                let expired = entry.outcomes.last().is_some_and(|outcome| outcome.status == Status::Expired);
                done |= entry.cmd == self.overdue && expired;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
            }
        }
    }
}

/// Of two tenants of which one has stored an event, that one is in the list of streams, and the other is not.
pub(super) async fn streams(world: &World, pair: &Pair) -> Result<(), Finding> {
    let log = world.nats.log(World::log_config());
    let event = Event {
        of: "b7/f1".parse().expect("an address"),
        id: "e1".parse().expect("an event id"),
        path: None,
        kind: "ring".parse().expect("an event type"),
        data: Some(Json::of(&pair.of[0].canary)),
        from: "gateway:b7/f1".into(),
        at_ms: 0,
        ts_ms: None,
    };
    log.append(&pair.of[0].id, event, Duration::from_secs(120)).await.map_err(|_| missing("an event")())?;
    let found = log.streams().await.map_err(|_| missing("streams")())?;
    let has = |whose: usize| found.iter().any(|found| found.tenant == pair.of[whose].id);
    match (has(0), has(1)) {
        (true, false) => Ok(()),
        (false, false) => Err(missing("a stream in the list")()),
        (_, true) => Err(Finding::Foreign("a stream in the list of who has none".into())),
    }
}
