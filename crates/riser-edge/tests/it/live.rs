//! Live streams from the speaker's socket to the hearers', over two edges and their twins.

use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload};
use riser_bus::Subject;
use riser_bus::memory::Faults as BusFaults;
use riser_core::live::{Header, StreamId, StreamKind};
use riser_core::{Grant, Identity};
use riser_edge::Edge;
use riser_edge::auth::{TokenOrder, mint};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::harness::*;

const TENTH: Duration = Duration::from_millis(100);

/// What a peer is sent, in order.
#[derive(Debug, Clone, PartialEq)]
enum Got {
    Text(Value),
    Frame(Header, Vec<u8>),
}

impl Got {
    fn is(&self, t: &str) -> bool {
        matches!(self, Self::Text(frame) if frame["t"] == t)
    }

    fn seq(&self) -> Option<u32> {
        match self {
            Self::Frame(header, _) => Some(header.seq),
            Self::Text(_) => None,
        }
    }
}

async fn got(peer: &mut Peerling) -> Got {
    loop {
        let frame = timeout(PATIENCE, peer.ws.read_frame()).await.expect("in time").expect("a frame");
        match frame.opcode {
            OpCode::Text => return Got::Text(serde_json::from_slice(&frame.payload).expect("JSON")),
            OpCode::Binary => {
                let header = Header::parse(&frame.payload).expect("a header");
                return Got::Frame(header, frame.payload[16..].to_vec());
            }
            OpCode::Close => panic!("closed: {:?}", String::from_utf8_lossy(&frame.payload)),
            _ => {}
        }
    }
}

/// All that comes up to a text frame of this type, with it.
async fn up_to(peer: &mut Peerling, t: &str) -> Vec<Got> {
    let mut list = Vec::new();
    loop {
        list.push(got(peer).await);
        if list.last().is_some_and(|last| last.is(t)) {
            return list;
        }
    }
}

/// All that was sent to a peer before it asked.
async fn so_far(peer: &mut Peerling) -> Vec<Got> {
    peer.send(&json!({"t":"ping"})).await;
    let mut list = up_to(peer, "pong").await;
    list.pop();
    list
}

async fn answer(peer: &mut Peerling, n: u64) -> Value {
    loop {
        match got(peer).await {
            Got::Text(frame) if frame["n"] == n => return frame,
            _ => {}
        }
    }
}

