//! Last values.

use async_trait::async_trait;
use riser_core::limits::Limits;
use riser_core::state::{OverLimit, State, Value as Kept};
use riser_core::{BuildingId, Change, Devices, Epoch, GatewayId, GatewayKey, Json, Snapshot, TenantId, Version};

use super::head::Head;
use super::keys::{Building, Tenant};
use super::link::{Arguments, Call};
use super::replies::{Items, pairs};
use super::{RedisRegistry, scripts};
use crate::{Applied, RegistryError, StateStore};

impl RedisRegistry {
    /// Reads the values of a gateway and its description.
    fn state(&self, fields: Vec<(Vec<u8>, Vec<u8>)>) -> State {
        let mut state = State::default();
        let mut bad = 0;
        for (path, text) in fields {
            if path.is_empty() {
                state.devices = serde_json::from_slice::<Devices>(&text).ok();
                bad += u64::from(state.devices.is_none());
                continue;
            }
            match value(&path, &text) {
                Some((path, value)) => drop(state.values.insert(path, value)),
                None => bad += 1,
            }
        }
        self.link.bad("a value of a gateway", bad);
        state
    }
}

#[async_trait]
impl StateStore for RedisRegistry {
    async fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
    ) -> Result<Applied, RegistryError> {
        let keys = Building::of(key);
        let keys = vec![keys.heads(), keys.state(&key.address)];
        let arguments = arguments(key.address.gateway(), version, change, limits);
        let mut answer = self.answer(&scripts::APPLY, keys, arguments).await?;
        let (_, what) = (answer.number(), answer.number());
        let applied = match (what, answer.number(), answer.number()) {
            (Some(0), Some(at_ms), _) => Applied::Stored { at_ms },
            (Some(1), Some(epoch), _) => Applied::Fenced(Some(Epoch(epoch))),
            (Some(2), ..) => Applied::Fenced(None),
            (Some(3), Some(epoch), Some(rev)) => Applied::Gap(Some(Version::new(epoch, rev))),
            (Some(4), ..) => Applied::Gap(None),
            (Some(5), ..) => Applied::OverLimit(OverLimit::Paths(limits.paths)),
            (Some(6), ..) => Applied::OverLimit(OverLimit::Bytes(limits.state_bytes)),
            _ => return Err(self.link.strange("storing a change")),
        };
        Ok(applied)
    }

    async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError> {
        let keys = Building::of(key);
        let keys = vec![keys.heads(), keys.state(&key.address)];
        let arguments = Arguments::new().add(key.address.gateway().as_str());
        let mut answer = self.answer(&scripts::READ, keys, arguments).await?;
        let head = answer.bytes();
        let Some(fields) = answer.value().and_then(pairs) else {
            return Err(self.link.strange("reading a gateway"));
        };
        let Some(head) = head else { return Ok(None) };
        let Some(head) = Head::parse(&head) else {
            self.link.bad("the head of a gateway", 1);
            return Ok(None);
        };
        let (presence, state) = (head.presence(), self.state(fields));
        Ok(Some(Snapshot { version: head.version, at_ms: head.at_ms, presence, state }))
    }

    async fn versions(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Version)>, RegistryError> {
        let heads = self.heads_of(tenant, building).await?;
        Ok(heads.into_iter().map(|(gateway, head)| (gateway, head.version)).collect())
    }

    async fn buildings(&self, tenant: &TenantId) -> Result<Vec<BuildingId>, RegistryError> {
        let call = Call::new().command("SMEMBERS", Some(Tenant::new(tenant).buildings()), &[]);
        let items = self.link.run(call).await?.into_iter().next().and_then(Items::of);
        let mut items = items.ok_or_else(|| self.link.strange("the buildings of a tenant"))?;
        let mut buildings = vec![];
        while items.left() > 0 {
            let building = items.parsed();
            self.link.bad("a building of a tenant", u64::from(building.is_none()));
            buildings.extend(building);
        }
        buildings.sort();
        Ok(buildings)
    }
}

/// What the script takes that stores a change (`lua/apply.lua`).
fn arguments(gateway: &GatewayId, version: Version, change: &Change, limits: &Limits) -> Arguments {
    let devices = change.devices.as_ref();
    let mut arguments = Arguments::new()
        .add(gateway.as_str())
        .number(version.epoch.0)
        .number(version.rev.0)
        .flag(change.full)
        .number(limits.paths as u64)
        .number(limits.state_bytes as u64)
        .number(devices.map_or(0, |devices| devices.0.len() as u64))
        .add(devices.map_or_else(String::new, |devices| Json::of(devices).as_str().to_owned()))
        .number(change.marks.len() as u64);
    for mark in &change.marks {
        arguments = arguments.add(mark.path.as_str()).flag(mark.up);
    }
    for (path, set) in &change.set {
        arguments.push(path.as_str());
        match (&set.value, set.stale) {
            (Some(value), stale) => arguments.push(format!("{}{}", u8::from(stale), value.as_str())),
            (None, false) => arguments.push("-"),
            (None, true) => arguments.push("+"),
        }
    }
    arguments
}

/// Whether a field is a value, or a description, as it is kept.
pub(super) fn is_kept(path: &[u8], text: &[u8]) -> bool {
    if path.is_empty() { serde_json::from_slice::<Devices>(text).is_ok() } else { value(path, text).is_some() }
}

fn value(path: &[u8], text: &[u8]) -> Option<(riser_core::Path, Kept)> {
    let path = std::str::from_utf8(path).ok()?.parse().ok()?;
    let (stale, json) = match std::str::from_utf8(text).ok()?.split_at_checked(1)? {
        ("0", json) => (false, json),
        ("1", json) => (true, json),
        _ => return None,
    };
    Some((path, Kept { value: Json::parse(json).ok()?, stale }))
}
