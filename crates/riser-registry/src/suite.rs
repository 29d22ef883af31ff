//! What every registry must do, one function for each sentence of the contracts.
//!
//! An implementation gives a [`Bench`] for each case and lets [`conformance!`](crate::conformance) make a test of
//! every case. The cases use names of their own, so that they can run beside each other and again on servers that
//! are not empty. Leases end by waiting for them, which costs nothing under a paused clock.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use riser_core::limits::Limits;
use riser_core::state::State;
use riser_core::{BuildingId, Change, EdgeId, GatewayKey, Json, Path, Presence, Reason, Snapshot, TenantId, Version};
use tokio::time::Instant;

use crate::{Acquired, Applied, Lease, PRESENCE_PAGE, Registry, StateStore};

mod commands;
mod copies;
mod erasures;
mod leases;
mod lists;
mod restores;
mod sessions;
mod state;
mod steps;
mod streams;
mod usage;

pub use commands::*;
pub use copies::*;
pub use erasures::*;
pub use leases::*;
pub use lists::*;
pub use restores::*;
pub use sessions::*;
pub use state::*;
pub use steps::*;
pub use streams::*;
pub use usage::*;

/// How long a case waits for what must come. A real server takes milliseconds; this is for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The time of a lease that is not meant to end within its case.
const LONG: Duration = Duration::from_secs(120);

/// The time of a lease that is meant to end, long enough for what a case does before.
const SHORT: Duration = Duration::from_secs(1);

/// How often a case looks whether a lease has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a case runs on.
pub struct Bench<S> {
    /// A client.
    pub one: S,
    /// A client of another edge of the same cluster.
    pub two: S,
    /// What no other case uses, and no other run: 1 to 24 of a-z and 0-9.
    pub name: String,
    /// What must not go before the case is over, as a server.
    pub behind: Option<Arc<dyn Any + Send + Sync>>,
}

