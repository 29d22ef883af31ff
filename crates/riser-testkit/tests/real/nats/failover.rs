//! What a cluster of three promises when one of its servers is gone.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::log::{Appended, Log, Stored};
use riser_bus::nats::NatsLog;
use riser_bus::{Bus, Filter, Subject, inbox};
use riser_core::{GatewayKey, TenantId};
use tokio::time::timeout;

use super::{connect, event, log_config, start, tenant};
use crate::PATIENCE;

/// The window of repeats.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_message_reaches_a_subscriber_at_another_server() {
    let servers = start(3).await;
    let (one, three) = (connect(&servers, 0).await.bus(), connect(&servers, 2).await.bus());
    let key = GatewayKey::new(tenant(), "b1/g1".parse().expect("an address"));
    let filter = Filter::Up(key.tenant.clone(), "*/*".parse().expect("a pattern"));
    let (inbox, mut received) = inbox(1_024);
    let _subscription = three.subscribe(&filter, &inbox).await.expect("a bus that can be reached");
    let subject = Subject::Up(key);
    // Nothing tells when the subscription has spread: the first message that arrives does.
    let arrives = async {
        loop {
            one.publish(&subject, Bytes::from_static(b"hello")).await.expect("a bus that can be reached");
            if let Ok(delivery) = timeout(Duration::from_millis(50), received.recv()).await {
                break delivery.expect("an open inbox");
            }
        }
    };
    let delivery = timeout(PATIENCE, arrives).await.expect("a message in time");
    assert_eq!((delivery.subject, delivery.payload), (subject, Bytes::from_static(b"hello")));
}

/// Stores an event, as often as it takes. How often that failed is added up.
async fn store(log: &NatsLog, tenant: &TenantId, id: &str, failed: &mut u32) -> Appended {
    let stored = async {
        loop {
            match log.append(tenant, event(id), LONG).await {
                Ok(appended) => break appended,
                Err(_) => *failed += 1,
            }
        }
    };
    timeout(PATIENCE, stored).await.expect("an answer in time")
}

async fn all(log: &NatsLog, tenant: &TenantId) -> Vec<Stored> {
    let mut all: Vec<Stored> = vec![];
    loop {
        let from = all.last().map_or(1, |stored| stored.seq + 1);
        let page = timeout(PATIENCE, async {
            loop {
                if let Ok(page) = log.read(tenant, from).await {
                    break page;
                }
            }
        });
        let page = page.await.expect("an answer in time");
        if page.events.is_empty() {
            return all;
        }
        all.extend(page.events);
    }
}

fn places(events: &[Stored]) -> Vec<(u64, String)> {
    events.iter().map(|stored| (stored.seq, stored.event.id.to_string())).collect()
}

#[tokio::test]
async fn when_the_leader_of_a_stream_is_killed_nothing_that_was_answered_is_lost() {
    let mut servers = start(3).await;
    let tenant = tenant();
    let mut failed = 0;
    let mut answered = vec![];
    let maker = connect(&servers, 0).await.log(log_config(3));
    let first = store(&maker, &tenant, "0", &mut failed).await;
    answered.push((first.cursor.seq, "0".to_owned()));
    let leader = servers.leader_of(&format!("riser-ev-{tenant}")).await.expect("a leader");
    // At another server, so that it is the stream that fails over and not the connection.
    let log = connect(&servers, (leader + 1) % 3).await.log(log_config(3));
    let mut tail = log.tail(&tenant).await.expect("an answer");
    for number in 1..=400 {
        if number == 200 {
            servers.kill(leader);
        }
        let appended = store(&log, &tenant, &number.to_string(), &mut failed).await;
        assert_eq!(appended.cursor.life, first.cursor.life);
        answered.push((appended.cursor.seq, number.to_string()));
    }
    assert_eq!(places(&all(&log, &tenant).await), answered, "{failed} calls were not answered");
    assert!(answered.iter().map(|(seq, _)| *seq).eq(1..=401), "numbers have holes");

    // The tail went on, or its reader begins anew where it ended: either way it has every event.
    let mut heard: Vec<_> = vec![];
    let listen = async {
        while heard.last().is_none_or(|stored: &Stored| stored.seq < 401) {
            let after = heard.last().map_or(1, |stored| stored.seq);
            if let Some(stored) = tail.events.recv().await {
                heard.push(stored);
            } else {
                heard.extend(all(&log, &tenant).await.into_iter().filter(|stored| stored.seq > after));
                tail = log.tail(&tenant).await.expect("an answer");
            }
        }
    };
    timeout(PATIENCE, listen).await.expect("all events in time");
    assert_eq!(places(&heard), answered[1..]);

    servers.start_again(leader).expect("a server that starts");
    servers.ready().await.expect("a cluster that is ready");
    let at_the_old_leader = connect(&servers, leader).await.log(log_config(3));
    assert_eq!(places(&all(&at_the_old_leader, &tenant).await), answered);
}

#[tokio::test]
async fn with_two_of_three_servers_gone_nothing_is_answered_until_one_is_back() {
    let mut servers = start(3).await;
    let tenant = tenant();
    let log = connect(&servers, 0).await.log(log_config(3));
    let mut failed = 0;
    let first = store(&log, &tenant, "1", &mut failed).await;
    servers.kill(1);
    servers.kill(2);
    log.append(&tenant, event("2"), LONG).await.expect_err("an answer that no second server has");
    servers.start_again(1).expect("a server that starts");
    let second = store(&log, &tenant, "2", &mut failed).await;
    assert_eq!((second.cursor.life, second.cursor.seq), (first.cursor.life, 2));
    assert_eq!(places(&all(&log, &tenant).await), [(1, "1".to_owned()), (2, "2".to_owned())]);
}

#[tokio::test]
async fn when_its_own_server_is_killed_a_client_goes_on_at_another() {
    let mut servers = start(3).await;
    let tenant = tenant();
    let client = connect(&servers, 0).await;
    let log = client.log(log_config(3));
    let mut failed = 0;
    for number in 1..=50 {
        if number == 25 {
            servers.kill(0);
        }
        let appended = store(&log, &tenant, &number.to_string(), &mut failed).await;
        assert_eq!(appended.cursor.seq, number);
    }
    let health = *client.bus().health().borrow();
    assert!(health.connected && health.reconnects >= 1, "{health:?}");
}

#[tokio::test]
async fn a_tenants_first_event_is_stored_while_a_server_is_gone_and_is_there_when_it_is_back() {
    let mut servers = start(3).await;
    let tenant = tenant();
    let mut failed = 0;
    servers.kill(2);
    let log = connect(&servers, 0).await.log(log_config(3));
    assert_eq!(store(&log, &tenant, "1", &mut failed).await.cursor.seq, 1);
    servers.start_again(2).expect("a server that starts");
    servers.ready().await.expect("a cluster that is ready");
    let at_the_third = connect(&servers, 2).await.log(log_config(3));
    assert_eq!(places(&all(&at_the_third, &tenant).await), [(1, "1".to_owned())]);
}
