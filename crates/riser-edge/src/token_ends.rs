//! When the tokens end that gateways got, noted with their flats for whoever looks for gateways that do not renew.
//!
//! Notes are written behind the answers, a building at a time: nobody's token waits for the bucket. An edge that is killed
//! before loses some, and then a flat's token seems to end earlier than it does, until the gateway renews again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, TenantId};
use riser_tenants::flats::{TokenTimes, is_noted_after};
use riser_tenants::{Flats, FlatsError, Store};
use tokio::time::{sleep, timeout};

use crate::auth::Minted;
use crate::shared::Shared;

/// Notes that wait for being written, of some two hundred bytes each. As many gateways as an edge holds may come to it within two
/// rounds, when another is restarted, and renew at once.
const WAITING: usize = 65_536;
/// Those of one tenant: a token can be ordered for any address, registered or not.
const WAITING_EACH: usize = WAITING / 4;
/// Buildings that are written at once.
const AT_ONCE: usize = 16;
/// How often a note is written before it is lost. With ten seconds between two rounds this outlasts a failover of the store.
const TRIES: u8 = 6;

/// Notes that wait.
#[derive(Default)]
pub(crate) struct TokenEnds(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    notes: BTreeMap<GatewayKey, Note>,
    /// How many each tenant has among them.
    each: BTreeMap<TenantId, usize>,
    /// How many of which tenant were lost since somebody was told.
    lost: BTreeMap<TenantId, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    token: TokenTimes,
    tries: u8,
    /// Whether it has waited for a whole round.
    ripe: bool,
}

/// Notes of one building.
type OfBuilding = BTreeMap<GatewayId, Note>;

impl TokenEnds {
    /// Has it noted that a gateway got a token.
    fn note(&self, key: GatewayKey, token: TokenTimes) {
        self.put(key, Note { token, tries: 0, ripe: false });
    }

    fn put(&self, key: GatewayKey, note: Note) {
        let mut waiting = self.0.lock();
        let there = waiting.notes.get(&key).map(|there| there.token.expires_at_ms);
        let each = waiting.each.get(&key.tenant).copied().unwrap_or(0);
        if there.is_none() && (waiting.notes.len() >= WAITING || each >= WAITING_EACH) {
            *waiting.lost.entry(key.tenant).or_default() += 1;
        } else if is_noted_after(there, note.token.expires_at_ms) {
            *waiting.each.entry(key.tenant.clone()).or_default() += usize::from(there.is_none());
            waiting.notes.insert(key, note);
        }
    }

    /// Takes what has waited for a whole round, or all of it. What came since waits for the next round: if the token's device
    /// was replaced at that moment, this edge knows by then that the token is revoked.
    fn take(&self, all: bool) -> BTreeMap<(TenantId, BuildingId), OfBuilding> {
        let mut taken: BTreeMap<_, OfBuilding> = BTreeMap::new();
        let mut waiting = self.0.lock();
        waiting.each.clear();
        for (key, note) in std::mem::take(&mut waiting.notes) {
            if all || note.ripe {
                let (building, gateway) = (key.address.building().clone(), key.address.gateway().clone());
                taken.entry((key.tenant, building)).or_default().insert(gateway, note);
            } else {
                *waiting.each.entry(key.tenant.clone()).or_default() += 1;
                waiting.notes.insert(key, Note { ripe: true, ..note });
            }
        }
        taken
    }

    /// Keeps notes that were not written for the next round, unless they were tried too often.
    fn put_back(&self, tenant: &TenantId, building: &BuildingId, notes: OfBuilding) {
        for (gateway, note) in notes {
            match Address::new(building.clone(), gateway) {
                Ok(address) if note.tries + 1 < TRIES => {
                    self.put(GatewayKey::new(tenant.clone(), address), Note { tries: note.tries + 1, ..note });
                }
                _ => *self.0.lock().lost.entry(tenant.clone()).or_default() += 1,
            }
        }
    }

    /// How many of which tenant were lost since this was asked last.
    fn take_lost(&self) -> BTreeMap<TenantId, usize> {
        std::mem::take(&mut self.0.lock().lost)
    }
}

impl Shared {
    /// Has it noted, some seconds from now, when a token ends that a gateway got, if its flat is registered. Where flats are
    /// not kept nothing is noted.
    pub(crate) fn note_token(&self, tenant: &TenantId, address: &Address, minted: &Minted) {
        if self.ports.keep.is_some() {
            let token = TokenTimes { issued_at_ms: minted.issued_at_ms, expires_at_ms: minted.expires_at_ms };
            self.token_ends.note(GatewayKey::new(tenant.clone(), address.clone()), token);
        }
    }
}

/// Writes notes for as long as the edge lives.
pub(crate) async fn keep(shared: Arc<Shared>, store: Store) {
    loop {
        sleep(shared.config.note_tokens).await;
        write(&shared, &store.flats(), shared.token_ends.take(false)).await;
    }
}

/// Writes what there is, once.
pub(crate) async fn finish(shared: &Shared) {
    if let Some(store) = &shared.ports.keep {
        write(shared, &store.flats(), shared.token_ends.take(true)).await;
    }
}