/// Makes a test of each case.
///
/// Takes the attribute of the tests and a function that makes a [`Bench`](crate::suite::Bench), as in
/// `riser_registry::conformance!(#[tokio::test(start_paused = true)] bench);`. The function is async and is given
/// the name of the case.
#[macro_export]
macro_rules! conformance {
    (# $attribute:tt $bench:path) => {
        $crate::conformance! { # $attribute $bench;
            a_lease_is_held_from_its_second_renewal_on
            a_renewal_tells_of_the_leases_beside_it
            a_lease_that_is_renewed_does_not_end
            a_lease_that_is_not_renewed_ends
            an_ended_lease_is_not_revived
            a_lease_with_another_number_is_another_lease
            a_drained_lease_ends_after_the_time_for_moving
            a_drained_lease_cannot_be_renewed
            a_repeated_drain_does_not_give_more_time
            a_building_is_in_the_index_of_each_lease_that_held_a_gateway_there
            a_sweep_ends_what_the_lease_still_holds
            a_session_is_swept_by_one_caller_only
            a_swept_building_leaves_the_index
            a_session_of_an_ended_lease_is_always_found
            an_ended_lease_is_listed_until_it_is_forgotten
            only_an_ended_lease_with_an_empty_index_is_forgotten
            a_lease_that_the_store_does_not_know_is_adopted_and_ends

            a_first_session_is_online_and_knows_nothing
            an_epoch_is_at_least_the_clock
            an_epoch_is_greater_than_the_floor
            an_epoch_grows_over_a_takeover
            an_epoch_grows_over_an_end
            a_takeover_never_shows_offline
            a_takeover_keeps_the_values
            a_session_is_told_how_often_it_was_taken_over
            sessions_that_begin_at_once_take_over_one_after_another
            a_session_after_an_end_is_a_plain_arrival
            a_release_ends_the_session
            a_repeated_release_answers_the_same
            a_release_with_another_reason_changes_nothing
            a_release_of_an_older_session_changes_nothing
            a_release_of_what_nobody_knows_is_none
            an_audit_tells_of_every_gateway_of_its_building
            presence_comes_in_pages_in_the_order_of_names
            a_page_of_presence_is_bounded
            tenants_do_not_see_each_other

            a_missing_record_is_written_anew_and_state_was_lost
            a_repeated_restore_still_says_that_state_was_lost
            a_full_change_makes_good_what_was_lost
            restoring_what_is_held_loses_nothing
            restoring_at_a_greater_version_says_that_state_was_lost
            restoring_never_goes_back
            restoring_over_an_older_epoch_keeps_its_values
            restoring_an_older_session_is_superseded
            restoring_an_ended_session_is_refused
            a_restored_session_belongs_to_its_lease

            a_change_is_stored_and_read
            a_change_is_stored_only_onto_the_one_before
            a_repeated_change_answers_the_same
            a_change_of_an_older_session_is_fenced
            a_change_after_the_end_is_fenced
            a_change_of_what_nobody_knows_is_a_gap
            a_change_of_an_epoch_that_the_store_lost_is_a_gap
            a_change_over_a_limit_is_not_stored
            changes_do_what_the_vocabulary_says
            values_outlive_the_session
            a_session_has_state_when_there_are_values_or_descriptions
            versions_and_buildings_come_in_the_order_of_names
            nothing_is_known_of_what_was_never_acquired

            a_command_is_recorded_as_it_was_issued
            commands_of_a_gateway_are_in_the_order_of_calls
            commands_that_come_at_once_follow_one_another
            a_command_of_an_offline_gateway_is_held_or_decided_at_once
            a_known_digest_is_the_same_command
            the_newest_edges_are_told
            a_known_digest_with_another_body_is_a_conflict
            repeating_an_overdue_command_decides_it
            held_commands_are_bounded
            a_command_without_room_is_not_held
            undecided_commands_are_counted_by_tenant
            only_what_waits_to_be_sent_is_held
            open_commands_are_bounded
            decided_commands_beyond_the_bound_are_forgotten
            large_commands_of_one_gateway_have_only_its_own_forgotten
            open_commands_of_a_tenant_take_a_bounded_room

            steps_do_what_the_vocabulary_says
            words_of_one_command_are_bounded
            a_step_of_an_unknown_command_is_none
            only_the_session_that_holds_the_gateway_sends
            a_command_is_sent_again_to_a_gateway_that_remembers
            a_deadline_that_has_passed_is_seen_first
            of_steps_that_exclude_each_other_one_happens

            open_commands_come_in_their_order
            the_latest_commands_come_first
            a_page_of_commands_is_bounded
            a_session_is_told_how_many_commands_are_open
            an_audit_counts_what_waits_to_be_sent
            the_most_overdue_commands_are_given_first
            what_is_decided_or_not_yet_due_is_not_given
            overdue_commands_are_given_to_one_edge_until_it_is_gone

            a_copy_is_recorded_as_it_is_and_counts
            a_copy_gives_way_to_what_follows_it
            a_copy_that_knows_more_takes_the_place_of_what_knows_less
            a_copy_takes_the_place_of_another_command_of_its_digest
            a_copy_whose_time_is_over_is_not_recorded
            a_copy_that_is_overdue_is_decided_by_the_next_look
            a_life_stays_the_same_while_nothing_is_lost

            an_open_stream_is_listed_until_it_is_closed
            opening_a_stream_tells_who_holds_its_gateway
            a_stream_ends_unless_it_is_opened_again
            a_number_belongs_to_one_open_stream
            of_streams_that_take_a_number_at_once_one_has_it
            streams_come_in_the_order_of_their_numbers
            open_streams_of_a_tenant_are_bounded
            a_session_is_told_whether_streams_are_open

            what_edges_tell_of_a_tenant_is_given
            what_an_edge_told_is_forgotten
            uses_of_keys_are_noted_by_tenant_and_erased_with_it

            an_erased_gateway_is_gone_and_its_neighbours_stay
            the_session_of_an_erased_gateway_stores_nothing_more
            an_erased_tenant_is_gone_and_others_stay
        }
    };
    (# $attribute:tt $bench:path; $($case:ident)*) => {
        $(
            # $attribute
            async fn $case() {
                $crate::suite::$case(&$bench(stringify!($case)).await).await;
            }
        )*
    };
}

