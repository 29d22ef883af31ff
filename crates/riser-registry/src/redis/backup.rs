//! What a backup keeps of Redis: each gateway's head, values and description, and its commands.
//!
//! A gateway is saved by one script, so that it is as it was at one moment; two gateways are of two moments. Leases, who is
//! online and open streams are not saved: they end with the edges. A gateway that was online is restored as one whose edge was
//! lost, and as one that must be asked for its full state, since it went on while the backup stood still. Its epoch is
//! kept, so that the next one is greater.
//!
//! Of commands the records are saved, and what names them elsewhere is made from them again.

use std::collections::{BTreeMap, BTreeSet};

use riser_core::command::{KEPT_MS, Record};
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, Reason, TenantId};
use serde::{Deserialize, Serialize};

use super::commands::{room_note, size};
use super::head::Head;
use super::keys::{self, Building, Tenant};
use super::link::{Arguments, Call};
use super::queue::Queue;
use super::replies::{Items, bytes, pairs, time_ms};
use super::{FIRST_INEXACT, RedisRegistry, scripts, state};
use crate::RegistryError;

/// Names of keys that Redis looks through in one call.
const SCANNED: &[u8] = b"1000";
/// Names of commands that one call brings.
const NAMES: usize = 4_096;
/// The words of a head.
const WORDS: usize = 13;

/// One gateway as a backup keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedGateway {
    /// Which.
    pub of: Address,
    /// When it was saved, Unix milliseconds on Redis' clock.
    pub saved_at_ms: u64,
    /// Its head, as scripts write it; none when only its commands are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    /// By path the values, as scripts write them; the description has no path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, String>,
    /// Records of its commands, open and decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    commands: Vec<Record>,
    /// The greatest place of a command.
    #[serde(default, skip_serializing_if = "is_zero")]
    place: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a saved gateway cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is none that an edge wrote")]
