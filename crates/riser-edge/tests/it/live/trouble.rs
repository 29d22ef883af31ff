//! Streams while the store or the bus is away, slow or emptied.

use super::*;

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