impl<S: Registry + StateStore> Bench<S> {
    fn tenant(&self, suffix: &str) -> TenantId {
        format!("{}-{suffix}", self.name).parse().expect("a tenant name")
    }

    fn key(&self, address: &str) -> GatewayKey {
        self.key_of("t", address)
    }

    fn key_of(&self, tenant: &str, address: &str) -> GatewayKey {
        GatewayKey::new(self.tenant(tenant), address.parse().expect("an address"))
    }

    fn lease(&self, edge: &str, start: u64) -> Lease {
        let edge: EdgeId = format!("{}-{edge}", self.name).parse().expect("an edge name");
        Lease { edge, start }
    }

    /// The lease of an edge, held for longer than the case runs.
    async fn held(&self, edge: &str) -> Lease {
        let lease = self.lease(edge, 1);
        self.one.renew(&lease, LONG).await.expect("an answer");
        lease
    }

    async fn acquire(&self, lease: &Lease, key: &GatewayKey) -> Acquired {
        self.one.acquire(lease, key, None).await.expect("an answer")
    }

    /// Stores a change as the next version after `before`.
    async fn store(&self, key: &GatewayKey, before: Version, change: &Change) -> Version {
        let applied = self.one.apply(key, before.next(), change, &Limits::default()).await.expect("an answer");
        assert!(matches!(applied, Applied::Stored { .. }), "{applied:?}");
        before.next()
    }

    async fn apply(&self, key: &GatewayKey, version: Version, change: &Change) -> Applied {
        self.one.apply(key, version, change, &Limits::default()).await.expect("an answer")
    }

    async fn snapshot(&self, key: &GatewayKey) -> Snapshot {
        self.two.read(key).await.expect("an answer").expect("a gateway that is known")
    }

    async fn presence(&self, key: &GatewayKey) -> Presence {
        let (tenant, building) = (&key.tenant, key.address.building());
        let rows = self.two.presence(tenant, building, None, PRESENCE_PAGE).await.expect("an answer");
        let own = rows.into_iter().find(|(gateway, _)| gateway == key.address.gateway());
        own.expect("a gateway that is known").1
    }

    /// Why a lease ended, if it has.
    async fn ended(&self, lease: &Lease) -> Option<Reason> {
        let ended = self.two.ended_leases().await.expect("an answer");
        ended.into_iter().find(|(l, _)| l == lease).map(|(_, reason)| reason)
    }

    /// Waits until a lease has ended, and says why.
    async fn end_of(&self, lease: &Lease) -> Reason {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(reason) = self.ended(lease).await {
                return reason;
            }
            assert!(Instant::now() < give_up, "{lease:?} did not end within {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The store's clock.
    async fn now_ms(&self) -> u64 {
        self.one.renew(&self.lease("clock", 1), LONG).await.expect("an answer").now_ms
    }

    /// Waits until the store's clock has moved on, so that what happens now has another time than what happened
    /// before.
    async fn tick(&self) {
        let before = self.now_ms().await;
        while self.now_ms().await == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the store's clock has reached a time.
    async fn until(&self, ms: u64) {
        while self.now_ms().await < ms {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn building(name: &str) -> BuildingId {
    name.parse().expect("a building name")
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

/// A change that sets values, given as paths and JSON texts; an empty text deletes.
fn set(values: &[(&str, &str)]) -> Change {
    let json = |text: &str| (!text.is_empty()).then(|| Json::parse(text).expect("JSON"));
    Change::values(values.iter().map(|(at, text)| (path(at), json(text))), false)
}

/// The same, and everything else is gone.
fn full(values: &[(&str, &str)]) -> Change {
    Change { full: true, ..set(values) }
}

/// The state after these changes, by the rules of the vocabulary.
fn state_after<'a>(changes: impl IntoIterator<Item = &'a Change>) -> State {
    let mut state = State::default();
    for change in changes {
        state.apply(change);
    }
    state
}