async fn write(shared: &Shared, flats: &Flats, taken: BTreeMap<(TenantId, BuildingId), OfBuilding>) {
    let mut taken = taken.into_iter();
    let mut silent = false;
    while !silent && taken.len() > 0 {
        let some = taken.by_ref().take(AT_ONCE).map(|(of, notes)| write_one(shared, flats, of, notes));
        silent = join_all(some).await.contains(&false);
    }
    // Nobody answers: the rest is not tried now.
    for ((tenant, building), notes) in taken {
        shared.token_ends.put_back(&tenant, &building, notes);
    }
    for (tenant, lost) in shared.token_ends.take_lost() {
        tracing::warn!(%tenant, lost, "could not note when gateways' tokens end: they seem to end earlier than they do");
    }
}

/// Writes the notes of one building; false when nobody answered.
async fn write_one(
    shared: &Shared,
    flats: &Flats,
    (tenant, building): (TenantId, BuildingId),
    mut notes: OfBuilding,
) -> bool {
    notes.retain(|gateway, note| is_good(shared, &tenant, &building, gateway, &note.token));
    let tokens = notes.iter().map(|(gateway, note)| (gateway.clone(), note.token)).collect();
    // What was written of it all the same is written again without harm.
    let noted = timeout(shared.config.call, flats.note_tokens(&tenant, &building, &tokens)).await;
    match noted.unwrap_or(Err(FlatsError::Unavailable)) {
        Ok(()) => true,
        Err(error @ (FlatsError::Unavailable | FlatsError::Busy)) => {
            shared.token_ends.put_back(&tenant, &building, notes);
            error == FlatsError::Busy
        }
        Err(error) => {
            tracing::error!(%error, %tenant, %building, "cannot note when gateways' tokens end");
            true
        }
    }
}

/// Whether a token was not revoked with those of its gateway since it was issued.
fn is_good(shared: &Shared, tenant: &TenantId, building: &BuildingId, gateway: &GatewayId, token: &TokenTimes) -> bool {
    let Ok(address) = Address::new(building.clone(), gateway.clone()) else { return false };
    let revoked = shared.with_tenant(tenant, |of| of.revoked.gateways.get(&address).copied());
    revoked.is_some_and(|before| before.is_none_or(|before| token.issued_at_ms >= before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = riser_tenants::flats::NOTED_LATER_MS;

    fn key(gateway: usize) -> GatewayKey {
        GatewayKey::new("acme".parse().expect("a tenant"), format!("b/f{gateway}").parse().expect("an address"))
    }

    fn token(expires_at_ms: u64) -> TokenTimes {
        TokenTimes { issued_at_ms: 0, expires_at_ms }
    }

    /// When the tokens end that are taken.
    fn taken(ends: &TokenEnds, all: bool) -> Vec<u64> {
        ends.take(all).into_values().flatten().map(|(_, note)| note.token.expires_at_ms).collect()
    }

    #[test]
    fn a_note_waits_for_a_round_and_is_taken_once() {
        let ends = TokenEnds::default();
        ends.note(key(1), token(DAY_MS));
        assert!(taken(&ends, false).is_empty());
        ends.note(key(2), token(2 * DAY_MS));
        assert_eq!(taken(&ends, false), [DAY_MS]);
        assert_eq!(taken(&ends, true), [2 * DAY_MS]);
        assert!(taken(&ends, true).is_empty());
    }

    #[test]
    fn of_one_gateways_tokens_the_one_that_ends_a_day_later_counts() {
        let ends = TokenEnds::default();
        for end in [3 * DAY_MS, 2 * DAY_MS, 4 * DAY_MS - 1] {
            ends.note(key(1), token(end));
        }
        assert!(taken(&ends, false).is_empty());
        ends.note(key(1), token(4 * DAY_MS));
        assert!(taken(&ends, false).is_empty(), "it has not waited for a round");
        assert_eq!(taken(&ends, false), [4 * DAY_MS]);
    }

    #[test]
    fn what_is_not_written_is_tried_again_and_lost_in_the_end() {
        let ends = TokenEnds::default();
        ends.note(key(1), token(DAY_MS));
        for _ in 1..TRIES {
            let ((tenant, building), notes) = ends.take(true).pop_first().expect("it waits");
            ends.put_back(&tenant, &building, notes);
            assert!(ends.take_lost().is_empty());
        }
        let ((tenant, building), notes) = ends.take(true).pop_first().expect("it waits");
        ends.put_back(&tenant, &building, notes);
        assert!(ends.take(true).is_empty());
        assert_eq!(ends.take_lost(), BTreeMap::from([(tenant, 1)]));
        assert!(ends.take_lost().is_empty());
    }

    #[test]
    fn more_notes_than_there_is_room_for_are_lost_and_counted_for_their_tenant() {
        let ends = TokenEnds::default();
        let of = |tenant: usize, gateway: usize| {
            let key = key(gateway);
            GatewayKey::new(format!("t{tenant}").parse().expect("a tenant"), key.address)
        };
        for gateway in 0..WAITING_EACH + 3 {
            ends.note(of(0, gateway), token(DAY_MS));
        }
        ends.note(of(0, 0), token(2 * DAY_MS));
        assert_eq!(ends.take_lost(), BTreeMap::from([(of(0, 0).tenant, 3)]), "others have room");
        for tenant in 1..=4 {
            for gateway in 0..WAITING_EACH {
                ends.note(of(tenant, gateway), token(DAY_MS));
            }
        }
        assert_eq!(ends.take_lost(), BTreeMap::from([(of(4, 0).tenant, WAITING_EACH)]));
        let taken = taken(&ends, true);
        assert_eq!((taken.len(), taken[0]), (WAITING, 2 * DAY_MS), "one that waits is replaced");
        ends.note(of(0, 0), token(DAY_MS));
        assert!(ends.take_lost().is_empty(), "there is room again");
    }
}
