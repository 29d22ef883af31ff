//! What a session subscribes to, again after each reconnect, and how far it has heard of the events. Without I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::{PathFilter, Pattern};
use serde_json::json;
use tokio::time::Instant;

use crate::frame::Happened;

/// What to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four lanes is clearest as four flags")]
pub struct Subscription {
    /// Where.
    pub to: Pattern,
    /// Last values and what the devices are.
    pub state: bool,
    /// Connected or not.
    pub presence: bool,
    /// What happens, stored and replayable.
    pub event: bool,
    /// Live streams.
    pub live: bool,
    /// Which paths, of state and events.
    pub path: PathFilter,
    /// After which event the first answer goes on; from now on without it. Afterwards the session itself remembers how
    /// far it has heard.
    pub cursor: Option<String>,
}

impl Subscription {
    /// Nothing of what the pattern names yet.
    fn none(to: Pattern) -> Self {
        let (state, presence, event, live) = (false, false, false, false);
        Self { to, state, presence, event, live, path: PathFilter::ALL, cursor: None }
    }

    /// State and presence of everything that the pattern names.
    pub fn all(to: Pattern) -> Self {
        Self { state: true, presence: true, ..Self::none(to) }
    }

    /// The events of everything that the pattern names, after this cursor, or from now on.
    pub fn events(to: Pattern, cursor: Option<String>) -> Self {
        Self { event: true, cursor, ..Self::none(to) }
    }

    /// The live streams of everything that the pattern names.
    pub fn live(to: Pattern) -> Self {
        Self { live: true, ..Self::none(to) }
    }

    /// Whether an event comes by this subscription. One that is about its address as a whole passes every filter.
    fn hears(&self, event: &Happened) -> bool {
        self.event && self.to.matches(&event.of) && event.path.as_ref().is_none_or(|path| self.path.matches(path))
    }
}

/// How a subscription stands in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It is not asked for: there is no session, or it was refused for now, and is asked for at this time.
    Waits(Option<Instant>),
    /// It was asked for. What comes may still be of others, or of an earlier one to the same pattern.
    Asked,
    /// It was granted, and what was missed is coming.
    Replays,
    /// Everything that was missed has come.
    Synced,
}

/// One subscription, and how far it has heard.
#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    /// After which event it goes on in the next session.
    cursor: Option<String>,
    stands: Stands,
    /// The number with which it was asked for last.
    asked: Option<u64>,
}

/// All subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(BTreeMap<Pattern, Entry>);

impl Subscriptions {
    /// Notes a subscription, in place of an earlier one to the same pattern, and gives its frame.
    pub(crate) fn insert(&mut self, subscription: Subscription, n: u64) -> String {
        let (to, frame) = (subscription.to.clone(), frame(&subscription, subscription.cursor.as_deref(), n));
        self.keep(subscription);
        if let Some(entry) = self.0.get_mut(&to) {
            entry.asks(n);
        }
        frame
    }

    /// Notes a subscription while there is no session. Without a cursor of its own it goes on where the earlier one to
    /// the same pattern stood: subscribing again leaves no hole.
    pub(crate) fn keep(&mut self, subscription: Subscription) {
        let to = subscription.to.clone();
        let before = self.0.remove(&to).filter(|before| before.subscription.event && subscription.event);
        let cursor = subscription.cursor.clone().or_else(|| before.and_then(|before| before.cursor));
        self.0.insert(to, Entry { subscription, cursor, stands: Stands::Waits(None), asked: None });
    }

    pub(crate) fn remove(&mut self, to: &Pattern) {
        self.0.remove(to);
    }

    pub(crate) fn contains(&self, to: &Pattern) -> bool {
        self.0.contains_key(to)
    }

    /// The frames that ask for everything again in a new session.
    pub(crate) fn again(&mut self, mut number: impl FnMut(&Pattern) -> u64) -> Vec<String> {
        self.0.iter_mut().map(|(to, entry)| entry.again(number(to))).collect()
    }