pub struct BadSaved(&'static str);

impl SavedGateway {
    /// Whether all of it is what an edge wrote.
    pub fn check(&self) -> Result<(), BadSaved> {
        if self.head.as_ref().is_some_and(|head| Head::parse(head.as_bytes()).is_none()) {
            return Err(BadSaved("a head"));
        }
        if !self.values.iter().all(|(path, text)| state::is_kept(path.as_bytes(), text.as_bytes())) {
            return Err(BadSaved("a value"));
        }
        let own = |record: &Record| record.cmd.of == self.of;
        if self.commands.iter().all(own) { Ok(()) } else { Err(BadSaved("a command")) }
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        self.values.keys().filter(|path| !path.is_empty()).count()
    }

    /// How many commands it has.
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// Their records.
    pub fn records(&self) -> &[Record] {
        &self.commands
    }

    /// Its head once no edge holds it.
    fn let_go(&self) -> Option<String> {
        let mut words: Vec<String> = self.head.as_ref()?.split(' ').map(str::to_owned).collect();
        let [_, rev, at, since, reason, edge, start, missing, ..] = &mut words[..] else { return None };
        if edge != "-" {
            *rev = (rev.parse::<u64>().ok()? + 1).to_string();
            (*at, *since) = (self.saved_at_ms.to_string(), self.saved_at_ms.to_string());
            (*edge, *start) = ("-".into(), "0".into());
            Reason::EdgeLost.as_str().clone_into(reason);
        }
        "1".clone_into(missing);
        (words.len() == WORDS).then(|| words.join(" "))
    }
}

impl RedisRegistry {
    /// The gateways of a building of which a backup has something to keep beside commands.
    pub async fn gateways(&self, tenant: &TenantId, building: &BuildingId) -> Result<Vec<GatewayId>, RegistryError> {
        let heads = Some(Building::new(tenant, building).heads());
        let names = self.link.run(Call::new().command("HKEYS", heads, &[])).await?;
        let items = names.into_iter().next().and_then(Items::of);
        let mut items = items.ok_or_else(|| self.link.strange("the gateways of a building"))?;
        let mut gateways = vec![];
        while items.left() > 0 {
            gateways.extend(items.parsed::<GatewayId>());
        }
        Ok(gateways)
    }

    /// The gateways of a tenant that have commands. One that never connected may have some that are held for it.
    pub async fn commanded(&self, tenant: &TenantId) -> Result<BTreeSet<Address>, RegistryError> {
        let keys = Tenant::new(tenant);
        let [open, ..] = keys.opened();
        let [decided, ..] = keys.room();
        let mut found = BTreeSet::new();
        for key in [open, decided] {
            for first in (0..).step_by(NAMES) {
                let (from, to) = (first.to_string(), (first + NAMES - 1).to_string());
                let call = Call::new().command("ZRANGE", Some(key.clone()), &[from.as_bytes(), to.as_bytes()]);
                let items = self.link.run(call).await?.into_iter().next().and_then(Items::of);
                let mut items = items.ok_or_else(|| self.link.strange("the commands of a tenant"))?;
                let count = items.left();
                while items.left() > 0 {
                    let name = items.parsed::<String>();
                    found.extend(name.and_then(|name| name.split_once(' ')?.0.parse::<Address>().ok()));
                }
                if count < NAMES {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// All that a backup keeps of a gateway; none when nothing is known of it.
    pub async fn save(&self, key: &GatewayKey) -> Result<Option<SavedGateway>, RegistryError> {
        let (building, of) = (Building::of(key), &key.address);
        let keys = vec![building.heads(), building.state(of), building.records(of)];
        let arguments = Arguments::new().add(of.gateway().as_str());
        let mut answer = self.answer(&scripts::SAVE, keys, arguments).await?;
        let (now_ms, head) = (answer.number(), answer.bytes());
        let (values, records) = (answer.value().and_then(pairs), answer.value().and_then(pairs));
        let (Some(saved_at_ms), Some(values), Some(records)) = (now_ms, values, records) else {
            return Err(self.link.strange("saving a gateway"));
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        let head = head.and_then(text).filter(|head| Head::parse(head.as_bytes()).is_some());
        let mut saved =
            SavedGateway { of: of.clone(), saved_at_ms, head, values: BTreeMap::new(), commands: vec![], place: 0 };
        if saved.head.is_some() {
            let good = values.into_iter().filter(|(path, value)| state::is_kept(path, value));
            saved.values = good.filter_map(|(path, value)| Some((text(path)?, text(value)?))).collect();
        }
        for (name, value) in records {
            match &name[..] {
                b"v" | b"b" => {}
                b"l" => saved.place = super::sessions::score(&value),
                _ => saved.commands.extend(self.record(&value)),
            }
        }
        saved.commands.sort_by_key(|record| record.seq);
        let is_empty = saved.head.is_none() && saved.commands.is_empty();
        Ok((!is_empty).then_some(saved))
    }

    /// Writes a gateway that was saved, instead of what is there. Doing so again changes nothing.
    pub async fn load(&self, tenant: &TenantId, saved: &SavedGateway) -> Result<(), RegistryError> {
        let time = self.link.run(Call::new().command("TIME", None, &[])).await?.into_iter().next().and_then(time_ms);
        let now_ms = time.ok_or_else(|| self.link.strange("the clock"))?;
        let (of, building) = (&saved.of, Building::new(tenant, saved.of.building()));
        let is_over = |r: &Record| r.decided().is_some() && r.deadline_at_ms.saturating_add(KEPT_MS) <= now_ms;
        let records: Vec<_> = saved.commands.iter().filter(|record| !is_over(record)).collect();
        let mut queue = Queue::default();
        let mut arguments = Arguments::new();
        for record in &records {
            queue.put(record);
            let expiry = match record.decided() {
                Some(_) => record.deadline_at_ms.saturating_add(KEPT_MS).min(FIRST_INEXACT),
                None => 0,
            };
            let text = riser_core::Json::of(*record);
            arguments =
                arguments.add(record.cmd.digest.to_string()).add(text.as_str()).number(record.seq).number(expiry);
        }
        let mut load = Arguments::new()
            .add(of.gateway().as_str())
            .add(saved.let_go().unwrap_or_default())
            .add(queue.line())
            .add(format!("{:016x}", fastrand::u64(..)))
            .number(saved.place)
            .number(saved.values.len() as u64);
        for (path, text) in &saved.values {
            load = load.add(path).add(text);
        }
        load.append(&arguments);
        let keys = vec![
            building.heads(),
            building.state(of),
            building.open(),
            building.records(of),
            building.decided(of),
            building.expiry(of),
        ];
        let call = Self::names(tenant, &records);
        let call = match &saved.head {
            Some(_) => {
                let name = of.building().as_str().as_bytes();
                call.command("SADD", Some(Tenant::new(tenant).buildings()), &[name])
            }
            None => call,
        };
        self.link.run(call.script(&scripts::LOAD, keys, &load)).await.map(drop)
    }

    /// Notes commands where they are named beside their records.
    fn names(tenant: &TenantId, records: &[&Record]) -> Call {
        let (mut call, mut decided) = (Call::new(), vec![]);
        for record in records {
            if record.decided().is_some() {
                decided.push((super::commands::room_name(&record.cmd), record.cmd.at_ms, size(record)));
                continue;
            }
            let (deadline, due) = (record.deadline_at_ms.to_string(), keys::due_entry(tenant, &record.cmd));
            call = call.command("ZADD", Some(keys::due()), &[deadline.as_bytes(), due.as_bytes()]);
            call = super::commands::opened(call, tenant, record, true);
        }
        if decided.is_empty() { call } else { room_note(call, tenant, &decided) }
    }

    /// The name of a key of ours, if there is any but the mark of a restore.
    pub async fn any_key(&self) -> Result<Option<String>, RegistryError> {
        let mut cursor = b"0".to_vec();
        loop {
            let call = Call::new().command("SCAN", None, &[&cursor, b"MATCH", keys::ALL, b"COUNT", SCANNED]);
            let items = self.link.run(call).await?.into_iter().next().and_then(Items::of);
            let found = items.and_then(|mut items| Some((items.bytes()?, Items::of(items.value()?)?)));
            let (next, mut names) = found.ok_or_else(|| self.link.strange("the names of keys"))?;
            while names.left() > 0 {
                let name = names.parsed::<String>();
                if let Some(name) = name.filter(|name| *name != keys::mark().name) {
                    return Ok(Some(name));
                }
            }
            if next == b"0" {
                return Ok(None);
            }
            cursor = next;
        }
    }

    /// Which restore has begun here and not ended.
    pub async fn restoring(&self) -> Result<Option<String>, RegistryError> {
        let mark = self.link.run(Call::new().command("GET", Some(keys::mark()), &[])).await?.into_iter().next();
        Ok(mark.and_then(bytes).and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Notes that a restore begins, or that none is under way.
    pub async fn set_restoring(&self, mark: Option<&str>) -> Result<(), RegistryError> {
        let call = match mark {
            Some(mark) => Call::new().command("SET", Some(keys::mark()), &[mark.as_bytes()]),
            None => Call::new().command("UNLINK", Some(keys::mark()), &[]),
        };
        self.link.run(call).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(head: &str) -> SavedGateway {
        let values = [(String::new(), "{}".to_owned()), ("hall/lock".to_owned(), "0\"locked\"".to_owned())];
        SavedGateway {
            of: "b/g".parse().expect("an address"),
            saved_at_ms: 99,
            head: Some(head.into()),
            values: values.into(),
            commands: vec![],
            place: 0,
        }
    }

    #[test]
    fn who_was_online_is_let_go_and_who_was_not_keeps_why() {
        let online = saved("12 3 45 40 - e-1 7 0 1 44 2 30 1").let_go().expect("a head");
        assert_eq!(online, "12 4 99 99 edge_lost - 0 1 1 44 2 30 1");
        assert!(Head::parse(online.as_bytes()).is_some_and(|head| head.holder().is_none()));
        let offline = saved("12 3 45 40 closed - 0 0 1 44 2 30 1").let_go().expect("a head");
        assert_eq!(offline, "12 3 45 40 closed - 0 1 1 44 2 30 1");
    }

    #[test]
    fn what_no_edge_wrote_is_refused() {
        let good = saved("12 3 45 40 - e-1 7 0 1 44 2 30 1");
        assert_eq!((good.check(), good.values()), (Ok(()), 1));
        assert!(saved("12 3").check().is_err());
        for (path, text) in [("", "{"), ("hall/lock", "2true"), ("hall/lock", "0tru"), ("#", "0true")] {
            let bad = SavedGateway { values: [(path.to_owned(), text.to_owned())].into(), ..good.clone() };
            assert!(bad.check().is_err(), "{path} {text}");
        }
    }
}
