//! The bus does what every bus must do, on one server and on three, and knows what it lost.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::nats::NatsBus;
use riser_bus::suite::Bench;
use riser_bus::{Bus, Filter, Subject, inbox};
use riser_core::{GatewayKey, TenantId};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{Held, connect, shared, start, tenant};
use crate::{PATIENCE, unique};

async fn bench(count: usize) -> Bench<Held<NatsBus>> {
    let servers = shared(count).await;
    let client =
        async |number| Held { inner: connect(&servers, number % count).await.bus(), _servers: servers.clone() };
    Bench { one: client(0).await, two: client(1).await, three: client(2).await, name: unique() }
}

mod one_server {
    async fn bench(_case: &str) -> super::Bench<super::Held<super::NatsBus>> {
        super::bench(1).await
    }

    riser_bus::conformance!(
        #[tokio::test]
        bench
    );
}

mod three_servers {
    async fn bench(_case: &str) -> super::Bench<super::Held<super::NatsBus>> {
        super::bench(3).await
    }

    riser_bus::conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        bench
    );
}

fn up(tenant: &TenantId, address: &str) -> Subject {
    Subject::Up(GatewayKey::new(tenant.clone(), address.parse().expect("an address")))
}

fn building(tenant: &TenantId) -> Filter {
    Filter::Up(tenant.clone(), "b1/*".parse().expect("a pattern"))
}

async fn next(received: &mut Receiver<riser_bus::Delivery>) -> Bytes {
    timeout(PATIENCE, received.recv()).await.expect("a message in time").expect("an open inbox").payload
}

#[tokio::test]
async fn what_no_edge_wrote_is_counted_and_ignored() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (bus, tenant) = (client.bus(), tenant());
    let (inbox, mut received) = inbox(16);
    let _subscription = bus.subscribe(&building(&tenant), &inbox).await.expect("a bus that can be reached");
    assert!(client.flush().await);
    let mut raw = servers.raw(0).await.expect("a connection");
    let subject = |gateway: &str| format!("riser.v1.up.{tenant}.b1.{gateway}");
    for gateway in ["-g", "g%", "g\u{430}"] {
        raw.publish(&subject(gateway), "forged", 1).await.expect("a server that takes it");
    }
    raw.publish(&subject("g1"), "well formed", 1).await.expect("a server that takes it");
    assert_eq!(next(&mut received).await, "well formed");
    assert_eq!(client.ignored(), 3);
}

/// The receiving runtime stands still while more comes than may wait for it.
#[tokio::test]
async fn messages_that_the_library_lost_are_counted() {
    const SENT: usize = 40_000;
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (bus, tenant) = (client.bus(), tenant());
    let (inbox, mut received) = inbox(2 * SENT);
    let _subscription = bus.subscribe(&building(&tenant), &inbox).await.expect("a bus that can be reached");
    assert!(client.flush().await);
    let subject = up(&tenant, "b1/g1").to_string();
    std::thread::scope(|scope| {
        let flood = async {
            let mut raw = servers.raw(0).await.expect("a connection");
            raw.publish(&subject, "x", SENT).await.expect("a server that takes it");
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        scope.spawn(move || runtime.block_on(flood));
    });
    let mut health = bus.health();
    let counted = timeout(PATIENCE, health.wait_for(|health| health.overflowed > 0)).await;
    assert!(counted.expect("the count in time").expect("a bus that lives").connected);
    // The last one may be lost like the others, as long as there are others.
    let last = up(&tenant, "b1/g2");
    let mut arrived = 0;
    let drained = async {
        loop {
            bus.publish(&last, Bytes::from_static(b"last")).await.expect("a bus that can be reached");
            while let Ok(delivery) = timeout(Duration::from_millis(50), received.recv()).await {
                if delivery.expect("an open inbox").payload == "last" {
                    return;
                }
                arrived += 1;
            }
        }
    };
    timeout(PATIENCE, drained).await.expect("the last message in time");
    assert!(arrived < SENT, "nothing was lost");
}

#[tokio::test]
async fn a_server_that_was_restarted_is_reached_again_and_subscriptions_stand() {
    let mut servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (bus, tenant) = (client.bus(), tenant());
    let (inbox, mut received) = inbox(16);
    let _subscription = bus.subscribe(&building(&tenant), &inbox).await.expect("a bus that can be reached");
    let mut health = bus.health();
    servers.kill(0);
    let lost = timeout(PATIENCE, health.wait_for(|health| !health.connected)).await;
    assert_eq!(lost.expect("the loss in time").expect("a bus that lives").reconnects, 0);
    let refused = bus.publish(&up(&tenant, "b1/g1"), Bytes::from_static(b"lost")).await;
    refused.expect_err("nothing is queued for a bus that cannot be reached");
    bus.subscribe(&building(&tenant), &inbox).await.err().expect("no subscription without a bus");
    servers.start_again(0).expect("a server that starts");
    let back = timeout(PATIENCE, health.wait_for(|health| health.connected)).await;
    assert_eq!(back.expect("the server in time").expect("a bus that lives").reconnects, 1);
    bus.publish(&up(&tenant, "b1/g1"), Bytes::from_static(b"heard")).await.expect("a bus that can be reached");
    assert_eq!(next(&mut received).await, "heard");
}

#[tokio::test]
async fn publishing_to_a_server_that_hangs_fails_and_works_again_afterwards() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (bus, subject) = (client.bus(), up(&tenant(), "b1/g1"));
    servers.pause(0).expect("a server that can be stopped");
    let payload = Bytes::from(vec![b'x'; 256 * 1024]);
    let fill = async { while bus.publish(&subject, payload.clone()).await.is_ok() {} };
    timeout(PATIENCE, fill).await.expect("publishing fails rather than waits");
    let mut health = bus.health();
    let lost = timeout(PATIENCE, health.wait_for(|health| !health.connected)).await;
    lost.expect("a hanging server is noticed").expect("a bus that lives");
    servers.resume(0).expect("a server that goes on");
    let back = timeout(PATIENCE, health.wait_for(|health| health.connected)).await;
    assert!(back.expect("the server in time").expect("a bus that lives").reconnects >= 1);
    bus.publish(&subject, payload).await.expect("a bus that can be reached");
}
