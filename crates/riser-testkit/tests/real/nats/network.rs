//! What the bus and the log do on a bad network.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::log::{Log, LogError};
use riser_bus::nats::{NatsClient, NatsConfig};
use riser_bus::{Bus, Filter, Health, Subject, inbox};
use riser_core::GatewayKey;
use riser_testkit::real::nats::NatsServers;
use riser_testkit::real::proxy::{Proxy, Traffic, Way};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{connect, event, log_config, start, tenant};
use crate::PATIENCE;

/// The window of repeats.
const LONG: Duration = Duration::from_secs(120);

async fn behind_a_proxy() -> (NatsServers, Proxy, NatsClient) {
    let servers = start(1).await;
    let proxy = Proxy::start(servers.address(0), 11).await.expect("a proxy");
    let config = NatsConfig::new(vec![format!("nats://{}", proxy.address())], "test");
    let client = NatsClient::connect(&config).await.expect("a server that can be reached");
    (servers, proxy, client)
}

async fn reaches(health: &mut watch::Receiver<Health>, connected: bool) -> Health {
    let reached = timeout(PATIENCE, health.wait_for(|health| health.connected == connected)).await;
    *reached.expect("the change in time").expect("a bus that lives")
}

#[tokio::test]
async fn a_connection_that_went_silent_is_noticed_and_made_anew() {
    let (_servers, proxy, client) = behind_a_proxy().await;
    let mut health = client.bus().health();
    reaches(&mut health, true).await;
    proxy.stall(true);
    reaches(&mut health, false).await;
    proxy.stall(false);
    assert!(reaches(&mut health, true).await.reconnects >= 1);
    let (log, tenant) = (client.log(log_config(1)), tenant());
    assert_eq!(log.append(&tenant, event("one"), LONG).await.expect("an answer").cursor.seq, 1);
}

#[tokio::test]
async fn after_a_reset_subscriptions_stand_and_it_is_counted() {
    let (servers, proxy, client) = behind_a_proxy().await;
    let (bus, tenant) = (client.bus(), tenant());
    let (inbox, mut received) = inbox(1_024);
    let filter = Filter::Up(tenant.clone(), "*/*".parse().expect("a pattern"));
    let _subscription = bus.subscribe(&filter, &inbox).await.expect("a subscription");
    let subject = Subject::Up(GatewayKey::new(tenant, "b1/g1".parse().expect("an address")));
    let other = connect(&servers, 0).await.bus();
    let mut health = bus.health();
    for resets in 1..=3 {
        proxy.reset();
        let counted =
            timeout(PATIENCE, health.wait_for(|health| health.connected && health.reconnects >= resets)).await;
        counted.expect("the reconnect in time").expect("a bus that lives");
        while received.try_recv().is_ok() {}
        // The subscription is made again with the connection, but a message may be faster.
        let arrives = async {
            loop {
                other.publish(&subject, Bytes::from_static(b"hello")).await.expect("a bus that can be reached");
                if let Ok(delivery) = timeout(Duration::from_millis(50), received.recv()).await {
                    break delivery.expect("an open inbox");
                }
            }
        };
        assert_eq!(timeout(PATIENCE, arrives).await.expect("a message in time").subject, subject);
    }
}

/// The server stores, its answer is lost, and the line is good again after the window: a repeat would be another event.
#[tokio::test]
async fn an_event_without_an_answer_is_not_repeated_after_its_window() {
    let window = Duration::from_secs(1);
    let (servers, proxy, client) = behind_a_proxy().await;
    let (log, tenant) = (client.log(log_config(1)), tenant());
    let other = connect(&servers, 0).await.log(log_config(1));
    log.append(&tenant, event("first"), window).await.expect("an answer");
    proxy.set(Way::Out, Traffic { stalled: true, ..Traffic::default() });
    let heal = async {
        while other.bounds(&tenant).await.expect("an answer").last < 2 {}
        // By the server's clock: three windows are longer than one try.
        for _ in 0..3 {
            while other.append(&tenant, event("clock"), window).await.expect("an answer").duplicate {}
        }
        proxy.stall(false);
    };
    let both = async { tokio::join!(log.append(&tenant, event("second"), window), heal) };
    let (answer, ()) = timeout(PATIENCE, both).await.expect("an answer in time");
    assert_eq!(answer, Err(LogError::Unavailable));
    let page = other.read(&tenant, 1).await.expect("an answer");
    assert_eq!(page.events.iter().filter(|stored| stored.event.id.as_str() == "second").count(), 1);
}

#[tokio::test]
async fn on_a_slow_line_events_are_stored_read_and_heard_in_order() {
    let (_servers, proxy, client) = behind_a_proxy().await;
    let (delay, jitter) = (Duration::from_millis(40), Duration::from_millis(40));
    proxy.set_both(Traffic { delay, jitter, stalled: false });
    let (log, tenant) = (client.log(log_config(1)), tenant());
    log.append(&tenant, event("1"), LONG).await.expect("an answer");
    let mut tail = log.tail(&tenant).await.expect("a tail");
    for number in 2..=20_u64 {
        let appended = log.append(&tenant, event(&number.to_string()), LONG).await.expect("an answer");
        assert_eq!(appended.cursor.seq, number);
    }
    for number in 2..=20_u64 {
        let heard = timeout(PATIENCE, tail.events.recv()).await.expect("an event in time").expect("an open tail");
        assert_eq!(heard.seq, number);
    }
    assert_eq!(log.read(&tenant, 1).await.expect("an answer").events.len(), 20);
}
