//! Records of commands: read, decide by riser-core's rule, and write if nothing came in between.
//!
//! What names a command elsewhere is written before it, so that nothing is ever lost of one that is there: its deadline
//! among those of all commands, its bytes among those of its tenant. What such a note then finds not to be so is taken out.

use async_trait::async_trait;
use redis::Value;
use riser_core::command::{CommandId, HELD, KEPT_MS, Record, Step, Took};
use riser_core::{Address, EdgeId, GatewayKey, Json, TenantId};

use super::keys::{self, Building, Key, Tenant};
use super::link::{Arguments, Call};
use super::queue::{Open, Queue, digest};
use super::replies::{Items, bytes};
use super::sessions::score;
use super::{FIRST_INEXACT, RedisRegistry, scripts};
use crate::commands::{
    DECIDED, DECIDED_BYTES, OPEN, OPEN_BYTES, OVERDUE_PAGE, RECORDS_BYTES, RECORDS_PAGE, SWEEPER_MS,
};
use crate::{CommandStore, Created, Holder, NewCommand, RegistryError, Stepped};

/// How often a step is decided at most, because others' steps on the same gateway came in between.
const TRIES: usize = 256;
/// Decided commands of a tenant that one call gives up at most, to make room. One call brings one.
const GIVEN_UP: usize = 64;
/// Bytes that are left when room is made, so that it is not made soon again.
const LEFT_BYTES: usize = RECORDS_BYTES / 4 * 3;
/// For how long a decided command can be there at all, in milliseconds: its deadline is a day away at most.
const EVER_MS: u64 = 86_400_000 + KEPT_MS;
/// What the script that writes a command answers when it did.
const WRITTEN: u64 = 2;
/// For how long after its deadline what an open command takes is counted, in milliseconds: it is decided long before.
const OPEN_MS: u64 = 60_000;
/// Pages of overdue commands that are looked at to fill one.
const PAGES: usize = 4;

/// What a step is decided by.
struct Shelf {
    now_ms: u64,
    /// As the script compares it.
    held: String,
    holder: Option<Holder>,
    queue: Queue,
    /// The mark of the last write.
    mark: Vec<u8>,
    /// The greatest place that was given; 0 when nothing is known.
    last: u64,
    record: Option<Record>,
}

/// What was decided.
enum Decision<T> {
    /// Nothing is to be written.
    Answer(T),
    /// This record is, and then that is the answer.
    Write(Box<Record>, T),
}

/// The keys of a gateway's commands, in the order of the scripts.
fn keys(key: &GatewayKey) -> Vec<Key> {
    let (building, of) = (Building::of(key), &key.address);
    vec![building.heads(), building.open(), building.records(of), building.decided(of), building.expiry(of)]
}

impl Shelf {
    /// What becomes of a new command, as the contract has it. `full` says that no further one of the tenant may be open.
    fn create(&mut self, of: &Address, new: &NewCommand, full: bool) -> Decision<Created> {
        let now_ms = self.now_ms;
        let recorded = |record: &Record, took, before, holder: &Option<Holder>| {
            let (record, holder) = (record.clone(), holder.clone());
            Created::Recorded(Box::new(Stepped { record, took, before, holder, now_ms }))
        };
        if let Some(mut record) = self.record.take() {
            if !record.body.is_same(&new.body) {
                return Decision::Answer(Created::Conflict);
            }
            let (before, known) = (record.outcomes.len(), record.edges.clone());
            record.tell(&new.edge);
            record.step(&Step::Look, None, now_ms);
            let created = recorded(&record, Took::Nothing, before, &self.holder);
            if record.edges == known && record.outcomes.len() == before {
                return Decision::Answer(created);
            }
            return Decision::Write(Box::new(record), created);
        }
        let held = self.queue.0.iter().filter(|open| open.hold && open.unsent).count();
        if new.body.hold && self.holder.is_none() && (held >= HELD || new.no_room) {
            return Decision::Answer(Created::QueueFull);
        }
        if self.queue.0.len() >= OPEN || full && (new.body.hold || self.holder.is_some()) {
            return Decision::Answer(Created::TooMany);
        }
        let record = new.begun(of, &mut self.last, self.holder.is_some(), now_ms);
        let created = recorded(&record, Took::Yes, 0, &self.holder);
        Decision::Write(Box::new(record), created)
    }

