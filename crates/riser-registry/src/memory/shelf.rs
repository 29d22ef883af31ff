//! The commands of one gateway, and the order in which overdue ones are found. Nothing here waits or looks at a clock.

use std::collections::BTreeMap;

use riser_core::command::{CommandId, Digest, HELD, KEPT_MS, Record, Step, Took};
use riser_core::{Address, Json};

use crate::commands::{DECIDED, DECIDED_BYTES, OPEN, RECORDS_PAGE};
use crate::{Created, Holder, NewCommand, Stepped};

/// All that is kept of one gateway's commands.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    /// By their places.
    records: BTreeMap<u64, Record>,
    /// The place of each record.
    places: BTreeMap<Digest, u64>,
    /// The greatest place that was given.
    last: u64,
}

impl Shelf {
    /// `full` says that no further command of the tenant may be open.
    pub(super) fn create(
        &mut self,
        of: &Address,
        new: &NewCommand,
        holder: Option<Holder>,
        now_ms: u64,
        full: bool,
    ) -> Created {
        self.forget(now_ms);
        if let Some(record) = self.places.get(&new.digest).and_then(|seq| self.records.get_mut(seq)) {
            if !record.body.is_same(&new.body) {
                return Created::Conflict;
            }
            let before = record.outcomes.len();
            record.tell(&new.edge);
            record.step(&Step::Look, None, now_ms);
            return recorded(record, Took::Nothing, before, holder, now_ms);
        }
        let open = self.records.values().filter(|record| record.decided().is_none());
        let (mut opened, mut held) = (0, 0);
        for record in open {
            opened += 1;
            held += usize::from(record.body.hold && record.is_unsent());
        }
        if new.body.hold && holder.is_none() && (held >= HELD || new.no_room) {
            return Created::QueueFull;
        }
        if opened >= OPEN || full && (new.body.hold || holder.is_some()) {
            return Created::TooMany;
        }
        let record = new.begun(of, &mut self.last, holder.is_some(), now_ms);
        let created = recorded(&record, Took::Yes, 0, holder, now_ms);
        self.places.insert(new.digest, record.seq);
        self.records.insert(record.seq, record);
        created
    }

    /// How many are not decided.
    pub(super) fn undecided(&self) -> usize {
        self.records.values().filter(|record| record.decided().is_none()).count()
    }

    pub(super) fn step(
        &mut self,
        cmd: &CommandId,
        step: &Step,
        holder: Option<Holder>,
        now_ms: u64,
    ) -> Option<Stepped> {
        self.forget(now_ms);
        let record = self.places.get(&cmd.digest).and_then(|seq| self.records.get_mut(seq))?;
        if record.cmd.at_ms != cmd.at_ms {
            return None;
        }
        let before = record.outcomes.len();
        let took = record.step(step, holder.as_ref().map(|holder| holder.epoch), now_ms);
        Some(Stepped { record: record.clone(), took, before, holder, now_ms })
    }

    pub(super) fn adopt(&mut self, copy: &Record, now_ms: u64) -> bool {
        self.forget(now_ms);
        let is_over = copy.decided().is_some() && copy.deadline_at_ms.saturating_add(KEPT_MS) <= now_ms;
        let known = self.places.get(&copy.cmd.digest).copied();
        let known_follows = known.and_then(|seq| self.records.get(&seq)).is_some_and(|record| record.follows(copy));
        if is_over || known_follows {
            return false;
        }
        if let Some(seq) = known {
            self.remove(seq);
        }
        let mut record = copy.clone();
        // Its place may have been given again by a store that had lost everything.
        while self.records.contains_key(&record.seq) {
            record.seq += 1;
        }
        self.last = self.last.max(record.seq);
        self.places.insert(record.cmd.digest, record.seq);
        self.records.insert(record.seq, record);
        true
    }

    pub(super) fn open(&self, after: u64, limit: usize) -> Vec<Record> {
        let open = self.records.range(after.saturating_add(1)..).filter(|(_, record)| record.decided().is_none());
        open.take(limit.min(RECORDS_PAGE)).map(|(_, record)| record.clone()).collect()
    }

    pub(super) fn latest(&self, before: Option<u64>, limit: usize) -> Vec<Record> {
        let records = self.records.range(..before.unwrap_or(u64::MAX)).rev();
        records.take(limit.min(RECORDS_PAGE)).map(|(_, record)| record.clone()).collect()
    }

    /// The commands whose deadline has passed and that are not decided, with their deadlines.
    pub(super) fn overdue(&self, now_ms: u64) -> impl Iterator<Item = (u64, CommandId)> {
        let overdue = self.records.values().filter(move |r| r.deadline_at_ms <= now_ms && r.decided().is_none());
        overdue.map(|record| (record.deadline_at_ms, record.cmd.clone()))
    }

    /// How many are not decided, and how many of those wait to be sent for the first time.
    pub(super) fn counts(&self, now_ms: u64) -> (usize, usize) {
        let open = self.records.values().filter(|r| r.deadline_at_ms > now_ms && r.decided().is_none());
        open.fold((0, 0), |(open, unsent), record| (open + 1, unsent + usize::from(record.is_unsent())))
    }

    /// Whether nothing is lost with it: also the next place is the same without it.
    pub(super) fn is_needless(&self, now_ms: u64) -> bool {
        self.records.is_empty() && self.last < now_ms
    }

    /// Forgets decided commands whose time is over, and the oldest when there are too many.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let (mut decided, mut taken) = (0, 0);
        let mut old = Vec::new();
        for (seq, record) in self.records.iter().rev().filter(|(_, record)| record.decided().is_some()) {
            decided += 1;
            taken += bytes(record);
            if decided > DECIDED || taken > DECIDED_BYTES || record.deadline_at_ms.saturating_add(KEPT_MS) <= now_ms {
                old.push(*seq);
            }
        }
        for seq in old {
            self.remove(seq);
        }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What the records take, roughly, and of it those that are not decided.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let add = |(all, open): (usize, usize), record: &Record| {
            let bytes = bytes(record);
            (all + bytes, open + if record.decided().is_none() { bytes } else { 0 })
        };
        self.records.values().fold((0, 0), add)
    }

    /// The decided records by when they were accepted, and what each takes.
    pub(super) fn decided(&self) -> impl Iterator<Item = (u64, u64, usize)> {
        let decided = self.records.iter().filter(|(_, record)| record.decided().is_some());
        decided.map(|(seq, record)| (record.cmd.at_ms, *seq, bytes(record)))
    }

    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(record) = self.records.remove(&seq) {
            self.places.remove(&record.cmd.digest);
        }
    }
}

/// What a record takes: its texts, and some hundred bytes around them.
pub(super) fn bytes(record: &Record) -> usize {
    const AROUND: usize = 512;
    let size = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
    AROUND
        + size(&record.body.args)
        + record.outcomes.iter().map(|outcome| AROUND / 4 + size(&outcome.data)).sum::<usize>()
}

fn recorded(record: &Record, took: Took, before: usize, holder: Option<Holder>, now_ms: u64) -> Created {
    Created::Recorded(Box::new(Stepped { record: record.clone(), took, before, holder, now_ms }))
}
