//! Who opens, hears and leaves streams, and in what order that is told.

use super::*;

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