    /// What a step does.
    fn step(&mut self, cmd: &CommandId, step: &Step) -> Decision<Option<Stepped>> {
        let Some(before) = self.record.take().filter(|record| record.cmd.at_ms == cmd.at_ms) else {
            return Decision::Answer(None);
        };
        let mut record = before.clone();
        let took = record.step(step, self.holder.as_ref().map(|holder| holder.epoch), self.now_ms);
        let stepped = Stepped {
            record: record.clone(),
            took,
            before: before.outcomes.len(),
            holder: self.holder.clone(),
            now_ms: self.now_ms,
        };
        if record == before {
            return Decision::Answer(Some(stepped));
        }
        Decision::Write(Box::new(record), Some(stepped))
    }
}

impl Shelf {
    /// What becomes of a copy, as the contract has it.
    fn adopt(&mut self, copy: &Record) -> Decision<bool> {
        let is_over = copy.decided().is_some() && copy.deadline_at_ms.saturating_add(KEPT_MS) <= self.now_ms;
        if is_over || self.record.as_ref().is_some_and(|record| record.follows(copy)) {
            return Decision::Answer(false);
        }
        self.last = self.last.max(copy.seq);
        Decision::Write(Box::new(copy.clone()), true)
    }
}

impl RedisRegistry {
    /// Decides something of a command until it is written as it was decided.
    async fn decide<T: Send>(
        &self,
        key: &GatewayKey,
        cmd: &str,
        decide: impl Fn(&mut Shelf) -> Decision<T> + Send + Sync,
    ) -> Result<T, RegistryError> {
        let arguments = Arguments::new().add(key.address.gateway().as_str()).add(cmd);
        let look = self.answer(&scripts::LOOK, keys(key), arguments).await?;
        let mut shelf = self.shelf(look)?;
        for _ in 0..TRIES {
            let (record, answer) = match decide(&mut shelf) {
                Decision::Answer(answer) => return Ok(answer),
                Decision::Write(record, answer) => (record, answer),
            };
            match self.commit(key, shelf, &record).await? {
                None => return Ok(answer),
                Some(newer) => shelf = newer,
            }
            self.link.counters.conflicts.add();
        }
        Err(RegistryError::Unavailable)
    }

    fn shelf(&self, mut look: Items) -> Result<Shelf, RegistryError> {
        let mut read = || {
            let (now_ms, held, line) = (look.number()?, look.bytes()?, look.bytes());
            let (mark, last, fields, record) = (look.bytes(), look.bytes(), look.number()?, look.bytes());
            let held = String::from_utf8(held).ok()?;
            let holder = match held.split_once(' ') {
                Some((epoch, edge)) => {
                    Some(Holder { edge: edge.parse().ok()?, epoch: riser_core::Epoch(epoch.parse().ok()?) })
                }
                None => None,
            };
            let record = record.and_then(|text| self.record(&text));
            // One whose time is over is forgotten, also when nobody has taken it out.
            let is_over = |r: &Record| r.decided().is_some() && r.deadline_at_ms.saturating_add(KEPT_MS) <= now_ms;
            let record = record.filter(|record| !is_over(record));
            // The mark, the place and the bytes alone are no records, and then a place counts only if it could be given again.
            let last = last.map_or(0, |last| score(&last));
            let last = if fields > 3 || last >= now_ms { last } else { 0 };
            Some(Shelf {
                now_ms,
                held,
                holder,
                queue: self.queue(line.as_deref()),
                mark: mark.unwrap_or_default(),
                last,
                record,
            })
        };
        read().ok_or_else(|| self.link.strange("the commands of a gateway"))
    }

    /// Reads a record; none when it is something else.
    pub(super) fn record(&self, text: &[u8]) -> Option<Record> {
        let record = serde_json::from_slice(text).ok();
        self.link.bad("the record of a command", u64::from(record.is_none()));
        record
    }

