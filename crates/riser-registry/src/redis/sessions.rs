//! Epochs, leases and presence.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use riser_core::tenant::KeyHash;
use riser_core::{BuildingId, Epoch, GatewayId, GatewayKey, Presence, Reason, TenantId, Version};

use super::head::Head;
use super::keys::{self, Building, Tenant};
use super::link::{Arguments, Call};
use super::replies::{Items, bytes, number, pairs};
use super::{FIRST_INEXACT, RedisRegistry, millis, scripts};
use crate::{
    ADOPTED_LEASE, Acquired, Ended, Erased, Held, Lease, PRESENCE_PAGE, Registry, RegistryError, Renewed, Restored,
    TAKEOVER_WINDOW, Usage,
};

/// What a lease is that nothing is known of: it has no end yet, is not drained, and has not ended.
const ADOPTED: &[u8] = b"0 0 0";
/// For how long a sweep is noted in a building, in milliseconds. Longer than any call that was on its way before it.
const SWEPT_MS: u64 = 600_000;
/// How often a session is begun that a sweep came before.
const TRIES: usize = 8;

/// The heads of a building by the names of their gateways, in order.
type Heads = Vec<(GatewayId, Head)>;

impl RedisRegistry {
    /// Puts a building into a lease's index, with a mark of its own, and into its tenant's list.
    fn enlist(call: Call, lease: &Lease, tenant: &TenantId, building: &BuildingId) -> Call {
        // A count would begin anew after a sweep, and another sweep could take the new entry for the one it has seen.
        let mark = fastrand::u64(..FIRST_INEXACT).to_string();
        call.command("HSETNX", Some(keys::leases()), &[name(lease).as_bytes(), ADOPTED])
            .command(
                "ZADD",
                Some(keys::lease_index(lease)),
                &[mark.as_bytes(), keys::lease_entry(tenant, building).as_bytes()],
            )
            .command("SADD", Some(Tenant::new(tenant).buildings()), &[building.as_str().as_bytes()])
    }

    /// Enlists, runs a script that begins a session, and does so again when the lease was swept in between. `call` adds the
    /// script, and is given the note of that sweep. Gives the clock, what the script says after that, and the replies to
    /// what `call` added behind it.
    async fn begin(
        &self,
        lease: &Lease,
        key: &GatewayKey,
        call: impl Fn(Call, &[u8]) -> Call + Send + Sync,
    ) -> Result<(u64, Items, Vec<Value>), RegistryError> {
        let mut note = vec![];
        for _ in 0..TRIES {
            let enlisted = Self::enlist(Call::new(), lease, &key.tenant, key.address.building());
            let mut replies = self.link.run(call(enlisted, &note)).await?.into_iter().skip(3);
            let script = replies.next().and_then(Items::of);
            let mut script = script.ok_or_else(|| self.link.strange("beginning a session"))?;
            let (Some(bad), Some(now_ms), Some(begun)) = (script.number(), script.number(), script.flag()) else {
                return Err(self.link.strange("beginning a session"));
            };
            self.link.bad("the head of a gateway", bad);
            if begun {
                return Ok((now_ms, script, replies.collect()));
            }
            note = script.bytes().unwrap_or_default();
        }
        Err(RegistryError::Unavailable)
    }

    /// Reads heads, in the order of their names.
    pub(super) fn heads(&self, value: Value) -> Option<Heads> {
        let fields = pairs(value)?;
        let all = fields.len();
        let head = |(name, text): (Vec<u8>, Vec<u8>)| {
            let gateway = std::str::from_utf8(&name).ok()?.parse().ok()?;
            Some((gateway, Head::parse(&text)?))
        };
        let mut heads: Heads = fields.into_iter().filter_map(head).collect();
        self.link.bad("the head of a gateway", (all - heads.len()) as u64);
        heads.sort_by(|a, b| a.0.cmp(&b.0));
        Some(heads)
    }

    pub(super) async fn heads_of(&self, tenant: &TenantId, building: &BuildingId) -> Result<Heads, RegistryError> {
        let heads = Some(Building::new(tenant, building).heads());
        let replies = self.link.run(Call::new().command("HGETALL", heads, &[])).await?;
        let heads = replies.into_iter().next().and_then(|value| self.heads(value));
        heads.ok_or_else(|| self.link.strange("the heads of a building"))
    }

    /// Runs one script on the leases, and gives its answer behind the count of bad values.
    pub(super) async fn answer(
        &self,
        script: &'static scripts::Script,
        keys: Vec<keys::Key>,
        arguments: Arguments,
    ) -> Result<Items, RegistryError> {
        let replies = self.link.run(Call::new().script(script, keys, &arguments)).await?;
        let answer = replies.into_iter().next().and_then(Items::of).and_then(|mut items| {
            self.link.bad(script.name, items.number()?);
            Some(items)
        });
        answer.ok_or_else(|| self.link.strange(script.name))
    }
}

