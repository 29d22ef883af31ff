//! What a session subscribes to, again after each reconnect, and how far it has heard of the events. Pure.

use std::collections::BTreeMap;

use riser_core::{PathFilter, Pattern};
use serde_json::json;

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

    /// Whether an event comes by this subscription.
    fn hears(&self, event: &Happened) -> bool {
        let passes = || match &event.path {
            Some(path) => self.path.matches(path),
            None => self.path.is_all(),
        };
        self.event && self.to.matches(&event.of) && passes()
    }
}

/// One subscription, and how far it has heard.
#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    /// After which event it goes on in the next session.
    cursor: Option<String>,
    /// Whether everything that was missed has come in this session.
    synced: bool,
}

/// All subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(BTreeMap<Pattern, Entry>);

impl Subscriptions {
    /// Notes a subscription, in place of an earlier one to the same pattern, and gives its frame.
    pub(crate) fn insert(&mut self, subscription: Subscription, n: u64) -> String {
        let frame = frame(&subscription, subscription.cursor.as_deref(), n);
        self.keep(subscription);
        frame
    }

    /// Notes a subscription while there is no session. Without a cursor of its own it goes on where the earlier one to
    /// the same pattern stood: subscribing again leaves no hole.
    pub(crate) fn keep(&mut self, subscription: Subscription) {
        let to = subscription.to.clone();
        let before = self.0.remove(&to).filter(|before| before.subscription.event && subscription.event);
        let cursor = subscription.cursor.clone().or_else(|| before.and_then(|before| before.cursor));
        self.0.insert(to, Entry { subscription, cursor, synced: false });
    }

    pub(crate) fn remove(&mut self, to: &Pattern) {
        self.0.remove(to);
    }

    /// The frames that ask for everything again in a new session.
    pub(crate) fn again(&mut self, mut number: impl FnMut(&Pattern) -> u64) -> Vec<String> {
        let again = |(to, entry): (&Pattern, &mut Entry)| {
            entry.synced = false;
            frame(&entry.subscription, entry.cursor.as_deref(), number(to))
        };
        self.0.iter_mut().map(again).collect()
    }

    /// An event came. What several subscriptions hear comes once, so that while one is being replayed to, an event that
    /// others hear too may have overtaken what it still misses: it is not counted as heard then.
    pub(crate) fn heard(&mut self, event: &Happened) {
        let hearing = self.0.values().filter(|entry| entry.subscription.hears(event)).count();
        for entry in self.0.values_mut().filter(|entry| entry.subscription.hears(event)) {
            if entry.synced || hearing == 1 {
                entry.cursor = Some(event.cursor.clone());
            }
        }
    }

    /// Everything that a subscription missed has come.
    pub(crate) fn synced(&mut self, to: &Pattern, cursor: Option<&String>) {
        if let Some(entry) = self.0.get_mut(to) {
            entry.synced = true;
            entry.cursor = cursor.cloned().or(entry.cursor.take());
        }
    }

    /// The server said how far the session has heard.
    pub(crate) fn position(&mut self, cursor: &str) {
        for entry in self.0.values_mut().filter(|entry| entry.subscription.event && entry.synced) {
            entry.cursor = Some(cursor.to_owned());
        }
    }

    /// Whether any subscription is about events.
    pub(crate) fn any_events(&self) -> bool {
        self.0.values().any(|entry| entry.subscription.event)
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

    fn some(cursor: &str) -> Option<String> {
        (!cursor.is_empty()).then(|| cursor.to_owned())
    }

    #[test]
    fn a_subscription_goes_on_after_the_last_event_that_it_heard() {
        let mut subs = Subscriptions::default();
        let frame = subs.insert(Subscription::events(pattern("b/*"), some("1.4")), 7);
        assert_eq!(frame, r#"{"cursor":"1.4","lanes":["event"],"n":7,"t":"subscribe","to":"b/*"}"#);
        assert_eq!(cursors(&mut subs), [some("1.4")]);
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
    fn an_event_that_overtook_a_replay_is_not_counted_as_heard() {
        let mut subs = Subscriptions::default();
        subs.insert(Subscription::events(pattern("b/*"), None), 1);
        subs.synced(&pattern("b/*"), Some(&"1.1".into()));
        subs.insert(Subscription::events(pattern("b/g"), some("1.0")), 2);
        subs.heard(&event("b/g", None, "1.9"));
        assert_eq!(cursors(&mut subs), [some("1.0"), some("1.9")]);
    }

    #[test]
    fn only_what_passes_the_paths_moves_a_cursor() {
        let mut subs = Subscriptions::default();
        let path = PathFilter::parse(&["hall/#"]).expect("a filter");
        subs.insert(Subscription { path, ..Subscription::events(pattern("b/*"), some("1.0")) }, 1);
        subs.heard(&event("b/g", Some("kitchen"), "1.1"));
        subs.heard(&event("b/g", None, "1.2"));
        assert_eq!(cursors(&mut subs), [some("1.0")]);
        subs.heard(&event("b/g", Some("hall/bell"), "1.3"));
        assert_eq!(cursors(&mut subs), [some("1.3")]);
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