async fn text(peer: &mut Peerling, t: &str) -> Value {
    match up_to(peer, t).await.pop() {
        Some(Got::Text(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

async fn open(peer: &mut Peerling, n: u64, more: &Value) -> Value {
    let mut frame = json!({"t":"open","n":n,"path":"talk/door","kind":"opus"});
    frame.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    peer.send(&frame).await;
    answer(peer, n).await
}

/// Opens a stream and gives its number.
async fn stream(peer: &mut Peerling, to: &str) -> StreamId {
    let ok = open(peer, 1, &json!({"to":to})).await;
    assert_eq!(ok["t"], "ok", "{ok}");
    StreamId(u32::try_from(ok["stream"].as_u64().expect("a number")).expect("32 bits"))
}

fn message(stream: StreamId, seq: u32, payload: usize) -> Vec<u8> {
    let header = Header { kind: StreamKind::Opus, last: false, stream, seq, clock_ms: 7 };
    let mut message = header.to_bytes().to_vec();
    message.resize(16 + payload, 0x5a);
    message
}

async fn binary(peer: &mut Peerling, message: Vec<u8>) {
    peer.ws.write_frame(Frame::binary(Payload::Owned(message))).await.expect("written");
}

async fn speak(peer: &mut Peerling, stream: StreamId, seq: u32) {
    binary(peer, message(stream, seq, 44)).await;
}

async fn listener(edge: &Edge, to: &str) -> Peerling {
    let (mut peer, _) = Peerling::open(edge, client_of("acme")).await;
    assert!(peer.subscribe(to, &["live"]).await.is_empty());
    peer
}

fn with_grants(grants: &Value) -> Identity {
    let grants: Vec<Grant> = serde_json::from_value(grants.clone()).expect("grants");
    Identity { grants, ..client_of("acme") }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_heard_as_it_is_and_closed_over_two_edges() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut near = listener(&one, "b12/*").await;
    let mut far = listener(&two, "*/*").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let ok = open(&mut speaker, 9, &json!({"to":"b12/f1","params":{"rate":24_000}})).await;
    let id = StreamId(u32::try_from(ok["stream"].as_u64().expect("a number")).expect("32 bits"));
    let opened = json!({"t":"opened","of":"b12/f1","path":"talk/door","stream":id.0,"kind":"opus",
        "params":{"rate":24_000},"from":"client:alice"});
    for seq in [5, 6] {
        speak(&mut speaker, id, seq).await;
    }
    for peer in [&mut near, &mut far] {
        assert_eq!(got(peer).await, Got::Text(opened.clone()));
        for seq in [5, 6] {
            let header = Header { kind: StreamKind::Opus, last: false, stream: id, seq, clock_ms: 7 };
            assert_eq!(got(peer).await, Got::Frame(header, vec![0x5a; 44]));
        }
    }
    speaker.send(&json!({"t":"close","n":10,"stream":id.0})).await;
    assert_eq!(answer(&mut speaker, 10).await["t"], "ok");
    for peer in [&mut near, &mut far] {
        let closed = json!({"t":"closed","of":"b12/f1","stream":id.0,"reason":"closed"});
        assert_eq!(got(peer).await, Got::Text(closed));
    }
    // Its own frames never came back, and it did not listen.
    assert_eq!(so_far(&mut speaker).await, []);
    speaker.send(&json!({"t":"close","n":11,"stream":id.0})).await;
    assert_eq!(answer(&mut speaker, 11).await["code"], "not_found");
    assert_eq!(counted(&metrics, "riser_live_frames_received_total", None), 2);
    assert_eq!(counted(&metrics, "riser_frames_delivered_total", Some("live")), 2);
    assert_eq!(counted(&metrics, "riser_live_closed_total", Some("closed")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_listener_of_two_hundred_loses_only_its_own_oldest_frames_and_answers_go_first() {
    const FRAMES: u32 = 500;
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, metrics) = cluster.edge("edge-1").await;
    let mut readers = tokio::task::JoinSet::new();
    let mut listeners = Vec::new();
    for _ in 0..199 {
        listeners.push(listener(&two, "b12/f1").await);
    }
    // The paused one is the gateway itself, to which commands go.
    let (mut paused, _) = Peerling::open(&two, gateway("b12/f1")).await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    text(&mut paused, "opened").await;
    for mut peer in listeners {
        readers.spawn(async move { up_to(&mut peer, "closed").await });
    }
    for seq in 0..FRAMES {
        sleep(Duration::from_millis(20)).await;
        speak(&mut speaker, id, seq).await;
        if seq == FRAMES / 2 {
            paused.send(&json!({"t":"state","n":77,"set":{"a":1}})).await;
            speaker.send(&json!({"t":"command","n":2,"to":"b12/f1","path":"hall/lock","action":"unlock"})).await;
            assert_eq!(answer(&mut speaker, 2).await["t"], "ok");
        }
    }
    sleep(Duration::from_secs(1)).await;
    let seen = so_far_of_paused(&mut paused).await;
    speaker.send(&json!({"t":"close","n":3,"stream":id.0})).await;
    while let Some(heard) = readers.join_next().await {
        let heard = heard.expect("a listener");
        let seqs: Vec<u32> = heard.iter().filter_map(Got::seq).collect();
        assert_eq!(seqs, (0..FRAMES).collect::<Vec<_>>());
    }
    // What the pipe took before it was full, then the answer and the command, then the newest frames.
    let at = |t: &str| seen.iter().position(|got| got.is(t)).expect("it came");
    let (first, last) = (at("ok").min(at("command")), at("ok").max(at("command")));
    assert_eq!(last, first + 1, "{seen:?}");
    let before: Vec<u32> = seen[..first].iter().filter_map(Got::seq).collect();
    let after: Vec<u32> = seen[last..].iter().filter_map(Got::seq).collect();
    assert_eq!(before, (0..u32::try_from(before.len()).expect("few")).collect::<Vec<_>>());
    assert!(before.len() < 80, "{}", before.len());
    assert_eq!(after, (FRAMES - 64..FRAMES).collect::<Vec<_>>());
    let lost = u64::from(FRAMES) - (before.len() + after.len()) as u64;
    assert_eq!(counted(&metrics, "riser_live_frames_dropped_total", Some("slow_receiver")), lost);
}

/// What waits for a peer that did not read, without a word to it.
async fn so_far_of_paused(peer: &mut Peerling) -> Vec<Got> {
    let mut list = Vec::new();
    while let Ok(one) = timeout(Duration::from_secs(1), got(peer)).await {
        list.push(one);
    }
    list
}

#[tokio::test(start_paused = true)]
async fn late_comers_are_told_what_is_open_before_they_hear_it_and_nothing_after_they_leave() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    speak(&mut speaker, id, 1).await;
    for edge in [&one, &two] {
        let (mut late, _) = Peerling::open(edge, client_of("acme")).await;
        late.send(&json!({"t":"subscribe","n":1,"to":"b12/f1","lanes":["live"]})).await;
        let begin = up_to(&mut late, "synced").await;
        assert!(begin[0].is("ok") && begin[1].is("opened") && begin.len() == 3, "{begin:?}");
        speak(&mut speaker, id, 2).await;
        assert_eq!(got(&mut late).await.seq(), Some(2));
        late.send(&json!({"t":"unsubscribe","n":2,"to":"b12/f1"})).await;
        assert_eq!(answer(&mut late, 2).await["t"], "ok");
        speak(&mut speaker, id, 3).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(so_far(&mut late).await, []);
    }
    // The opener hears that its stream is open and over, as all who subscribe do, and not itself.
    assert!(speaker.subscribe("b12/f1", &["live"]).await.iter().any(|frame| frame["t"] == "opened"));
    speak(&mut speaker, id, 4).await;
    speaker.send(&json!({"t":"close","n":5,"stream":id.0})).await;
    let rest = up_to(&mut speaker, "closed").await;
    assert!(rest.iter().all(|got| got.seq().is_none()), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_paused_listener_does_not_come_after_it_unsubscribed() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let mut paused = listener(&one, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    for seq in 0..150 {
        speak(&mut speaker, id, seq).await;
    }
    sleep(Duration::from_secs(1)).await;
    paused.send(&json!({"t":"unsubscribe","n":2,"to":"b12/f1"})).await;
    let last = up_to(&mut paused, "ok").await;
    assert!(last.iter().filter_map(Got::seq).count() > 20, "{last:?}");
    assert_eq!(so_far_of_paused(&mut paused).await, []);
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_and_patterns_deliver_a_frame_once_and_paths_select() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut both = listener(&two, "b12/f1").await;
    both.subscribe("*/*", &["live"]).await;
    let mut narrow = listener(&two, "b12/*").await;
    let (mut kitchen, _) = Peerling::open(&two, client_of("acme")).await;
    kitchen.send(&json!({"t":"subscribe","n":1,"to":"b12/f1","lanes":["live"],"path":["kitchen/#"]})).await;
    text(&mut kitchen, "synced").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    speak(&mut speaker, id, 1).await;
    sleep(Duration::from_secs(1)).await;
    for peer in [&mut both, &mut narrow] {
        let heard = so_far(peer).await;
        assert!(heard.len() == 2 && heard[0].is("opened") && heard[1].seq() == Some(1), "{heard:?}");
    }
    assert_eq!(so_far(&mut kitchen).await, []);
    // With the widest pattern gone the next one carries on.
    both.send(&json!({"t":"unsubscribe","n":2,"to":"*/*"})).await;
    text(&mut both, "ok").await;
    speak(&mut speaker, id, 2).await;
    sleep(Duration::from_secs(1)).await;
    for peer in [&mut both, &mut narrow] {
        let heard = so_far(peer).await;
        assert!(heard.len() == 1 && heard[0].seq() == Some(2), "{heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_opener_is_gone_is_lost_at_once() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    text(&mut far, "opened").await;
    let gone = Instant::now();
    drop(speaker);
    let closed = text(&mut far, "closed").await;
    assert_eq!((&closed["reason"], &closed["stream"]), (&json!("lost"), &json!(id.0)));
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    assert_eq!(counted(&metrics, "riser_live_closed_total", Some("lost")), 1);
}

#[tokio::test(start_paused = true)]
async fn the_streams_of_a_killed_edge_are_lost_within_15_seconds_whenever_it_dies() {
    for after in [0, 1_700, 3_300, 4_900] {
        let cluster = Cluster::new();
        let (one, _) = cluster.edge("edge-0").await;
        let (two, _) = cluster.edge("edge-1").await;
        let mut far = listener(&two, "b12/f1").await;
        let (mut gw, _) = Peerling::open(&two, gateway("b12/f1")).await;
        let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
        let id = stream(&mut speaker, "b12/f1").await;
        sleep(Duration::from_millis(20_000 + after)).await;
        speak(&mut speaker, id, 1).await;
        sleep(Duration::from_millis(20)).await;
        let killed = Instant::now();
        one.kill().await;
        for peer in [&mut far, &mut gw] {
            let closed = text(peer, "closed").await;
            assert_eq!(closed["reason"], "lost");
        }
        assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
        let (mut late, _) = Peerling::open(&two, client_of("acme")).await;
        assert!(late.subscribe("*/*", &["live"]).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_edge_tells_that_its_streams_are_lost() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    stream(&mut speaker, "b12/f1").await;
    text(&mut far, "opened").await;
    one.drain().await;
    let drained = Instant::now();
    assert_eq!(text(&mut far, "closed").await["reason"], "lost");
    assert_eq!(drained.elapsed(), Duration::ZERO, "it was told before the edge had ended");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_hears_its_own_address_without_subscribing_also_when_it_comes_later_and_moves() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let mut seq = 0;
    for (edge, what) in [(&one, "it comes"), (&two, "it moves"), (&two, "it comes again"), (&one, "it moves back")] {
        let (mut gw, _) = Peerling::open(edge, gateway("b12/f1")).await;
        let opened = text(&mut gw, "opened").await;
        assert_eq!((&opened["stream"], &opened["of"]), (&json!(id.0), &json!("b12/f1")), "{what}");
        // Whoever knows of a stream gets what is said from then on.
        seq += 1;
        speak(&mut speaker, id, seq).await;
        let heard = timeout(Duration::from_millis(100), got(&mut gw)).await;
        assert_eq!(heard.expect("the first frame").seq(), Some(seq), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_speaks_at_its_own_address_and_hears_others_but_not_itself() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/*").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    let ok = open(&mut gw, 1, &json!({})).await;
    let id = StreamId(u32::try_from(ok["stream"].as_u64().expect("a number")).expect("32 bits"));
    assert_eq!(open(&mut gw, 2, &json!({"to":"b12/f2"})).await["code"], "forbidden");
    assert_eq!(text(&mut far, "opened").await["from"], "gateway:b12/f1");
    speak(&mut gw, id, 1).await;
    assert_eq!(got(&mut far).await.seq(), Some(1));
    let back = stream(&mut far, "b12/f1").await;
    speak(&mut far, back, 2).await;
    sleep(Duration::from_secs(1)).await;
    let heard: Vec<u32> = so_far(&mut gw).await.iter().filter_map(Got::seq).collect();
    assert_eq!(heard, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_carries_two_hundred_frames_a_second_and_128_kib_and_its_speaker_is_told_once_a_second() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let mut near = listener(&one, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let hearing = tokio::spawn(async move { up_to(&mut near, "closed").await });
    let mut errors = 0;
    for second in 0..3 {
        for seq in 0..500 {
            speak(&mut speaker, id, second * 500 + seq).await;
            tokio::task::yield_now().await;
        }
        for got in so_far(&mut speaker).await {
            assert!(matches!(&got, Got::Text(frame) if frame["code"] == "rate_limited"), "{got:?}");
            errors += 1;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(errors, 3);
    let second = stream(&mut speaker, "b12/f1").await;
    for seq in 0..20 {
        binary(&mut speaker, message(second, seq, 16 * 1024 - 16)).await;
    }
    assert_eq!(so_far(&mut speaker).await.len(), 1);
    speaker.send(&json!({"t":"close","n":9,"stream":id.0})).await;
    let heard = hearing.await.expect("a listener");
    let of = |id: StreamId| heard.iter().filter(|g| matches!(g, Got::Frame(h, _) if h.stream == id)).count();
    assert_eq!((of(id), of(second)), (600, 8));
    assert_eq!(counted(&metrics, "riser_live_frames_dropped_total", Some("rate")), 900 + 12);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_of_an_own_stream_is_refused_and_the_session_goes_on() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let (mut other, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut near, _) = Peerling::open(&one, client_of("acme")).await;
    near.subscribe("b12/f1", &["live"]).await;
    let flagged = |at: usize| {
        let mut bad = message(id, 1, 4);
        bad[at] = 9;
        bad
    };
    let unknown = message(StreamId(0), 1, 4);
    for (bad, code) in [
        (vec![], "bad_frame"),
        (message(id, 1, 0)[..15].to_vec(), "bad_frame"),
        (flagged(0), "bad_frame"),
        (flagged(1), "bad_frame"),
        (flagged(2), "bad_frame"),
        (flagged(3), "bad_frame"),
        ([&[2], &message(id, 1, 4)[1..]].concat(), "bad_frame"),
        (unknown, "not_found"),
    ] {
        binary(&mut speaker, bad.clone()).await;
        let error = text(&mut speaker, "error").await;
        assert_eq!((&error["code"], error.get("n")), (&json!(code), None), "{bad:?}");
    }
    // Another session's stream is as good as none.
    speak(&mut other, id, 1).await;
    assert_eq!(text(&mut other, "error").await["code"], "not_found");
    other.send(&json!({"t":"close","n":3,"stream":id.0})).await;
    assert_eq!(answer(&mut other, 3).await["code"], "not_found");
    // A frame of the smallest size is one.
    binary(&mut speaker, message(id, 2, 0)).await;
    assert_eq!(so_far(&mut speaker).await, []);
    let heard: Vec<u32> = so_far(&mut near).await.iter().filter_map(Got::seq).collect();
    assert_eq!(heard, [2], "what was refused reaches nobody");
}

#[tokio::test(start_paused = true)]
async fn eight_streams_of_a_session_are_open_at_most() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    for n in 0..9 {
        speaker.send(&json!({"t":"open","n":n,"to":"b12/f1","path":"a","kind":"position"})).await;
    }
    let mut numbers = std::collections::BTreeSet::new();
    let mut refused = 0;
    for _ in 0..9 {
        match got(&mut speaker).await {
            Got::Text(frame) if frame["t"] == "ok" => {
                numbers.insert(frame["stream"].as_u64());
            }
            Got::Text(frame) => {
                assert_eq!((&frame["code"], &frame["n"]), (&json!("too_many"), &json!(8)));
                refused += 1;
            }
            frame @ Got::Frame(..) => panic!("{frame:?}"),
        }
    }
    assert_eq!((numbers.len(), refused), (8, 1));
    let first = numbers.first().expect("a number");
    speaker.send(&json!({"t":"close","n":20,"stream":first})).await;
    assert_eq!(answer(&mut speaker, 20).await["t"], "ok");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(open(&mut speaker, 21, &json!({"to":"b12/f1"})).await["t"], "ok");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_speak_or_listen_does_not_and_withdrawn_rights_end_both() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut deaf, _) = Peerling::open(&one, with_grants(&json!([{"to":"b12/*","may":["read","speak"]}]))).await;
    deaf.send(&json!({"t":"subscribe","n":1,"to":"b12/f1","lanes":["live"]})).await;
    assert_eq!(answer(&mut deaf, 1).await["code"], "forbidden");
    let (mut mute, _) = Peerling::open(&one, with_grants(&json!([{"to":"b12/*","may":["read","listen"]}]))).await;
    assert_eq!(open(&mut mute, 1, &json!({"to":"b12/f1"})).await["code"], "forbidden");
    assert_eq!(open(&mut mute, 2, &json!({})).await["code"], "bad_frame");
    let grants = json!([{"to":"b12/*","path":["talk/#"],"may":["speak","listen"]}]);
    let (mut peer, _) = Peerling::open(&one, with_grants(&grants)).await;
    assert_eq!(open(&mut peer, 1, &json!({"to":"b12/f1","path":"hall/mic"})).await["code"], "forbidden");
    assert_eq!(open(&mut peer, 2, &json!({"to":"c/f1"})).await["code"], "forbidden");
    let id = stream(&mut peer, "b12/f1").await;
    let mut near = listener(&one, "b12/f9").await;
    near.subscribe("b12/f1", &["live"]).await;
    let other = stream(&mut near, "b12/f1").await;
    peer.subscribe("b12/f1", &["live"]).await;
    // A token without either right.
    let order = json!({"peer":"client","subject":"alice","ttl_s":600,"grants":[{"to":"b12/*","may":["read"]}]});
    let order = TokenOrder::parse(order.to_string().as_bytes(), &client_of("acme")).expect("an order");
    let minted = mint(&client_of("acme").tenant, &tenant(), &order, cluster.store.now_ms()).expect("a token");
    peer.send(&json!({"t":"auth","n":7,"token":minted.token})).await;
    assert_eq!(answer(&mut peer, 7).await["t"], "ok");
    let rest = up_to(&mut peer, "closed").await;
    assert!(rest.iter().any(|got| got.is("unsubscribed")), "{rest:?}");
    let closed = text(&mut near, "closed").await;
    assert_eq!((&closed["stream"], &closed["reason"]), (&json!(id.0), &json!("closed")));
    speak(&mut near, other, 1).await;
    speak(&mut peer, id, 1).await;
    assert_eq!(text(&mut peer, "error").await["code"], "not_found");
    assert_eq!(so_far(&mut peer).await, []);
    assert_eq!(counted(&metrics, "riser_live_closed_total", Some("withdrawn")), 1);
}

/// Reads, and so stays, until a stream is closed.
async fn long_until_closed(mut peer: Peerling) -> (Value, Peerling) {
    loop {
        if let Ok(Got::Text(frame)) = timeout(Duration::from_secs(20), got(&mut peer)).await
            && frame["t"] == "closed"
        {
            return (frame, peer);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_closed_after_a_minute_and_its_opener_told_once() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let near = listener(&one, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let near = tokio::spawn(long_until_closed(near));
    for _ in 0..2 {
        sleep(Duration::from_secs(25)).await;
        assert_eq!(so_far(&mut speaker).await, []);
    }
    speak(&mut speaker, id, 1).await;
    let spoke = Instant::now();
    let opener = tokio::spawn(long_until_closed(speaker));
    let (closed, _) = near.await.expect("a listener");
    assert_eq!(closed["reason"], "closed");
    let silent = spoke.elapsed();
    assert!((Duration::from_secs(60)..=Duration::from_secs(66)).contains(&silent), "{silent:?}");
    let (told, mut speaker) = opener.await.expect("the opener");
    assert_eq!((told, so_far(&mut speaker).await), (closed, vec![]));
    assert_eq!(counted(&metrics, "riser_live_closed_total", Some("idle")), 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nothing_opens_and_what_is_open_goes_on() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    text(&mut far, "opened").await;
    cluster.store.cut_all(Duration::from_millis(500));
    assert_eq!(open(&mut speaker, 5, &json!({"to":"b12/f1"})).await["code"], "unavailable");
    let (mut late, _) = Peerling::open(&two, client_of("acme")).await;
    late.send(&json!({"t":"subscribe","n":1,"to":"b13/*","lanes":["live"]})).await;
    assert_eq!(answer(&mut late, 1).await["code"], "unavailable");
    for seq in 0..40 {
        sleep(Duration::from_millis(500)).await;
        speak(&mut speaker, id, seq).await;
        assert_eq!(got(&mut far).await.seq(), Some(seq));
    }
    cluster.store.heal_all();
    // Silent now, and neither ended nor opened again.
    sleep(Duration::from_secs(20)).await;
    assert_eq!(so_far(&mut far).await, []);
    let (mut late, _) = Peerling::open(&two, client_of("acme")).await;
    assert!(late.subscribe("b12/*", &["live"]).await.iter().any(|frame| frame["t"] == "opened"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_outlives_an_outage_of_the_store_whoever_asks_it_first_after() {
    for later in 0..5 {
        let cluster = Cluster::new();
        let (one, _) = cluster.edge("edge-0").await;
        let (two, _) = cluster.edge("edge-1").await;
        let mut far = listener(&two, "b12/f1").await;
        sleep(Duration::from_millis(later * 1_000 + 100)).await;
        let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
        stream(&mut speaker, "b12/f1").await;
        text(&mut far, "opened").await;
        cluster.store.cut_all(Duration::from_millis(10));
        sleep(Duration::from_millis(19_800 - later * 1_000)).await;
        cluster.store.heal_all();
        sleep(Duration::from_secs(11)).await;
        assert_eq!(so_far(&mut far).await, [], "{later} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_is_told_again_while_frames_go_on() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    text(&mut far, "opened").await;
    cluster.store.empty();
    for seq in 0..100 {
        sleep(Duration::from_millis(200)).await;
        speak(&mut speaker, id, seq).await;
        assert_eq!(got(&mut far).await.seq(), Some(seq));
    }
    let (mut late, _) = Peerling::open(&two, client_of("acme")).await;
    assert!(late.subscribe("b12/f1", &["live"]).await.iter().any(|frame| frame["t"] == "opened"));
}

#[tokio::test(start_paused = true)]
async fn lost_words_of_opening_and_closing_are_made_good() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, metrics) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut gw, _) = Peerling::open(&two, gateway("b12/f1")).await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let (from, to) = ("edge-0".parse().expect("an edge"), "edge-1".parse().expect("an edge"));
    cluster.net.block(&from, &to);
    let id = stream(&mut speaker, "b12/f1").await;
    sleep(Duration::from_millis(10)).await;
    cluster.net.unblock(&from, &to);
    // A frame of an unknown stream is for nobody, and has the store asked.
    speak(&mut speaker, id, 1).await;
    let asked = Instant::now();
    for peer in [&mut far, &mut gw] {
        let first = got(peer).await;
        assert!(first.is("opened"), "{first:?}");
    }
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(counted(&metrics, "riser_live_frames_dropped_total", Some("unknown")), 2);
    speak(&mut speaker, id, 2).await;
    for peer in [&mut far, &mut gw] {
        assert_eq!(got(peer).await.seq(), Some(2));
    }
    cluster.net.block(&from, &to);
    speaker.send(&json!({"t":"close","n":5,"stream":id.0})).await;
    for peer in [&mut far, &mut gw] {
        assert_eq!(text(peer, "closed").await["reason"], "lost");
    }
    assert!(cluster.net.fault_counts().dropped > 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_bus_costs_the_oldest_frames_and_never_keeps_the_session_waiting() {
    let cluster = Cluster::new();
    let frames = |subject: &Subject, payload: &[u8]| matches!(subject, Subject::Live(_)) && payload[0] != b'{';
    let (one, metrics) = cluster.edge_with("edge-0", |ports| SlowBus::put(ports, frames, TENTH)).await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let begin = Instant::now();
    for seq in 0..200 {
        speak(&mut speaker, id, seq).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(so_far(&mut speaker).await, []);
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    // Its rate lets as many through again.
    sleep(Duration::from_secs(1)).await;
    for seq in 200..400 {
        speak(&mut speaker, id, seq).await;
        tokio::task::yield_now().await;
    }
    let mut heard: Vec<u32> = Vec::new();
    while heard.last() != Some(&399) {
        sleep(Duration::from_millis(500)).await;
        heard.extend(so_far(&mut far).await.iter().filter_map(Got::seq));
    }
    assert_eq!(heard[heard.len() - 200..], (200..400).collect::<Vec<_>>());
    assert!(heard.is_sorted() && heard.len() < 300, "{heard:?}");
    let dropped = counted(&metrics, "riser_live_frames_dropped_total", Some("slow_bus"));
    assert_eq!(dropped, 400 - heard.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_before_the_welcome_is_told_after_it() {
    let cluster = Cluster::new();
    let online = |subject: &Subject, _: &[u8]| matches!(subject, Subject::Up(_));
    let slow = |ports: &mut riser_edge::Ports| SlowBus::put(ports, online, 10 * TENTH);
    let ((one, _), (two, _)) = (cluster.edge_with("edge-0", slow).await, cluster.edge("edge-1").await);
    let (mut speaker, _) = Peerling::open(&two, client_of("acme")).await;
    let mut gw = Peerling::raw(&one, gateway("b12/f1"));
    gw.send(&json!({"t":"hello"})).await;
    sleep(5 * TENTH).await;
    let id = stream(&mut speaker, "b12/f1").await;
    assert!(got(&mut gw).await.is("welcome"));
    assert_eq!(text(&mut gw, "opened").await["stream"], id.0);
    speak(&mut speaker, id, 1).await;
    assert_eq!(got(&mut gw).await.seq(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_costs_frames_and_never_their_order_nor_the_session() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut far = listener(&two, "b12/f1").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    let edge = "edge-0".parse().expect("an edge");
    let (from, to) = ("edge-0".parse().expect("an edge"), "edge-1".parse().expect("an edge"));
    let slow = BusFaults { delay: Duration::ZERO..=Duration::from_millis(300), ..BusFaults::default() };
    cluster.net.set_link_faults(&from, &to, slow);
    for seq in 0..50 {
        sleep(Duration::from_millis(20)).await;
        speak(&mut speaker, id, seq).await;
    }
    sleep(Duration::from_secs(1)).await;
    let heard: Vec<u32> = so_far(&mut far).await.iter().filter_map(Got::seq).collect();
    assert_eq!(heard, (0..50).collect::<Vec<_>>());
    cluster.net.cut(&edge);
    for seq in 50..60 {
        sleep(Duration::from_millis(20)).await;
        speak(&mut speaker, id, seq).await;
    }
    assert_eq!(so_far(&mut speaker).await, [], "the session is not troubled");
    sleep(Duration::from_secs(1)).await;
    cluster.net.heal(&edge);
    speak(&mut speaker, id, 60).await;
    assert_eq!(got(&mut far).await.seq(), Some(60));
    assert_eq!(counted(&metrics, "riser_live_frames_dropped_total", Some("slow_bus")), 10);
}

#[tokio::test(start_paused = true)]
async fn no_word_and_no_frame_of_one_tenant_reaches_another() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut other, _) = Peerling::open(&one, client_of("other")).await;
    other.subscribe("*/*", &["live"]).await;
    let mut own = listener(&one, "*/*").await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    let id = stream(&mut speaker, "b12/f1").await;
    speak(&mut speaker, id, 1).await;
    text(&mut own, "opened").await;
    assert_eq!(got(&mut own).await.seq(), Some(1));
    speak(&mut other, id, 2).await;
    assert_eq!(text(&mut other, "error").await["code"], "not_found");
    sleep(Duration::from_secs(10)).await;
    assert_eq!((so_far(&mut other).await.len(), so_far(&mut own).await.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_listens_and_speaks_no_more_leaves_no_subscription_behind() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let idle = cluster.net.subscriptions();
    let mut near = listener(&one, "b12/f1").await;
    near.subscribe("b12/*", &["live", "state"]).await;
    assert!(cluster.net.subscriptions() > idle);
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    stream(&mut speaker, "b12/f1").await;
    text(&mut near, "opened").await;
    // Replaced by one that is not about the live lane.
    near.subscribe("b12/*", &["presence"]).await;
    near.send(&json!({"t":"unsubscribe","n":3,"to":"b12/*"})).await;
    text(&mut near, "ok").await;
    drop(near);
    drop(speaker);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.net.subscriptions(), idle);
}

#[tokio::test(start_paused = true)]
async fn who_sees_everything_hears_only_what_it_may_hear() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let grants = json!([
        {"to":"b12/*","may":["read"]},
        {"to":"b12/*","path":["talk/#"],"may":["listen"]},
    ]);
    let (mut near, _) = Peerling::open(&one, with_grants(&grants)).await;
    near.subscribe("b12/*", &["state", "live"]).await;
    let (mut speaker, _) = Peerling::open(&one, client_of("acme")).await;
    for (n, path) in [(1, "bedroom/mic"), (2, "talk/door")] {
        let ok = open(&mut speaker, n, &json!({"to":"b12/f1","path":path})).await;
        let id = StreamId(u32::try_from(ok["stream"].as_u64().expect("a number")).expect("32 bits"));
        speak(&mut speaker, id, u32::try_from(n).expect("small")).await;
    }
    so_far(&mut speaker).await;
    let heard = so_far(&mut near).await;
    assert_eq!(heard.iter().filter_map(Got::seq).collect::<Vec<_>>(), [2]);
    assert_eq!(heard.iter().filter(|got| got.is("opened")).count(), 1);
    near.send(&json!({"t":"subscribe","n":9,"to":"b12/*","lanes":["state","live"],"path":["bedroom/#"]})).await;
    assert_eq!(answer(&mut near, 9).await["code"], "forbidden");
}
