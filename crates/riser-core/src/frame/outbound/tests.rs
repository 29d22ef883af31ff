//! The bytes on the wire, as they are: a change of the protocol shows here.

use super::*;
use crate::change::Change;
use crate::grant::Grant;
use crate::presence::Presence;
use crate::state::State;

fn path(s: &str) -> Path {
    s.parse().expect("a path")
}

fn json(s: &str) -> Json {
    Json::parse(s).expect("JSON")
}

fn address() -> Address {
    "b12/f0304".parse().expect("an address")
}

fn snap(online: bool, set: &[(&str, &str)], down: &[&str]) -> Snapshot {
    let mut state = State::default();
    state.apply(&Change::values(set.iter().map(|(p, v)| (path(p), Some(json(v)))), true));
    for p in down {
        state.apply(&Change::mark(path(p), false));
    }
    let presence = Presence { online, since_ms: 5, epoch: Epoch(7), reason: None, edge: None };
    Snapshot { version: Version::new(7, 2), at_ms: 9, presence, state }
}

#[test]
fn welcome_says_who_you_are() {
    let identity = Identity {
        tenant: "acme".parse().expect("a tenant"),
        peer: Peer::Gateway { address: address() },
        grants: vec![Grant::everything()],
        expires_at_ms: Some(99),
        lifetime_ms: Some(9),
    };
    let edge = "edge-0".parse().expect("an edge");
    let text = welcome(&Welcome {
        session: "s1",
        identity: &identity,
        epoch: Some(Epoch(7)),
        have: Some(Version::new(6, 41)),
        heartbeat_ms: 20_000,
        limits: &Limits::default(),
        edge: &edge,
        version: "0.1.0",
        now_ms: 3,
    });
    assert_eq!(
        text,
        concat!(
            r#"{"t":"welcome","session":"s1","tenant":"acme","peer":"gateway","address":"b12/f0304","epoch":7,"#,
            r#""have":{"epoch":6,"rev":41},"token_expires_at_ms":99,"heartbeat_ms":20000,"#,
            r#""limits":{"text_bytes":65536,"binary_bytes":16384,"subscriptions":256,"paths":2048,"state_bytes":262144,"#,
            r#""event_dedup_ms":120000},"features":[],"edge":"edge-0","version":"0.1.0","now_ms":3}"#
        )
    );
}