#[async_trait]
impl Registry for RedisRegistry {
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewed, RegistryError> {
        let arguments = Arguments::new().add(name(lease)).number(millis(ttl));
        let mut answer = self.answer(&scripts::RENEW, vec![keys::leases()], arguments).await?;
        let (now_ms, held, edges) = (answer.number(), answer.flag(), answer.number());
        let renewed = now_ms.zip(held).zip(edges).map(|((now_ms, held), edges)| {
            let edges = usize::try_from(edges).unwrap_or(usize::MAX);
            Renewed { held, now_ms, edges }
        });
        renewed.ok_or_else(|| self.link.strange("renewing a lease"))
    }

    async fn drain(&self, lease: &Lease, moving: Duration) -> Result<(), RegistryError> {
        let arguments = Arguments::new().add(name(lease)).number(millis(moving));
        self.answer(&scripts::DRAIN, vec![keys::leases()], arguments).await.map(drop)
    }

    async fn acquire(&self, lease: &Lease, key: &GatewayKey, floor: Option<Epoch>) -> Result<Acquired, RegistryError> {
        let (building, of) = (Building::of(key), &key.address);
        let floor = floor.map_or_else(String::new, |floor| floor.0.min(FIRST_INEXACT - 2).to_string());
        let call = |call: Call, note: &[u8]| {
            let arguments = holder(of.gateway(), lease).add(&floor).add(note).number(millis(TAKEOVER_WINDOW));
            let keys = vec![building.heads(), building.state(of), building.open(), building.swept()];
            // After the session has begun: a stream that is opened meanwhile is seen here, or sees the session.
            let streams = Some(Tenant::new(&key.tenant).streams_at(of));
            call.script(&scripts::ACQUIRE, keys, &arguments).command("ZREVRANGE", streams, &[b"0", b"0", b"WITHSCORES"])
        };
        let (now_ms, mut answer, after) = self.begin(lease, key, call).await?;
        let acquired = || {
            let (epoch, since_ms, takeovers) = (Epoch(answer.number()?), answer.number()?, answer.number()?);
            let (has_state, open) = (answer.flag()?, answer.bytes());
            let mut before = || {
                let version = Version::new(answer.number()?, answer.number()?);
                let edge = answer.bytes()?;
                let start = answer.number()?;
                let edge = std::str::from_utf8(&edge).ok()?.parse().ok();
                Some((version, edge.map(|edge| Lease { edge, start })))
            };
            let before = before();
            let last_end = pairs(after.into_iter().next()?)?.first().map(|(_, ends)| score(ends));
            Some(Acquired {
                epoch,
                before: before.as_ref().map(|(version, _)| *version),
                has_state,
                taken_from: before.and_then(|(_, lease)| lease),
                since_ms,
                takeovers: u32::try_from(takeovers).unwrap_or(u32::MAX),
                open_commands: self.queue(open.as_deref()).waiting(now_ms).count(),
                has_streams: last_end.is_some_and(|ends_ms| ends_ms > now_ms),
                now_ms,
            })
        };
        acquired().ok_or_else(|| self.link.strange("beginning a session"))
    }

    async fn restore(
        &self,
        lease: &Lease,
        key: &GatewayKey,
        version: Version,
        since_ms: u64,
    ) -> Result<Restored, RegistryError> {
        let (building, of) = (Building::of(key), &key.address);
        let call = |call: Call, note: &[u8]| {
            let arguments = holder(of.gateway(), lease)
                .add(note)
                .number(version.epoch.0)
                .number(version.rev.0)
                .number(since_ms.min(FIRST_INEXACT - 1));
            let keys = vec![building.heads(), building.state(of), building.swept()];
            call.script(&scripts::RESTORE, keys, &arguments)
        };
        let (_, mut answer, _) = self.begin(lease, key, call).await?;
        match (answer.number(), answer.number()) {
            (Some(0), Some(lost)) => Ok(Restored::Held { lost: lost == 1 }),
            (Some(1), Some(epoch)) => Ok(Restored::Superseded(Epoch(epoch))),
            (Some(2), _) => Ok(Restored::Ended),
            _ => Err(self.link.strange("restoring a session")),
        }
    }

    async fn release(&self, key: &GatewayKey, epoch: Epoch, reason: Reason) -> Result<Option<Ended>, RegistryError> {
        let arguments = Arguments::new().add(key.address.gateway().as_str()).number(epoch.0).add(reason.as_str());
        let mut answer = self.answer(&scripts::RELEASE, vec![Building::of(key).heads()], arguments).await?;
        match (answer.number(), answer.flag(), answer.number(), answer.number()) {
            (_, Some(false), ..) => Ok(None),
            (_, _, Some(rev), Some(at_ms)) => Ok(Some(Ended { version: Version::new(epoch.0, rev), reason, at_ms })),
            _ => Err(self.link.strange("ending a session")),
        }
    }