    /// The frame of a subscription that was refused for now, and whose time has come.
    pub(crate) fn overdue(&mut self, mut number: impl FnMut(&Pattern) -> u64) -> Option<String> {
        let now = Instant::now();
        let due = |entry: &Entry| matches!(entry.stands, Stands::Waits(Some(at)) if at <= now);
        let (to, entry) = self.0.iter_mut().find(|(_, entry)| due(entry))?;
        Some(entry.again(number(to)))
    }

    /// When a subscription is due that was refused for now.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = |entry: &Entry| if let Stands::Waits(at) = entry.stands { at } else { None };
        self.0.values().filter_map(due).min()
    }

    /// A subscription was refused, for now or for good. True when it is gone: an answer to an earlier one to the same
    /// pattern says nothing about this one.
    pub(crate) fn refused(&mut self, to: &Pattern, n: u64, again: Option<Duration>) -> bool {
        let Some(entry) = self.0.get_mut(to).filter(|entry| entry.asked == Some(n)) else { return false };
        if let Some(again) = again {
            entry.stands = Stands::Waits(Some(Instant::now() + again));
            return false;
        }
        self.remove(to);
        true
    }

    /// A subscription was granted.
    pub(crate) fn granted(&mut self, to: &Pattern, n: u64) {
        if let Some(entry) = self.0.get_mut(to).filter(|entry| entry.asked == Some(n) && entry.stands == Stands::Asked)
        {
            entry.stands = Stands::Replays;
        }
    }

    /// An event came. While one subscription is being replayed to, what comes may be older than what others have heard
    /// already, so that only its own place moves; and that only when no other hears the event too, which could be on
    /// its way already when this one was asked for, or stand elsewhere in its own replay.
    pub(crate) fn heard(&mut self, event: &Happened) {
        let replaying = self.is_replaying();
        let hearing = self.0.values().filter(|entry| entry.subscription.hears(event)).count();
        for entry in self.0.values_mut().filter(|entry| entry.subscription.hears(event)) {
            let counts = match entry.stands {
                Stands::Synced => !replaying,
                Stands::Replays => hearing == 1,
                Stands::Waits(_) | Stands::Asked => false,
            };
            if counts {
                entry.cursor = Some(event.cursor.clone());
            }
        }
    }

    /// Everything that a subscription missed has come. The cursor is where all of them stand, which for others may be
    /// behind what they have heard until none is being replayed to any more.
    pub(crate) fn synced(&mut self, to: &Pattern, cursor: Option<&String>) {
        let Some(entry) = self.0.get_mut(to) else { return };
        entry.stands = Stands::Synced;
        let Some(cursor) = cursor.filter(|_| entry.subscription.event) else { return };
        entry.cursor.get_or_insert_with(|| cursor.clone());
        self.position(cursor);
    }

    /// The server said how far the session has heard.
    pub(crate) fn position(&mut self, cursor: &str) {
        if self.is_replaying() {
            return;
        }
        for entry in self.0.values_mut().filter(|entry| entry.subscription.event && entry.stands == Stands::Synced) {
            entry.cursor = Some(cursor.to_owned());
        }
    }

    /// Whether any subscription is about events.
    pub(crate) fn any_events(&self) -> bool {
        self.0.values().any(|entry| entry.subscription.event)
    }

    fn is_replaying(&self) -> bool {
        self.0.values().any(Entry::is_behind)
    }
}

impl Entry {
    fn asks(&mut self, n: u64) {
        (self.stands, self.asked) = (Stands::Asked, Some(n));
    }

    fn again(&mut self, n: u64) -> String {
        self.asks(n);
        frame(&self.subscription, self.cursor.as_deref(), n)
    }

    /// Whether events that it missed are coming.
    fn is_behind(&self) -> bool {
        self.subscription.event && matches!(self.stands, Stands::Asked | Stands::Replays)
    }
}

