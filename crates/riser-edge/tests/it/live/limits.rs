//! How much a stream carries, how many there are, and what is no frame of one.

use super::*;

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
