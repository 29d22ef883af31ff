use super::*;

fn path(s: &str) -> Path {
    s.parse().expect("a path")
}

fn address(s: &str) -> Address {
    s.parse().expect("an address")
}

fn apply(view: &mut View, text: &str) -> Option<Update> {
    view.apply(Received::parse(text).expect(text))
}

/// Path, value and a mark for stale ones, as one line.
fn shown(view: &View, of: &str) -> String {
    let seen = view.get(&address(of)).expect("a gateway");
    let one = |(path, value): (&Path, &Value)| {
        format!("{path}={}{}", value.value.as_str(), if value.stale { "?" } else { "" })
    };
    seen.values.iter().map(one).collect::<Vec<_>>().join(" ")
}

const SNAPSHOT: &str = r#"{"t":"snapshot","of":"b/g","online":true,"since_ms":5,"epoch":7,"rev":2,"at_ms":9,
    "state":{"hall":0,"k":1,"k/l":2,"k/t":3},"stale":["k"],"devices":{"k/l":{"kind":"dimmer"}}}"#;

#[test]
fn a_snapshot_marks_stale_paths_with_all_below() {
    let mut view = View::default();
    assert_eq!(apply(&mut view, SNAPSHOT), Some(Update::Snapshot(address("b/g"))));
    assert_eq!(shown(&view, "b/g"), "hall=0 k=1? k/l=2? k/t=3?");
    let seen = view.get(&address("b/g")).expect("a gateway");
    assert_eq!((seen.online, seen.since_ms, seen.version), (true, 5, Version::new(7, 2)));
    assert!(seen.devices.is_some());
}

