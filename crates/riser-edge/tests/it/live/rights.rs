//! Who may speak and listen.

use super::*;

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
