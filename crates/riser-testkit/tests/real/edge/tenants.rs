//! What a changed tenants file does to sessions.

use riser_client::End;
use riser_core::frame::Credential;
use riser_core::tenant::KeyHash;
use riser_edge::auth::new_api_key;

use super::{cluster, end, frame};

#[tokio::test]
async fn a_key_that_is_taken_from_the_file_ends_its_sessions_at_every_edge() {
    let cluster = cluster(3, &[]).await;
    let (edges, key) = (&cluster.edges, &cluster.edges.key);
    let (other, hash) = new_api_key(None);
    edges.write_tenants(&[("everything", KeyHash::of(key, None)), ("other", hash)]).expect("a file");
    let mut revoked = Vec::new();
    for edge in 0..3 {
        cluster.until_metric(edge, r#"riser_reloads_total{outcome="taken",what="tenants"}"#, 1).await;
        revoked.push(cluster.link(edge, key).await);
    }
    let api = riser_client::Api::new(edges.url(0).parse().expect("a URL"), Credential::new(&*other));
    let token = api.gateway_token(&"b1/g1".parse().expect("an address"), None).await.expect("a token").token;
    let mut staying = [cluster.link(0, &other).await, cluster.link(1, token.expose()).await];
    edges.write_tenants(&[("other", hash)]).expect("a file");
    for link in &mut revoked {
        let end = end(link).await;
        assert!(matches!(end, End::Closed { code: 4504, .. }), "{end:?}");
    }
    let refused = edges.link(1, key).await.expect_err("a refusal").downcast::<End>().expect("an end");
    assert!(matches!(refused, End::Refused { status: 401, .. } | End::Closed { code: 4501, .. }), "{refused:?}");
    for link in &mut staying {
        link.send(r#"{"t":"ping","n":7}"#).expect("sent");
        frame(link, "pong").await;
    }
    edges.write("acme.secret", &"t".repeat(43)).expect("a file");
    let end = end(&mut staying[1]).await;
    assert!(matches!(end, End::Closed { code: 4504, .. }), "a token's key has another secret: {end:?}");
}

#[tokio::test]
async fn a_broken_file_changes_nothing_but_what_readyz_says() {
    let cluster = cluster(1, &[]).await;
    let (edges, key) = (&cluster.edges, &cluster.edges.key);
    let mut link = cluster.link(0, key).await;
    edges.write("tenants.toml", "[tenants.acme]\nsuspendet = true\n").expect("a file");
    let note = edges.until_ready_says(0, 200, "tenants: what was read before is used").await.expect("a note");
    assert!(note.contains("line 2: unknown field `suspendet`"), "{note}");
    assert_eq!(cluster.metric(0, r#"riser_reloads_total{outcome="refused",what="tenants"}"#).await, 1);
    assert!(edges.log(0).contains("suspendet"));
    link.send(r#"{"t":"ping","n":7}"#).expect("sent");
    frame(&mut link, "pong").await;
    cluster.link(0, key).await;
    edges.write_tenants(&[("everything", KeyHash::of(key, None))]).expect("a file");
    cluster.until_metric(0, r#"riser_reloads_total{outcome="taken",what="tenants"}"#, 1).await;
    assert_eq!(edges.admin(0, "GET", "/readyz").await.expect("an answer"), (200, "ok\n".into()));
}