#[test]
fn answers_are_short() {
    let n = N::new(7).expect("a number");
    assert_eq!(ok(n), r#"{"t":"ok","n":7}"#);
    assert_eq!(ok_token(n, "x.y.z", 4), r#"{"t":"ok","n":7,"token":"x.y.z","expires_at_ms":4}"#);
    assert_eq!(
        error(None, ErrorCode::BadFrame, "a \"b\"", Some(50)),
        r#"{"t":"error","code":"bad_frame","message":"a \"b\"","retry_after_ms":50}"#
    );
    assert_eq!(ok_cursor(n, Cursor { life: 10, seq: 2 }), r#"{"t":"ok","n":7,"cursor":"a.2"}"#);
    assert_eq!(ok_stream(n, StreamId(305_419_896)), r#"{"t":"ok","n":7,"stream":305419896}"#);
    assert_eq!(pong(3, None), r#"{"t":"pong","now_ms":3}"#);
    assert_eq!(pong(3, Some(Cursor::START)), r#"{"t":"pong","now_ms":3,"cursor":"0.0"}"#);
    assert_eq!(pong_gateway(3, Epoch(7), 2), r#"{"t":"pong","now_ms":3,"epoch":7,"held":2}"#);
    assert_eq!(goaway(3120, "drain"), r#"{"t":"goaway","after_ms":3120,"reason":"drain"}"#);
    assert_eq!(resync(), r#"{"t":"resync"}"#);
    assert_eq!(synced(&Pattern::All, None), r#"{"t":"synced","to":"*/*"}"#);
    assert_eq!(synced(&Pattern::All, Some(Cursor::START)), r#"{"t":"synced","to":"*/*","cursor":"0.0"}"#);
    assert_eq!(gap(&Pattern::All), r#"{"t":"gap","to":"*/*","lane":"event"}"#);
    assert_eq!(
        unsubscribed(&Pattern::All, ErrorCode::Forbidden),
        r#"{"t":"unsubscribed","to":"*/*","code":"forbidden"}"#
    );
    assert_eq!(
        presence(&address(), false, Epoch(7), Some(Reason::EdgeLost), 9),
        r#"{"t":"presence","of":"b12/f0304","online":false,"epoch":7,"reason":"edge_lost","at_ms":9}"#
    );
}

#[test]
fn a_snapshot_holds_what_passes_the_filter() {
    let snap = snap(true, &[("hall/lock", "\"locked\""), ("k/l", "true"), ("k/t", "21.5")], &["k"]);
    assert_eq!(
        snapshot(&address(), None, &snap, &PathFilter::ALL, true),
        [concat!(
            r#"{"t":"snapshot","of":"b12/f0304","online":true,"since_ms":5,"epoch":7,"rev":2,"at_ms":9,"#,
            r#""state":{"hall/lock":"locked","k/l":true,"k/t":21.5},"stale":["k/l","k/t"]}"#
        )]
    );
    let filter = PathFilter::parse(&["hall/#"]).expect("a filter");
    let [text] = &snapshot(&address(), None, &snap, &filter, true)[..] else { panic!("one part") };
    assert!(text.ends_with(r#""state":{"hall/lock":"locked"},"stale":[]}"#), "{text}");
    let [text] = &snapshot(&address(), None, &snap, &PathFilter::ALL, false)[..] else { panic!("one part") };
    assert!(text.ends_with(r#""rev":2,"at_ms":9}"#), "{text}");
}

#[test]
fn a_snapshot_says_what_the_flat_is_called() {
    let snap = snap(true, &[("k/l", "1")], &[]);
    let label = |name: Option<&str>, floor: Option<&str>| Label {
        name: name.map(str::to_owned),
        floor: floor.map(str::to_owned),
    };
    for (label, says) in [
        (label(Some("3 left"), Some("3")), r#""name":"3 left","floor":"3","#),
        (label(Some(r#"at "Meyer's" \ 3"#), None), r#""name":"at \"Meyer's\" \\ 3","#),
        (label(None, Some("\u{fc}")), "\"floor\":\"\u{fc}\","),
        (Label::default(), ""),
    ] {
        let rest = r#""online":true,"since_ms":5,"epoch":7,"rev":2,"at_ms":9"#;
        let values = r#","state":{"k/l":1},"stale":[]}"#;
        let head = format!(r#""of":"b12/f0304",{says}{rest}"#);
        let frame = format!(r#"{{"t":"snapshot",{head}{values}"#);
        assert_eq!(snapshot(&address(), Some(&label), &snap, &PathFilter::ALL, true), [frame]);
        // Who watches presence alone is told as well.
        let frame = format!(r#"{{"t":"snapshot",{head}}}"#);
        assert_eq!(snapshot(&address(), Some(&label), &snap, &PathFilter::ALL, false), [frame]);
        let whole = format!("{{{head}{values}");
        assert_eq!(whole_snapshot(&address(), Some(&label), &snap, &PathFilter::ALL), whole);
    }
}

#[test]
fn all_values_of_an_offline_gateway_are_stale() {
    let snap = snap(false, &[("k/l", "1"), ("k/t", "2"), ("m", "3")], &[]);
    let [text] = &snapshot(&address(), None, &snap, &PathFilter::ALL, true)[..] else { panic!("one part") };
    assert!(text.ends_with(r#""stale":["k","m"]}"#), "{text}");
    let filter = PathFilter::parse(&["k/t"]).expect("a filter");
    let [text] = &snapshot(&address(), None, &snap, &filter, true)[..] else { panic!("one part") };
    assert!(text.ends_with(r#""stale":["k/t"]}"#), "{text}");
}

#[test]
fn a_delta_names_values_and_what_became_stale_or_fresh() {
    let (l, t, v) = (path("k/l"), path("k/t"), json("{\"on\":false}"));
    let delta = Delta {
        version: Version::new(7, 3),
        set: vec![(&l, Some(&v)), (&t, None)],
        fresh: vec![&l],
        stale: vec![&t],
        at_ms: 9,
        ts_ms: Some(-1),
    };
    assert_eq!(
        state(&address(), &delta),
        [concat!(
            r#"{"t":"state","of":"b12/f0304","epoch":7,"rev":3,"set":{"k/l":{"on":false},"k/t":null},"#,
            r#""stale":["k/t"],"fresh":["k/l"],"at_ms":9,"ts_ms":-1}"#
        )]
    );
}

#[test]
fn a_large_snapshot_comes_in_parts_that_join_to_the_whole() {
    let fat = format!("\"{}\"", "x".repeat(2_000));
    let names: Vec<String> = (0..100).map(|i| format!("room{i:03}/value")).collect();
    let set: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), fat.as_str())).collect();
    let label = Label { name: Some("3 left".into()), floor: None };
    let parts = snapshot(&address(), Some(&label), &snap(false, &set, &[]), &PathFilter::ALL, true);
    assert!(parts.len() > 3, "{} parts", parts.len());
    let (mut values, mut stale) = (0, 0);
    for (i, part) in parts.iter().enumerate() {
        assert!(part.len() <= 65_536, "{} bytes", part.len());
        let part: serde_json::Value = serde_json::from_str(part).expect("JSON");
        assert_eq!(part.get("more").is_some(), i + 1 < parts.len());
        assert_eq!(part["name"], "3 left", "each part has the same head");
        values += part["state"].as_object().expect("an object").len();
        stale += part["stale"].as_array().expect("a list").len();
    }
    assert_eq!((values, stale), (100, 100));
}

#[test]
fn a_command_and_what_became_of_it() {
    let cmd: CommandId = "b12.f0304.07070707070707070707070707070707.1f".parse().expect("a name");
    let record = Record {
        cmd: cmd.clone(),
        seq: 1,
        prev: 0,
        body: crate::command::Body {
            path: path("hall/lock"),
            action: "unlock".parse().expect("an action"),
            args: Some(json(r#"{"a":1}"#)),
            hold: false,
        },
        by: "client:alice".into(),
        deadline_at_ms: 100,
        sends: 1,
        sent_at_ms: 31,
        sent_to: Some(Epoch(7)),
        outcomes: Vec::new(),
        edges: Vec::new(),
    };
    assert_eq!(
        command(&record, 80),
        concat!(
            r#"{"t":"command","cmd":"b12.f0304.07070707070707070707070707070707.1f","path":"hall/lock","#,
            r#""action":"unlock","args":{"a":1},"ttl_ms":20,"deadline_at_ms":100,"by":"client:alice"}"#
        )
    );
    assert_eq!(cancel(&cmd), r#"{"t":"cancel","cmd":"b12.f0304.07070707070707070707070707070707.1f"}"#);
    assert_eq!(
        ok_cmd(N::new(7).expect("a number"), &cmd),
        r#"{"t":"ok","n":7,"cmd":"b12.f0304.07070707070707070707070707070707.1f"}"#
    );
    let received = Outcome { status: crate::command::Status::Received, code: None, data: None, at_ms: 81, late: false };
    assert_eq!(
        outcome(&cmd, &received),
        concat!(
            r#"{"t":"outcome","cmd":"b12.f0304.07070707070707070707070707070707.1f","of":"b12/f0304","#,
            r#""status":"received","final":false,"code":null,"data":null,"at_ms":81}"#
        )
    );
    let late = Outcome {
        status: crate::command::Status::Failed,
        code: Some("jammed".parse().expect("a code")),
        data: Some(json("[1]")),
        at_ms: 101,
        late: true,
    };
    assert_eq!(
        whole_outcome(&late),
        r#"{"status":"failed","final":false,"late":true,"code":"jammed","data":[1],"at_ms":101}"#
    );
}

#[test]
fn an_event_and_a_stream() {
    let happened = Event {
        of: address(),
        id: "01J".parse().expect("an id"),
        path: Some(path("hall/bell")),
        kind: "ring".parse().expect("a type"),
        data: Some(json(r#"{"n":1}"#)),
        from: "gateway:b12/f0304".into(),
        at_ms: 9,
        ts_ms: Some(-1),
    };
    assert_eq!(
        event(Cursor { life: 10, seq: 2 }, &happened),
        concat!(
            r#"{"t":"event","of":"b12/f0304","cursor":"a.2","id":"01J","path":"hall/bell","type":"ring","#,
            r#""data":{"n":1},"from":"gateway:b12/f0304","at_ms":9,"ts_ms":-1}"#
        )
    );
    let stream = Stream {
        id: StreamId(305_419_896),
        of: address(),
        path: path("talk/door"),
        kind: crate::live::StreamKind::Opus,
        params: Some(json(r#"{"rate":24000}"#)),
        from: "client:alice".into(),
        edge: "edge-0".parse().expect("an edge"),
    };
    assert_eq!(
        opened(&stream),
        concat!(
            r#"{"t":"opened","of":"b12/f0304","path":"talk/door","stream":305419896,"kind":"opus","#,
            r#""params":{"rate":24000},"from":"client:alice"}"#
        )
    );
    assert_eq!(
        closed(&stream.of, stream.id, StreamEnd::Lost),
        r#"{"t":"closed","of":"b12/f0304","stream":305419896,"reason":"lost"}"#
    );
}