    async fn audit(&self, tenant: &TenantId, building: &BuildingId) -> Result<Vec<Held>, RegistryError> {
        let keys = Building::new(tenant, building);
        let call = Call::new().command("TIME", None, &[]).command("HGETALL", Some(keys.heads()), &[]);
        let mut replies = self.link.run(call.command("HGETALL", Some(keys.open()), &[])).await?.into_iter();
        let mut held = || {
            let now_ms = super::replies::time_ms(replies.next()?)?;
            let heads = self.heads(replies.next()?)?;
            let unsent = self.unsent(pairs(replies.next()?)?, now_ms);
            let held = |(gateway, head): (GatewayId, Head)| Held {
                unsent: unsent.get(gateway.as_str()).copied().unwrap_or(0),
                gateway,
                version: head.version,
                lease: head.lease,
            };
            Some(heads.into_iter().map(held).collect())
        };
        held().ok_or_else(|| self.link.strange("an audit"))
    }

    async fn ended_leases(&self) -> Result<Vec<(Lease, Reason)>, RegistryError> {
        let arguments = Arguments::new().number(millis(ADOPTED_LEASE));
        let mut answer = self.answer(&scripts::ENDED, vec![keys::leases()], arguments).await?;
        let mut ended = vec![];
        while answer.left() >= 2 {
            let (lease, drained) = (answer.bytes().as_deref().and_then(lease), answer.flag());
            let reason = if drained == Some(true) { Reason::EdgeDrained } else { Reason::EdgeLost };
            ended.extend(lease.map(|lease| (lease, reason)));
        }
        ended.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(ended)
    }

    async fn lease_index(&self, lease: &Lease) -> Result<Vec<(TenantId, BuildingId)>, RegistryError> {
        let index = Some(keys::lease_index(lease));
        let replies = self.link.run(Call::new().command("ZRANGE", index, &[b"0", b"-1"])).await?;
        let items = replies.into_iter().next().and_then(Items::of);
        let mut items = items.ok_or_else(|| self.link.strange("the index of a lease"))?;
        let mut index = vec![];
        while items.left() > 0 {
            let name = items.bytes();
            let pair = name.as_deref().and_then(|name| keys::parse_lease_entry(std::str::from_utf8(name).ok()?));
            self.link.bad("a building of a lease", u64::from(pair.is_none()));
            index.extend(pair);
        }
        index.sort();
        Ok(index)
    }

    async fn sweep(
        &self,
        lease: &Lease,
        reason: Reason,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Ended)>, RegistryError> {
        let (keys, index, member) =
            (Building::new(tenant, building), keys::lease_index(lease), keys::lease_entry(tenant, building));
        let arguments = Arguments::new().add(lease.edge.as_str()).number(lease.start);
        let arguments = arguments.add(reason.as_str()).number(SWEPT_MS).number(fastrand::u64(..));
        let call = Call::new().command("ZSCORE", Some(index.clone()), &[member.as_bytes()]).script(
            &scripts::SWEEP,
            vec![keys.heads(), keys.swept()],
            &arguments,
        );
        let mut replies = self.link.run(call).await?.into_iter();
        let (mark, answer) = (replies.next(), replies.next().and_then(Items::of));
        let mut answer = answer.ok_or_else(|| self.link.strange("a sweep"))?;
        self.link.bad("the head of a gateway", answer.number().unwrap_or(0));
        let at_ms = answer.number().ok_or_else(|| self.link.strange("a sweep"))?;
        let mut ended: Vec<(GatewayId, Ended)> = vec![];
        while answer.left() >= 3 {
            let (gateway, epoch, rev) = (answer.parsed(), answer.number(), answer.number());
            if let (Some(gateway), Some(epoch), Some(rev)) = (gateway, epoch, rev) {
                ended.push((gateway, Ended { version: Version::new(epoch, rev), reason, at_ms }));
            }
        }
        ended.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(Value::BulkString(mark)) = mark {
            let arguments = Arguments::new().add(&member).add(&mark);
            // Who ended sessions must say so, also when this gets no answer: then the building is swept once more.
            let delisted = self.answer(&scripts::DELIST, vec![index], arguments).await;
            if ended.is_empty() {
                delisted?;
            }
        }
        Ok(ended)
    }

    async fn tell_usage(
        &self,
        lease: &Lease,
        usage: &BTreeMap<TenantId, Usage>,
        ttl: Duration,
    ) -> Result<(), RegistryError> {
        let text = serde_json::to_vec(usage).map_err(|_| RegistryError::Unavailable)?;
        let ttl = millis(ttl).to_string();
        let call = Call::new().command("SET", Some(keys::usage(lease)), &[&text, b"PX", ttl.as_bytes()]);
        self.link.run(call).await.map(drop)
    }

