//! How an edge ends.

use riser_client::End;

use super::{Cluster, cluster, end, frame};

/// Whom the sessions of a draining edge hear, and how they end.
async fn drained(mut cluster: Cluster, begin: impl AsyncFn(&Cluster)) {
    let key = cluster.edges.key.clone();
    let mut links = Vec::new();
    for _ in 0..8 {
        links.push(cluster.link(0, &key).await);
    }
    begin(&cluster).await;
    let mut after = Vec::new();
    for link in &mut links {
        let goaway: serde_json::Value = serde_json::from_str(&frame(link, "goaway").await).expect("JSON");
        after.push(goaway["after_ms"].as_u64().expect("a time"));
    }
    after.sort_unstable();
    after.dedup();
    assert!(
        after.len() > 4 && after.iter().all(|&ms| ms <= 10_000),
        "the closes are spread over the window: {after:?}"
    );
    assert_eq!(cluster.edges.admin(0, "GET", "/readyz").await.expect("an answer"), (503, "draining\n".into()));
    assert_eq!(cluster.edges.admin(0, "GET", "/healthz").await.expect("an answer").0, 200);
    let refused = cluster.edges.link(0, &key).await.expect_err("a refusal");
    let refused = refused.downcast::<End>().expect("an end");
    assert!(matches!(refused, End::Refused { status: 503, retry_after_ms: Some(1_000..), .. }), "{refused:?}");
    for link in &mut links {
        let end = end(link).await;
        assert!(matches!(end, End::Closed { code: 4000, retry_after_ms: Some(_), .. }), "{end:?}");
    }
    assert_eq!(cluster.edges.ended(0).await.expect("an end"), Some(0), "{}", cluster.edges.log(0));
    cluster.link(1, &key).await;
}

#[tokio::test]
async fn sigterm_drains_an_edge() {
    let cluster = cluster(2, &["edge.drain_window=10s"]).await;
    drained(cluster, async |cluster| cluster.edges.terminate(0).expect("a signal")).await;
}

#[tokio::test]
async fn the_admin_port_drains_an_edge() {
    let cluster = cluster(2, &["edge.drain_window=10s"]).await;
    let begin = async |cluster: &Cluster| {
        let answer = cluster.edges.admin(0, "POST", "/drain").await.expect("an answer");
        assert_eq!(answer, (202, "draining\n".into()));
    };
    drained(cluster, begin).await;
}

#[tokio::test]
async fn a_second_signal_ends_an_edge_at_once() {
    let mut cluster = cluster(1, &["edge.drain_window=10m", "edge.grace=11m"]).await;
    let key = cluster.edges.key.clone();
    let mut link = cluster.link(0, &key).await;
    cluster.edges.terminate(0).expect("a signal");
    frame(&mut link, "goaway").await;
    cluster.edges.terminate(0).expect("a signal");
    assert_eq!(cluster.edges.ended(0).await.expect("an end"), Some(130));
}
