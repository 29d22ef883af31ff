//! That a lease's index and the sessions of the lease agree although no script sees both.

use std::time::Duration;

use riser_core::Reason;
use riser_registry::{Registry, StateStore};
use riser_testkit::real::redis::{RawRedis, Reply};

use super::{config, connect, key, lease, start};

#[tokio::test]
async fn a_session_that_would_begin_behind_a_sweep_is_put_into_the_index_again() {
    let servers = start().await;
    let (registry, lease, key) = (connect(config(&servers)).await, lease("one", 1), key("t", "b/g"));
    let (tenant, building) = (&key.tenant, key.address.building());
    registry.renew(&lease, Duration::ZERO).await.expect("an answer");
    let script = {
        let mut monitor = servers.raw(0).await.expect("a connection");
        monitor.call(&["MONITOR"]).await.expect("an answer");
        registry.acquire(&lease, &key, None).await.expect("an answer");
        script(&mut monitor, 4).await
    };
    assert_eq!(registry.sweep(&lease, Reason::EdgeLost, tenant, building).await.expect("an answer").len(), 1);
    assert_eq!(registry.lease_index(&lease).await, Ok(vec![]));

    // What an edge sent before the sweep, and what came late: it was in the index then, and is not now.
    let mut raw = servers.raw(0).await.expect("a connection");
    let keys = ["riser:{t/b}:g", "riser:{t/b}:s:g", "riser:{t/b}:q", "riser:{t/b}:f"];
    let mut words = vec!["EVALSHA", &script, "4"];
    words.extend(keys);
    words.extend(["g", "one", "1", "", "", "600000"]);
    let mut call = async |words: &[&str]| {
        let Reply::List(late) = raw.call(words).await.expect("an answer") else { panic!("no list") };
        assert_eq!((late.len(), &late[2]), (4, &Reply::Number(0)), "it has not begun");
        assert!(!registry.read(&key).await.expect("an answer").expect("a gateway").presence.online);
        late[3].text().expect("a note").to_owned()
    };
    let first = call(&words).await;
    // It was put there again, and again a sweep came before it.
    assert_eq!(registry.sweep(&lease, Reason::EdgeLost, tenant, building).await, Ok(vec![]));
    words[11] = &first;
    let second = call(&words).await;
    assert_ne!(first, second);

    registry.acquire(&lease, &key, None).await.expect("an answer");
    assert_eq!(registry.lease_index(&lease).await.expect("an answer").len(), 1);
    assert_eq!(registry.sweep(&lease, Reason::EdgeLost, tenant, building).await.expect("an answer").len(), 1);
}

/// An edge that does not know that its lease has ended begins sessions while two others sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_between_no_session_is_online_that_its_lease_does_not_name() {
    let servers = start().await;
    let edges = [connect(config(&servers)).await, connect(config(&servers)).await, connect(config(&servers)).await];
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let (tenant, building) = (&key.tenant, key.address.building());
    edges[0].renew(&lease, Duration::ZERO).await.expect("an answer");
    let (mut swept, mut left) = (0, 0);
    for _ in 0..500 {
        let (acquired, one, two) = tokio::join!(
            edges[0].acquire(&lease, &key, None),
            edges[1].sweep(&lease, Reason::EdgeLost, tenant, building),
            edges[2].sweep(&lease, Reason::EdgeLost, tenant, building),
        );
        acquired.expect("an answer");
        swept += one.expect("an answer").len() + two.expect("an answer").len();
        if edges[1].read(&key).await.expect("an answer").expect("a gateway").presence.online {
            left += 1;
            assert_eq!(edges[1].lease_index(&lease).await, Ok(vec![(tenant.clone(), building.clone())]));
        }
    }
    assert!(swept > 0 && left > 0, "{swept} were swept and {left} were left: nothing came in between");
}

/// What Redis calls the script with so many keys that a connection hears of which monitors it.
async fn script(monitor: &mut RawRedis, keys: usize) -> String {
    loop {
        let line = monitor.hear().await.expect("a line");
        let words: Vec<_> = line.text().unwrap_or_default().split('"').collect();
        if words.get(1) == Some(&"EVALSHA") && words.get(5) == Some(&&keys.to_string()[..]) {
            return words[3].to_owned();
        }
    }
}