    async fn usage(&self, tenant: &TenantId) -> Result<Vec<Usage>, RegistryError> {
        let names = self.link.run(Call::new().command("HKEYS", Some(keys::leases()), &[])).await?;
        let mut names = names.into_iter().next().and_then(Items::of).ok_or_else(|| self.link.strange("the leases"))?;
        let (mut call, mut leases) = (Call::new(), 0);
        while names.left() > 0 {
            if let Some(lease) = names.bytes().as_deref().and_then(lease) {
                call = call.command("GET", Some(keys::usage(&lease)), &[]);
                leases += 1;
            }
        }
        let told = if leases == 0 { vec![] } else { self.link.run(call).await? };
        let mut usage = vec![];
        for text in told.into_iter().filter_map(bytes) {
            let of: Option<BTreeMap<TenantId, Usage>> = serde_json::from_slice(&text).ok();
            self.link.bad("what tenants use of an edge", u64::from(of.is_none()));
            usage.extend(of.and_then(|of| of.get(tenant).copied()));
        }
        Ok(usage)
    }

    async fn note_key_uses(
        &self,
        tenant: &TenantId,
        uses: &BTreeMap<KeyHash, Option<u64>>,
    ) -> Result<(), RegistryError> {
        let noted = |(hash, at_ms): (&KeyHash, &Option<u64>)| (hash.to_string(), at_ms.map(|at_ms| at_ms.to_string()));
        let mut call = Call::new();
        for (hash, at_ms) in uses.iter().map(noted) {
            let key = Some(Tenant::new(tenant).key_uses());
            call = match at_ms {
                Some(at_ms) => call.command("HSET", key, &[hash.as_bytes(), at_ms.as_bytes()]),
                None => call.command("HDEL", key, &[hash.as_bytes()]),
            };
        }
        if uses.is_empty() { Ok(()) } else { self.link.run(call).await.map(drop) }
    }

    async fn key_uses(&self, tenant: &TenantId) -> Result<BTreeMap<KeyHash, u64>, RegistryError> {
        let call = Call::new().command("HGETALL", Some(Tenant::new(tenant).key_uses()), &[]);
        let fields = self.link.run(call).await?.into_iter().next().and_then(pairs);
        let fields = fields.ok_or_else(|| self.link.strange("when API keys were used"))?;
        let all = fields.len();
        let read = |(hash, at_ms): (Vec<u8>, Vec<u8>)| {
            let hash = KeyHash::read(std::str::from_utf8(&hash).ok()?)?;
            Some((hash, std::str::from_utf8(&at_ms).ok()?.parse().ok()?))
        };
        let uses: BTreeMap<KeyHash, u64> = fields.into_iter().filter_map(read).collect();
        self.link.bad("when an API key was used", (all - uses.len()) as u64);
        Ok(uses)
    }

    async fn forget(&self, lease: &Lease) -> Result<(), RegistryError> {
        let arguments = Arguments::new().add(name(lease));
        self.answer(&scripts::FORGET, vec![keys::leases(), keys::lease_index(lease)], arguments).await.map(drop)
    }

    async fn presence(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        after: Option<&GatewayId>,
        limit: usize,
    ) -> Result<Vec<(GatewayId, Presence)>, RegistryError> {
        let heads = self.heads_of(tenant, building).await?.into_iter();
        let page = heads.filter(|(gateway, _)| after.is_none_or(|after| gateway > after));
        Ok(page.take(limit.min(PRESENCE_PAGE)).map(|(gateway, head)| (gateway, head.presence())).collect())
    }

    async fn erase_gateway(&self, key: &GatewayKey) -> Result<Erased, RegistryError> {
        self.erase_one(key).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<Erased, RegistryError> {
        self.erase_all(tenant).await
    }
}

/// What a script that begins a session is given first.
fn holder(gateway: &GatewayId, lease: &Lease) -> Arguments {
    Arguments::new().add(gateway.as_str()).add(lease.edge.as_str()).number(lease.start)
}

/// What a lease is called among the leases.
fn name(lease: &Lease) -> String {
    format!("{}:{}", lease.edge, lease.start)
}

pub(super) fn lease(name: &[u8]) -> Option<Lease> {
    let (edge, start) = std::str::from_utf8(name).ok()?.split_once(':')?;
    Some(Lease { edge: edge.parse().ok()?, start: start.parse().ok()? })
}

/// A score, which is a whole number of ours.
pub(super) fn score(text: &[u8]) -> u64 {
    number(&Value::BulkString(text.to_vec())).unwrap_or(0)
}