#[test]
fn a_flat_is_called_what_its_last_snapshot_said() {
    let mut view = View::default();
    let called = |view: &View| view.get(&address("b/g")).map(|seen| (seen.name.clone(), seen.floor.clone()));
    let says = |says: &str| SNAPSHOT.replace(r#""online""#, &format!(r#"{says}"online""#));
    apply(&mut view, &says(r#""name":"3 left","floor":"3","#));
    assert_eq!(called(&view), Some((Some("3 left".into()), Some("3".into()))));
    let delta = r#"{"t":"state","of":"b/g","epoch":7,"rev":3,"set":{"hall":1},"at_ms":10}"#;
    assert!(apply(&mut view, delta).is_some());
    assert_eq!(called(&view), Some((Some("3 left".into()), Some("3".into()))), "other frames do not say it");
    // A part that follows says the same.
    let part = says(r#""name":"4 right","#).replace(r#""epoch":7"#, r#""more":true,"epoch":7"#);
    assert_eq!(apply(&mut view, &part), None);
    apply(&mut view, &says(r#""name":"4 right","#));
    assert_eq!(called(&view), Some((Some("4 right".into()), None)));
    apply(&mut view, SNAPSHOT);
    assert_eq!(called(&view), Some((None, None)));
}

#[test]
fn a_delta_sets_then_freshens_then_makes_stale() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    let delta = r#"{"t":"state","of":"b/g","epoch":7,"rev":5,"set":{"hall":null,"k/l":9},"fresh":["k"],
        "stale":["k/t"],"at_ms":10}"#;
    let set = vec![path("hall"), path("k/l")];
    assert_eq!(apply(&mut view, delta), Some(Update::State { of: address("b/g"), set }));
    assert_eq!(shown(&view, "b/g"), "k=1 k/l=9 k/t=3?");
}

#[test]
fn only_a_greater_version_applies_and_a_snapshot_always_does() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    for (epoch, rev) in [(7, 2), (7, 1), (6, 99)] {
        let old = format!(r#"{{"t":"state","of":"b/g","epoch":{epoch},"rev":{rev},"set":{{"hall":66}},"at_ms":1}}"#);
        assert_eq!(apply(&mut view, &old), None, "{epoch}.{rev}");
    }
    assert_eq!(shown(&view, "b/g"), "hall=0 k=1? k/l=2? k/t=3?");
    let older = r#"{"t":"snapshot","of":"b/g","online":true,"since_ms":5,"epoch":6,"rev":1,"at_ms":9,"state":{"x":1},"stale":[]}"#;
    apply(&mut view, older);
    assert_eq!(shown(&view, "b/g"), "x=1");
    let newer = r#"{"t":"state","of":"b/g","epoch":6,"rev":2,"set":{"x":2},"at_ms":9}"#;
    apply(&mut view, newer);
    assert_eq!(shown(&view, "b/g"), "x=2");
}

#[test]
fn parts_take_effect_at_the_last() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    let first = r#"{"t":"snapshot","of":"b/g","online":true,"since_ms":5,"epoch":8,"rev":0,"at_ms":9,"state":{"a":1},"stale":[],"more":true}"#;
    assert_eq!(apply(&mut view, first), None);
    assert_eq!(shown(&view, "b/g"), "hall=0 k=1? k/l=2? k/t=3?");
    // Parts of others may come between.
    let other =
        r#"{"t":"snapshot","of":"b/h","online":true,"since_ms":5,"epoch":1,"rev":1,"at_ms":9,"state":{},"stale":[]}"#;
    assert_eq!(apply(&mut view, other), Some(Update::Snapshot(address("b/h"))));
    let last = r#"{"t":"snapshot","of":"b/g","online":true,"since_ms":5,"epoch":8,"rev":0,"at_ms":9,"state":{"b":2},"stale":["a"]}"#;
    assert_eq!(apply(&mut view, last), Some(Update::Snapshot(address("b/g"))));
    assert_eq!(shown(&view, "b/g"), "a=1? b=2");
    let first =
        r#"{"t":"state","of":"b/g","epoch":8,"rev":1,"set":{"a":5},"stale":[],"fresh":[],"at_ms":9,"more":true}"#;
    assert_eq!(apply(&mut view, first), None);
    let last = r#"{"t":"state","of":"b/g","epoch":8,"rev":1,"set":{"b":6},"stale":["b"],"fresh":[],"at_ms":9}"#;
    assert!(apply(&mut view, last).is_some());
    assert_eq!(shown(&view, "b/g"), "a=5 b=6?");
}

#[test]
fn the_first_parts_of_another_version_are_dropped() {
    let mut view = View::default();
    let part = |rev: u32, set: &str, more: bool| {
        format!(r#"{{"t":"state","of":"b/g","epoch":8,"rev":{rev},"set":{{{set}}},"at_ms":9,"more":{more}}}"#)
    };
    apply(&mut view, &part(1, r#""old":1"#, true));
    apply(&mut view, &part(2, r#""new":1"#, false));
    assert_eq!(shown(&view, "b/g"), "new=1");
}

#[test]
fn a_gateway_that_goes_offline_makes_all_its_values_stale() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    let gone = r#"{"t":"presence","of":"b/g","online":false,"epoch":7,"reason":"heartbeat","at_ms":50}"#;
    assert_eq!(apply(&mut view, gone), Some(Update::Presence(address("b/g"))));
    assert_eq!(shown(&view, "b/g"), "hall=0? k=1? k/l=2? k/t=3?");
    let seen = view.get(&address("b/g")).expect("a gateway");
    assert_eq!((seen.online, seen.since_ms, seen.reason), (false, 50, Some(Reason::Heartbeat)));
    // The coming of an epoch that has gone is late, and so is anything of an epoch before.
    for late in [
        r#"{"t":"presence","of":"b/g","online":true,"epoch":7,"at_ms":60}"#,
        r#"{"t":"presence","of":"b/g","online":true,"epoch":6,"at_ms":60}"#,
    ] {
        assert_eq!(apply(&mut view, late), None, "{late}");
    }
    let back = r#"{"t":"presence","of":"b/g","online":true,"epoch":8,"at_ms":70}"#;
    apply(&mut view, back);
    let seen = view.get(&address("b/g")).expect("a gateway");
    assert_eq!((seen.online, seen.since_ms), (true, 70));
}

#[test]
fn a_takeover_begins_no_new_stay() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    apply(&mut view, r#"{"t":"presence","of":"b/g","online":true,"epoch":8,"reason":"takeover","at_ms":50}"#);
    let seen = view.get(&address("b/g")).expect("a gateway");
    assert_eq!((seen.since_ms, seen.reason, seen.epoch), (5, Some(Reason::Takeover), Epoch(8)));
}

#[test]
fn what_a_new_connection_does_not_hear_of_is_gone_when_synced() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    apply(&mut view, &SNAPSHOT.replace("b/g", "b/h"));
    apply(&mut view, &SNAPSHOT.replace("b/g", "c/g"));
    view.reconnected();
    apply(&mut view, SNAPSHOT);
    let to: Pattern = "b/*".parse().expect("a pattern");
    let synced = apply(&mut view, r#"{"t":"synced","to":"b/*"}"#);
    assert_eq!(synced, Some(Update::Synced { to, gone: vec![address("b/h")], cursor: None }));
    let left: Vec<String> = view.iter().map(|(of, _)| of.to_string()).collect();
    assert_eq!(left, ["b/g", "c/g"]);
}

#[test]
fn parts_without_end_are_left_out() {
    let mut view = View::default();
    for part in 0..6 {
        let set: Vec<String> = (0..1_000).map(|i| format!(r#""p{part}/{i}":1"#)).collect();
        let text = format!(
            r#"{{"t":"state","of":"b/g","epoch":8,"rev":1,"set":{{{}}},"at_ms":9,"more":true}}"#,
            set.join(",")
        );
        assert_eq!(apply(&mut view, &text), None);
    }
    assert_eq!(view.ignored(), 1);
}

#[test]
fn a_presence_only_snapshot_leaves_the_values() {
    let mut view = View::default();
    apply(&mut view, SNAPSHOT);
    apply(&mut view, r#"{"t":"snapshot","of":"b/g","online":true,"since_ms":5,"epoch":7,"rev":3,"at_ms":9}"#);
    assert_eq!(shown(&view, "b/g"), "hall=0 k=1? k/l=2? k/t=3?");
}