    /// Writes a record. Gives what stands there when something came in between.
    async fn commit(
        &self,
        key: &GatewayKey,
        mut shelf: Shelf,
        record: &Record,
    ) -> Result<Option<Shelf>, RegistryError> {
        let was_open = shelf.queue.0.iter().any(|open| open.digest == record.cmd.digest);
        let is_open = record.decided().is_none();
        shelf.queue.put(record);
        let expiry = if is_open { 0 } else { record.deadline_at_ms.saturating_add(KEPT_MS).min(FIRST_INEXACT) };
        let arguments = Arguments::new()
            .add(key.address.gateway().as_str())
            .add(record.cmd.digest.to_string())
            .add(&shelf.held)
            .add(&shelf.mark)
            .add(format!("{:016x}", fastrand::u64(..)))
            .add(Json::of(record).as_str())
            .add(shelf.queue.line())
            .number(shelf.last)
            .number(record.seq)
            .number(expiry)
            .number(DECIDED as u64)
            .number(DECIDED_BYTES as u64);
        let due = keys::due_entry(&key.tenant, &record.cmd);
        let call = if is_open {
            let deadline = record.deadline_at_ms.to_string();
            Call::new().command("ZADD", Some(keys::due()), &[deadline.as_bytes(), due.as_bytes()])
        } else {
            room(&key.tenant, &[(room_name(&record.cmd), record.cmd.at_ms, size(record))])
        };
        let call = call.script(&scripts::COMMIT, keys(key), &arguments);
        let call = if was_open == is_open { call } else { opened(call, &key.tenant, record, is_open) };
        let mut replies = self.link.run(call).await?.into_iter();
        let (first, committed) = (replies.next(), replies.next().and_then(Items::of));
        if let Some(total) = replies.next()
            && is_open
        {
            self.note_room(&key.tenant, Some(total));
        }
        let mut committed = committed.ok_or_else(|| self.link.strange("writing a command"))?;
        let word = committed.number().unwrap_or(0);
        let is_written = word == WRITTEN;
        if is_written && was_open && !is_open {
            let mut remove = redis::cmd("ZREM");
            remove.arg(keys::due().name).arg(due);
            self.link.tell(remove).await;
        }
        if !is_open {
            self.make_room(&key.tenant, first).await;
        }
        if is_written {
            self.gave_way(&key.tenant, &key.address, committed).await;
            return Ok(None);
        }
        self.link.bad("the head of a gateway", word);
        self.shelf(committed).map(Some)
    }

    /// Whether the open commands of a tenant take all that they may. Asked for only when a command has found it so.
    async fn is_full(&self, tenant: &TenantId) -> Result<bool, RegistryError> {
        if !self.full.lock().contains(tenant) {
            return Ok(false);
        }
        let arguments = Arguments::new().number(OPEN_MS);
        let call = Call::new().script(&scripts::OPENED, Tenant::new(tenant).opened().to_vec(), &arguments);
        let total = self.link.run(call).await?.into_iter().next();
        Ok(self.note_room(tenant, total))
    }

    /// Takes what the open commands of a tenant take; says whether that is too much.
    fn note_room(&self, tenant: &TenantId, total: Option<Value>) -> bool {
        let total = total.and_then(Items::of).and_then(|mut items| {
            items.number();
            items.number()
        });
        let is_full = total.is_some_and(|total| total > OPEN_BYTES as u64);
        let mut full = self.full.lock();
        if is_full {
            full.insert(tenant.clone());
        } else {
            full.remove(tenant);
        }
        is_full
    }

    /// Notes that decided commands of a gateway are gone: others of its tenant need not give way for what they took.
    async fn gave_way(&self, tenant: &TenantId, of: &Address, mut digests: Items) {
        let mut gone = vec![];
        while digests.left() > 0 {
            gone.extend(digests.parsed::<String>().map(|digest| (format!("{of} {digest}"), 0, 0)));
        }
        if !gone.is_empty() {
            // What is not noted now is found not to be there when it is its turn.
            drop(self.link.run(room(tenant, &gone)).await);
        }
    }

    /// Gives up those decided commands of a tenant that a script has found to be too many. What is not given up now, the next
    /// command will.
    async fn make_room(&self, tenant: &TenantId, found: Option<Value>) {
        let Some(mut found) = found.and_then(Items::of) else { return };
        found.number();
        let (mut call, mut gone) = (Call::new(), vec![]);
        while found.left() > 0 {
            let Some(name) = found.parsed::<String>() else { continue };
            if let Some((of, digest)) = room_parts(&name) {
                let building = Building::new(tenant, of.building());
                let keys = vec![building.records(&of), building.decided(&of), building.expiry(&of)];
                call = call.script(&scripts::EVICT, keys, &Arguments::new().add(digest));
            }
            gone.push((name, 0, 0));
        }
        if !gone.is_empty() && self.link.run(call).await.is_ok() {
            // Those that come too many now are found by the next command.
            drop(self.link.run(room(tenant, &gone)).await);
        }
    }

