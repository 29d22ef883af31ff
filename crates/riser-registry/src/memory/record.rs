//! What is kept of one gateway, and what each operation does to it. Nothing here waits or looks at a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use riser_core::limits::Limits;
use riser_core::state::State;
use riser_core::{Change, Epoch, Presence, Reason, Snapshot, Version};

use super::millis;
use crate::{Acquired, Applied, Ended, Lease, Restored, TAKEOVER_WINDOW};

/// Stands for the state of a gateway that has none.
static NO_STATE: State = State { values: BTreeMap::new(), devices: None };

/// One gateway. Kept small, because most gateways of a large cluster are idle.
#[derive(Clone)]
pub(super) struct Record {
    version: Version,
    /// When it came to this version.
    at_ms: u64,
    /// When it came online, or when it went offline.
    since_ms: u64,
    /// Why presence last changed.
    reason: Option<Reason>,
    /// The lease that holds it; none when it is offline.
    holder: Option<Arc<Lease>>,
    /// Whether values that had been stored are gone and did not come again.
    incomplete: bool,
    /// How often it was taken over since `takeovers_since_ms`.
    takeovers: u16,
    /// When the takeovers began that are counted.
    takeovers_since_ms: u64,
    /// In a box of its own, and only when there is anything in it.
    state: Option<Box<State>>,
}

impl Record {
    /// Begins the first session that is known of a gateway.
    pub(super) fn first(holder: Arc<Lease>, floor: Option<Epoch>, now_ms: u64) -> (Self, Acquired) {
        let epoch = Epoch::next(None, now_ms, floor);
        let record = Self {
            version: Version::start(epoch),
            at_ms: now_ms,
            since_ms: now_ms,
            reason: None,
            holder: Some(holder),
            incomplete: false,
            takeovers: 0,
            takeovers_since_ms: 0,
            state: None,
        };
        let acquired = Acquired {
            epoch,
            before: None,
            has_state: false,
            taken_from: None,
            since_ms: now_ms,
            takeovers: 0,
            open_commands: 0,
            has_streams: false,
            now_ms,
        };
        (record, acquired)
    }

    /// Begins a further session.
    pub(super) fn acquire(&mut self, holder: Arc<Lease>, floor: Option<Epoch>, now_ms: u64) -> Acquired {
        let epoch = Epoch::next(Some(self.version.epoch), now_ms, floor);
        let before = std::mem::replace(&mut self.version, Version::start(epoch));
        self.at_ms = now_ms;
        let taken_from = self.holder.replace(holder);
        if taken_from.is_none() {
            self.since_ms = now_ms;
        }
        self.reason = taken_from.as_ref().map(|_| Reason::Takeover);
        if now_ms >= self.takeovers_since_ms.saturating_add(millis(TAKEOVER_WINDOW)) {
            (self.takeovers, self.takeovers_since_ms) = (0, now_ms);
        }
        self.takeovers = self.takeovers.saturating_add(u16::from(taken_from.is_some()));
        Acquired {
            epoch,
            before: Some(before),
            has_state: !self.incomplete && self.state.is_some(),
            taken_from: taken_from.map(Arc::unwrap_or_clone),
            since_ms: self.since_ms,
            takeovers: u32::from(self.takeovers),
            open_commands: 0,
            has_streams: false,
            now_ms,
        }
    }

    /// A session that the store knows nothing of.
    pub(super) fn restored(holder: Arc<Lease>, version: Version, since_ms: u64, now_ms: u64) -> Self {
        Self {
            version,
            at_ms: now_ms,
            since_ms,
            reason: None,
            holder: Some(holder),
            incomplete: true,
            takeovers: 0,
            takeovers_since_ms: 0,
            state: None,
        }
    }

    /// Registers a session again.
    pub(super) fn restore(
        &mut self,
        holder: impl FnOnce() -> Arc<Lease>,
        version: Version,
        since_ms: u64,
        now_ms: u64,
    ) -> Restored {
        if self.version.epoch > version.epoch {
            return Restored::Superseded(self.version.epoch);
        }
        if self.version.epoch < version.epoch {
            let state = self.state.take();
            *self = Self { state, ..Self::restored(holder(), version, since_ms, now_ms) };
            return Restored::Held { lost: true };
        }
        if self.holder.is_none() {
            return Restored::Ended;
        }
        self.holder = Some(holder());
        if self.version < version {
            self.incomplete = true;
            self.version = version;
            self.at_ms = now_ms;
        }
        Restored::Held { lost: self.incomplete }
    }

    /// Ends the session of an epoch.
    pub(super) fn release(&mut self, epoch: Epoch, reason: Reason, now_ms: u64) -> Option<Ended> {
        if self.version.epoch != epoch {
            return None;
        }
        if self.holder.is_some() {
            return Some(self.end(reason, now_ms));
        }
        (self.reason == Some(reason)).then_some(Ended { version: self.version, reason, at_ms: self.since_ms })
    }

    /// Ends the session if this lease holds it.
    pub(super) fn sweep(&mut self, lease: &Lease, reason: Reason, now_ms: u64) -> Option<Ended> {
        self.holder.as_deref().is_some_and(|l| l == lease).then(|| self.end(reason, now_ms))
    }

    fn end(&mut self, reason: Reason, now_ms: u64) -> Ended {
        self.holder = None;
        self.reason = Some(reason);
        self.since_ms = now_ms;
        self.version = self.version.next();
        self.at_ms = now_ms;
        Ended { version: self.version, reason, at_ms: now_ms }
    }

    /// Takes a change.
    pub(super) fn apply(&mut self, version: Version, change: &Change, limits: &Limits, now_ms: u64) -> Applied {
        if self.version.epoch > version.epoch {
            return Applied::Fenced(Some(self.version.epoch));
        }
        if self.version.epoch == version.epoch && self.holder.is_none() {
            return Applied::Fenced(None);
        }
        if self.version == version {
            return Applied::Stored { at_ms: self.at_ms };
        }
        if !version.follows(self.version) {
            return Applied::Gap(Some(self.version));
        }
        if let Err(over) = self.state().admits(change, limits) {
            return Applied::OverLimit(over);
        }
        let state = self.state.get_or_insert_default();
        state.apply(change);
        if **state == NO_STATE {
            self.state = None;
        }
        self.incomplete &= !change.full;
        self.version = version;
        self.at_ms = now_ms;
        Applied::Stored { at_ms: now_ms }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn holder(&self) -> Option<&Lease> {
        self.holder.as_deref()
    }

    pub(super) fn presence(&self) -> Presence {
        Presence {
            online: self.holder.is_some(),
            since_ms: self.since_ms,
            epoch: self.version.epoch,
            reason: self.reason,
            edge: self.holder.as_ref().map(|lease| lease.edge.clone()),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { version: self.version, at_ms: self.at_ms, presence: self.presence(), state: self.state().clone() }
    }

    fn state(&self) -> &State {
        self.state.as_deref().unwrap_or(&NO_STATE)
    }
}
