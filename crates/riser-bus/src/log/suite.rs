//! What every log must do, one function for each sentence of the contract.
//!
//! An implementation gives a [`Bench`] for each case and lets [`log_conformance!`](crate::log_conformance) make a test
//! of every case. The cases use tenants of their own, so that they can run beside each other and again on servers that
//! are not empty. They wait for what must come, never for what must not: where an event must not arrive, a later one
//! must arrive first.

use std::pin::Pin;
use std::time::Duration;

use riser_core::event::Event;
use riser_core::{Json, TenantId};
use tokio::time::timeout;

use super::{Appended, Bounds, LOG_PAGE, Log, Stored, Tail};

mod appends;
mod erasures;
mod lives;
mod reads;
mod tails;

pub use appends::*;
pub use erasures::*;
pub use lives::*;
pub use reads::*;
pub use tails::*;

/// How long a case waits for what must come. A real server takes milliseconds; this is for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The window of a repeat that is not meant to come too late within its case.
const LONG: Duration = Duration::from_secs(120);

/// The window of a repeat that is meant to come too late.
const SHORT: Duration = Duration::from_secs(1);

/// How often a case looks whether a window has passed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Fewest events that a bench keeps of a tenant: what a case stores and reads again without retention in mind.
pub const KEPT_AT_LEAST: u64 = 3 * LOG_PAGE as u64;

/// Loses a tenant's stream with all its events, as a store that lost its data.
pub type Lose = Box<dyn Fn(TenantId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a case runs on.
pub struct Bench<L> {
    /// A client.
    pub one: L,
    /// A client of another edge of the same cluster.
    pub two: L,
    /// What no other case uses, and no other run: 1 to 24 of a-z and 0-9.
    pub name: String,
    /// How many events the store is set to keep of a tenant: [`KEPT_AT_LEAST`] or not many more, since a case stores as
    /// many.
    pub kept: u64,
    /// Loses a stream.
    pub lose: Lose,
}

/// Makes a test of each case.
///
/// Takes the attribute of the tests and a function that makes a [`Bench`](crate::log::suite::Bench), as in
/// `riser_bus::log_conformance!(#[tokio::test(start_paused = true)] bench);`. The function is async and is given the
/// name of the case.
#[macro_export]
macro_rules! log_conformance {
    (# $attribute:tt $bench:path) => {
        $crate::log_conformance! { # $attribute $bench;
            an_event_that_was_answered_is_read_as_it_was_sent
            an_event_gets_the_time_of_the_store
            events_have_numbers_from_one_without_holes
            events_of_all_clients_have_one_order
            a_repeat_is_stored_once_and_answered_the_same
            a_repeat_through_another_client_is_the_same_event
            a_repeat_with_another_content_changes_nothing
            repeats_at_once_are_stored_once
            an_event_is_the_same_by_sender_address_and_id
            an_id_is_free_again_after_its_window

            an_answered_event_is_read_by_every_client
            a_page_is_bounded_and_pages_join
            reading_begins_at_the_number_that_was_asked_for
            nothing_is_known_of_a_tenant_without_events
            bounds_follow_what_is_stored
            retention_drops_the_oldest_and_the_other_numbers_stay
            tenants_do_not_see_each_others_events

            a_tail_gives_what_is_stored_after_it_began
            every_tail_gets_every_event
            a_tail_hears_nothing_of_repeats
            a_tail_hears_nothing_of_other_tenants
            a_tail_and_a_read_join_without_hole_or_double
            a_tail_that_is_not_read_ends_and_the_rest_can_be_read
            a_dropped_tail_harms_nobody

            a_lost_stream_is_gone_and_begins_another_life
            an_event_of_a_lost_stream_is_stored_again
            a_tail_ends_when_its_stream_is_lost
            a_tail_without_a_stream_ends_when_the_stream_comes_into_being
            a_loss_leaves_other_tenants_alone

            an_erased_stream_is_gone_and_begins_another_life
            erasing_what_is_not_there_erases_nothing
            what_happened_at_one_address_is_erased_and_nothing_else
            the_newest_event_is_erased_and_its_number_is_not_given_again
        }
    };
    (# $attribute:tt $bench:path; $($case:ident)*) => {
        $(
            # $attribute
            async fn $case() {
                $crate::log::suite::$case(&$bench(stringify!($case)).await).await;
            }
        )*
    };
}

impl<L: Log> Bench<L> {
    fn tenant(&self) -> TenantId {
        self.tenant_of("t")
    }

    fn tenant_of(&self, suffix: &str) -> TenantId {
        format!("{}-{suffix}", self.name).parse().expect("a tenant name")
    }

    /// Stores an event that is new.
    async fn append(&self, tenant: &TenantId, event: &Event) -> Appended {
        let appended = self.one.append(tenant, event.clone(), LONG).await.expect("an answer");
        assert!(!appended.duplicate, "an event that was never sent is a repeat");
        appended
    }

    /// Stores events that are new, with these numbers for their ids.
    async fn fill(&self, tenant: &TenantId, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.append(tenant, &event(&id.to_string())).await;
        }
    }

    /// Everything that is kept, page by page, in the order of the numbers and without holes.
    async fn all(&self, tenant: &TenantId) -> Vec<Stored> {
        self.from(tenant, 1).await
    }

    /// The same, from this number on.
    async fn from(&self, tenant: &TenantId, from: u64) -> Vec<Stored> {
        let mut all: Vec<Stored> = vec![];
        loop {
            let from = all.last().map_or(from, |stored| stored.seq + 1);
            let page = self.two.read(tenant, from).await.expect("an answer");
            let Some(newest) = page.events.last() else { return all };
            let start = from.max(page.bounds.first);
            assert!(page.events.iter().map(|stored| stored.seq).eq(start..=newest.seq), "a page with a hole");
            all.extend(page.events);
        }
    }

    async fn bounds(&self, tenant: &TenantId) -> Bounds {
        self.two.bounds(tenant).await.expect("an answer")
    }
}

/// An event of a gateway.
fn event(id: &str) -> Event {
    event_of("b1/g1", "gateway:b1/g1", id)
}

fn event_of(address: &str, from: &str, id: &str) -> Event {
    Event {
        of: address.parse().expect("an address"),
        id: id.parse().expect("an event id"),
        path: Some("hall/bell".parse().expect("a path")),
        kind: "ring".parse().expect("an event type"),
        data: Some(Json::of(id)),
        from: from.into(),
        at_ms: 0,
        ts_ms: Some(1),
    }
}

/// The numbers and ids of events, which is what most cases look at.
fn ids<'a>(events: impl IntoIterator<Item = &'a Stored>) -> Vec<(u64, &'a str)> {
    events.into_iter().map(|stored| (stored.seq, stored.event.id.as_str())).collect()
}

/// The next event of a tail.
async fn next(tail: &mut Tail) -> Option<Stored> {
    timeout(PATIENCE, tail.events.recv()).await.expect("an event, or the end of the tail, in time")
}

/// The next so many events of a tail.
async fn take(tail: &mut Tail, count: usize) -> Vec<Stored> {
    let mut events = vec![];
    while events.len() < count {
        events.push(next(tail).await.expect("a tail that goes on"));
    }
    events
}