fn frame(subscription: &Subscription, cursor: Option<&str>, n: u64) -> String {
    let Subscription { to, state, presence, event, live, path, .. } = subscription;
    let lanes = [("state", state), ("presence", presence), ("event", event), ("live", live)];
    let lanes: Vec<&str> = lanes.into_iter().filter_map(|(lane, wanted)| wanted.then_some(lane)).collect();
    let mut frame = json!({"t": "subscribe", "n": n, "to": to, "lanes": lanes});
    if !path.is_all() {
        frame["path"] = json!(path);
    }
    if let Some(cursor) = cursor.filter(|_| *event) {
        frame["cursor"] = cursor.into();
    }
    frame.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Received;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    fn event(of: &str, path: Option<&str>, cursor: &str) -> Happened {
        let path = path.map(|path| format!(r#""path":"{path}","#)).unwrap_or_default();
        let text = format!(r#"{{"t":"event","of":"{of}","cursor":"{cursor}","id":"i","type":"x",{path}"at_ms":1}}"#);
        let Ok(Received::Event(event)) = Received::parse(&text) else { panic!("not an event") };
        *event
    }

    /// The cursors that a new session begins with, by the order of patterns.
    fn cursors(subs: &mut Subscriptions) -> Vec<Option<String>> {
        let cursor = |frame: String| {
            let frame: serde_json::Value = serde_json::from_str(&frame).expect("JSON");
            frame.get("cursor").and_then(|cursor| cursor.as_str()).map(str::to_owned)
        };
        subs.again(|_| 1).into_iter().map(cursor).collect()
    }

    /// Where each stands, by the order of patterns.
    fn cursors_of(subs: &Subscriptions) -> Vec<Option<String>> {
        subs.0.values().map(|entry| entry.cursor.clone()).collect()
    }

    fn some(cursor: &str) -> Option<String> {
        (!cursor.is_empty()).then(|| cursor.to_owned())
    }

    #[test]
    fn a_subscription_goes_on_after_the_last_event_that_it_heard() {
        let mut subs = Subscriptions::default();
        let frame = subs.insert(Subscription::events(pattern("b/*"), some("1.4")), 7);
        assert_eq!(frame, r#"{"cursor":"1.4","lanes":["event"],"n":7,"t":"subscribe","to":"b/*"}"#);
        // Before it is granted, what comes is of an earlier one to the same pattern.
        subs.heard(&event("b/g", None, "1.9"));
        assert_eq!(cursors_of(&subs), [some("1.4")]);
        subs.granted(&pattern("b/*"), 7);
        subs.heard(&event("b/g", None, "1.5"));
        subs.heard(&event("c/g", None, "1.6"));
        assert_eq!(cursors(&mut subs), [some("1.5")]);
        subs.synced(&pattern("b/*"), Some(&"1.7".into()));
        subs.position("1.9");
        assert_eq!(cursors(&mut subs), [some("1.9")]);
        // Not yet replayed in the new session: a position of the whole session is not its own.
        subs.position("2.0");
        assert_eq!(cursors(&mut subs), [some("1.9")]);
    }

    #[test]
    fn a_replay_to_one_moves_no_others_place() {
        let mut subs = Subscriptions::default();
        subs.insert(Subscription::events(pattern("b/*"), None), 1);
        subs.synced(&pattern("b/*"), Some(&"1.5".into()));
        subs.insert(Subscription::events(pattern("b/g"), some("1.0")), 2);
        subs.granted(&pattern("b/g"), 2);
        // The one that stands at 1.5 is about it too, and has had it.
        subs.heard(&event("b/g", None, "1.2"));
        assert_eq!(cursors_of(&subs), [some("1.0"), some("1.5")]);
        // So far has the session as a whole been served.
        subs.position("1.3");
        assert_eq!(cursors_of(&subs), [some("1.0"), some("1.5")]);
        subs.synced(&pattern("b/g"), Some(&"1.6".into()));
        assert_eq!(cursors_of(&subs), [some("1.6"), some("1.6")]);
        subs.heard(&event("b/g", None, "1.7"));
        assert_eq!(cursors_of(&subs), [some("1.7"), some("1.7")]);
    }

    #[test]
    fn of_two_that_are_replayed_to_the_one_ahead_is_not_moved_back() {
        let mut subs = Subscriptions::default();
        subs.insert(Subscription::events(pattern("b/*"), some("1.5")), 1);
        subs.insert(Subscription::events(pattern("b/g"), some("1.0")), 2);
        for (to, n) in [("b/*", 1), ("b/g", 2)] {
            subs.granted(&pattern(to), n);
        }
        subs.heard(&event("b/g", None, "1.2"));
        assert_eq!(cursors_of(&subs), [some("1.0"), some("1.5")]);
        // All of them together stand further back.
        subs.synced(&pattern("b/*"), Some(&"1.2".into()));
        assert_eq!(cursors_of(&subs), [some("1.0"), some("1.5")]);
        subs.synced(&pattern("b/g"), Some(&"1.9".into()));
        assert_eq!(cursors_of(&subs), [some("1.9"), some("1.9")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_for_now_is_asked_for_again_and_holds_nobody_up() {
        let mut subs = Subscriptions::default();
        subs.insert(Subscription::events(pattern("b/*"), None), 1);
        subs.synced(&pattern("b/*"), Some(&"1.5".into()));
        subs.insert(Subscription::events(pattern("b/g"), some("1.0")), 2);
        assert!(!subs.refused(&pattern("b/g"), 2, Some(Duration::from_secs(1))));
        subs.heard(&event("b/g", None, "1.6"));
        assert_eq!(subs.overdue(|_| 3), None);
        assert_eq!(subs.due(), Some(Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let frame = subs.overdue(|_| 3);
        assert_eq!(frame.as_deref(), Some(r#"{"cursor":"1.0","lanes":["event"],"n":3,"t":"subscribe","to":"b/g"}"#));
        assert_eq!((subs.overdue(|_| 4), subs.due()), (None, None));
        assert_eq!(cursors_of(&subs), [some("1.0"), some("1.6")]);
        // A word about the earlier one comes too late to say anything about this one.
        assert!(!subs.refused(&pattern("b/g"), 2, None) && subs.contains(&pattern("b/g")));
        assert!(subs.refused(&pattern("b/g"), 3, None) && !subs.contains(&pattern("b/g")));
    }

    #[test]
    fn only_what_passes_the_paths_moves_a_cursor() {
        let mut subs = Subscriptions::default();
        let path = PathFilter::parse(&["hall/#"]).expect("a filter");
        subs.insert(Subscription { path, ..Subscription::events(pattern("b/*"), some("1.0")) }, 1);
        subs.granted(&pattern("b/*"), 1);
        subs.heard(&event("b/g", Some("kitchen"), "1.1"));
        assert_eq!(cursors_of(&subs), [some("1.0")]);
        subs.heard(&event("b/g", Some("hall/bell"), "1.2"));
        assert_eq!(cursors_of(&subs), [some("1.2")]);
        // It is about the address as a whole.
        subs.heard(&event("b/g", None, "1.3"));
        assert_eq!(cursors_of(&subs), [some("1.3")]);
    }

    #[test]
    fn subscribing_again_keeps_the_place_and_another_lane_has_none() {
        let mut subs = Subscriptions::default();
        subs.insert(Subscription::events(pattern("b/*"), some("1.5")), 1);
        subs.insert(Subscription::events(pattern("b/*"), None), 2);
        assert_eq!(cursors(&mut subs), [some("1.5")]);
        subs.insert(Subscription::all(pattern("b/*")), 3);
        assert_eq!(cursors(&mut subs), [None]);
        assert!(!subs.any_events());
    }
}