    /// Which of these commands are open: of the others only the name is left.
    async fn still_open(&self, named: Vec<Due>) -> Result<(Vec<Due>, Vec<Due>), RegistryError> {
        if named.is_empty() {
            return Ok((named, vec![]));
        }
        let mut call = Call::new();
        for due in &named {
            let open = Building::new(&due.tenant, due.cmd.of.building()).open();
            call = call.command("HGET", Some(open), &[due.cmd.of.gateway().as_str().as_bytes()]);
        }
        let lines = self.link.run(call).await?;
        let (mut open, mut gone) = (vec![], vec![]);
        for (due, line) in named.into_iter().zip(lines) {
            let queue = self.queue(bytes(line).as_deref());
            let is_it = |open: &Open| open.digest == due.cmd.digest && open.deadline_at_ms == due.deadline_at_ms;
            if queue.0.iter().any(is_it) { open.push(due) } else { gone.push(due) }
        }
        Ok((open, gone))
    }

    async fn forget_due(&self, names: &[String]) -> Result<(), RegistryError> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = names.iter().map(String::as_bytes).collect();
        self.link.run(Call::new().command("ZREM", Some(keys::due()), &names)).await.map(drop)
    }

    async fn records(
        &self,
        script: &'static scripts::Script,
        keys: Vec<Key>,
        arguments: Arguments,
    ) -> Result<Vec<Record>, RegistryError> {
        let mut answer = self.answer(script, keys, arguments).await?;
        let mut records = vec![];
        while answer.left() > 0 {
            // One that is gone while its place is not was somebody else's doing.
            let text = answer.bytes();
            records.extend(text.and_then(|text| self.record(&text)));
        }
        Ok(records)
    }
}

#[async_trait]
impl CommandStore for RedisRegistry {
    async fn create(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError> {
        let digest = command.digest.to_string();
        let create = async {
            let full = self.is_full(&key.tenant).await?;
            self.decide(key, &digest, |shelf| shelf.create(&key.address, command, full)).await
        };
        self.link.within_a_call(create).await
    }

    async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Result<Option<Stepped>, RegistryError> {
        self.link.within_a_call(self.decide(key, &cmd.digest.to_string(), |shelf| shelf.step(cmd, step))).await
    }

    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Result<Vec<Record>, RegistryError> {
        let (building, of) = (Building::of(key), &key.address);
        let arguments = Arguments::new().add(of.gateway().as_str()).number(after.min(FIRST_INEXACT));
        let arguments = arguments.number(limit.min(RECORDS_PAGE) as u64);
        self.records(&scripts::OPEN, vec![building.open(), building.records(of)], arguments).await
    }

    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Result<Vec<Record>, RegistryError> {
        let before = before.unwrap_or(FIRST_INEXACT).min(FIRST_INEXACT);
        let arguments = Arguments::new().add(key.address.gateway().as_str()).number(before);
        self.records(&scripts::LATEST, keys(key), arguments.number(limit.min(RECORDS_PAGE) as u64)).await
    }

    async fn undecided(&self, tenant: &TenantId) -> Result<u64, RegistryError> {
        let keys = Tenant::new(tenant).opened();
        let [by_deadline, ..] = keys.clone();
        // The script takes out those whose time is over.
        let call = Call::new().script(&scripts::OPENED, keys.to_vec(), &Arguments::new().number(OPEN_MS));
        let counted = self.link.run(call.command("ZCARD", Some(by_deadline), &[])).await?.into_iter().nth(1);
        match counted {
            Some(Value::Int(count)) => Ok(u64::try_from(count).unwrap_or_default()),
            _ => Err(self.link.strange("the open commands of a tenant")),
        }
    }

    async fn overdue(&self, by: &EdgeId) -> Result<Vec<(TenantId, CommandId)>, RegistryError> {
        let mut overdue = vec![];
        for _ in 0..PAGES {
            let arguments = Arguments::new().add(by.as_str()).number(SWEEPER_MS).number(overdue.len() as u64);
            let arguments = arguments.number((OVERDUE_PAGE - overdue.len()) as u64);
            let mut answer = self.answer(&scripts::OVERDUE, vec![keys::due(), keys::sweeper()], arguments).await?;
            let (mut named, mut gone) = (vec![], vec![]);
            while answer.left() > 0 {
                let (name, deadline) = (answer.parsed::<String>(), answer.bytes());
                let Some(name) = name else { continue };
                let deadline_at_ms = deadline.map_or(0, |deadline| score(&deadline));
                match Due::parse(&name, deadline_at_ms) {
                    Some(due) => named.push(due),
                    None => gone.push(name),
                }
            }
            self.link.bad("the deadline of a command", gone.len() as u64);
            let many = named.len() + gone.len();
            let (open, decided) = self.still_open(named).await?;
            gone.extend(decided.iter().map(|due| keys::due_entry(&due.tenant, &due.cmd)));
            self.forget_due(&gone).await?;
            overdue.extend(open);
            if many == 0 || gone.is_empty() {
                break;
            }
        }
        overdue.sort_by_key(|due| due.deadline_at_ms);
        Ok(overdue.into_iter().map(|due| (due.tenant, due.cmd)).collect())
    }

    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError> {
        let digest = copy.cmd.digest.to_string();
        self.link.within_a_call(self.decide(key, &digest, |shelf| shelf.adopt(copy))).await
    }

    async fn life(&self) -> Result<u64, RegistryError> {
        // Before it is asked, so that an answer never stands for a connection that came after.
        let reconnects = self.counts().reconnects;
        let new = fastrand::u64(..).to_string();
        let call = Call::new().command("SET", Some(keys::life()), &[new.as_bytes(), b"NX", b"GET"]);
        let there = self.link.run(call).await?.into_iter().next().and_then(bytes).unwrap_or(new.into_bytes());
        let life = std::str::from_utf8(&there).ok().and_then(|there| there.parse::<u64>().ok());
        self.link.bad("the store's life", u64::from(life.is_none()));
        Ok(life.unwrap_or_default().wrapping_add(reconnects))
    }
}

/// A command that is among the deadlines.
struct Due {
    tenant: TenantId,
    cmd: CommandId,
    deadline_at_ms: u64,
}

impl Due {
    fn parse(name: &str, deadline_at_ms: u64) -> Option<Self> {
        let (tenant, cmd) = keys::parse_due_entry(name)?;
        Some(Self { tenant, cmd, deadline_at_ms })
    }
}

/// What a command is called among the decided ones of its tenant.
pub(super) fn room_name(cmd: &CommandId) -> String {
    format!("{} {}", cmd.of, cmd.digest)
}

pub(super) fn room_parts(name: &str) -> Option<(Address, &str)> {
    let (of, hex) = name.split_once(' ')?;
    digest(hex)?;
    Some((of.parse().ok()?, hex))
}

/// Notes what decided commands take: their names, when each was accepted, and its bytes.
fn room(tenant: &TenantId, commands: &[(String, u64, usize)]) -> Call {
    room_note(Call::new(), tenant, commands)
}

/// The same behind other things.
pub(super) fn room_note(call: Call, tenant: &TenantId, commands: &[(String, u64, usize)]) -> Call {
    let mut arguments =
        Arguments::new().number(RECORDS_BYTES as u64).number(LEFT_BYTES as u64).number(GIVEN_UP as u64).number(EVER_MS);
    for (name, at_ms, bytes) in commands {
        arguments = arguments.add(name).number(*at_ms).number(*bytes as u64);
    }
    call.script(&scripts::ROOM, Tenant::new(tenant).room().to_vec(), &arguments)
}

/// Notes what a command takes that is open now, or that it is not open any more.
pub(super) fn opened(call: Call, tenant: &TenantId, record: &Record, is_open: bool) -> Call {
    let bytes = if is_open { size(record) } else { 0 };
    let arguments = Arguments::new().number(OPEN_MS).add(room_name(&record.cmd));
    let arguments = arguments.number(record.deadline_at_ms.min(FIRST_INEXACT)).number(bytes as u64);
    call.script(&scripts::OPENED, Tenant::new(tenant).opened().to_vec(), &arguments)
}

/// What a record takes: its texts, and some hundred bytes around them.
pub(super) fn size(record: &Record) -> usize {
    const AROUND: usize = 512;
    let size = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
    let outcomes = record.outcomes.iter().map(|outcome| AROUND / 4 + size(&outcome.data));
    AROUND + size(&record.body.args) + outcomes.sum::<usize>()
}
