//! Each fault of the memory network can be seen to happen, and does no more than it says.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::memory::{FaultCounts, Faults, IN_FLIGHT, MemoryBus, MemoryNet};
use riser_bus::{Bus, BusError, Delivery, Filter, Subject, Subscription, inbox};
use riser_core::{EdgeId, GatewayKey};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

fn edge(name: &str) -> EdgeId {
    name.parse().expect("an edge name")
}

fn up(address: &str) -> Subject {
    Subject::Up(GatewayKey::new("acme".parse().expect("a tenant"), address.parse().expect("an address")))
}

fn watch(pattern: &str) -> Filter {
    Filter::Up("acme".parse().expect("a tenant"), pattern.parse().expect("a pattern"))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn listen(bus: &MemoryBus) -> (Subscription, Receiver<Delivery>) {
    let (inbox, received) = inbox(4_096);
    (bus.subscribe(&watch("*/*"), &inbox).await.expect("a bus that can be reached"), received)
}

async fn say(bus: &MemoryBus, number: u16) {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    bus.publish(&up("b1/g1"), payload).await.expect("a bus that can be reached");
}

/// Everything that arrives until an hour was quiet, which is longer than any delay here.
async fn all(received: &mut Receiver<Delivery>) -> Vec<u16> {
    let mut numbers = vec![];
    while let Ok(Some(delivery)) = timeout(Duration::from_secs(3_600), received.recv()).await {
        numbers.push(u16::from_be_bytes(delivery.payload[..].try_into().expect("two bytes")));
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn dropped_messages_are_lost_and_the_others_keep_their_order() {
    let net = MemoryNet::seeded(1);
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    net.set_faults(Faults { drop: 0.3, ..Faults::default() });
    for number in 0..1_000 {
        say(&one, number).await;
    }
    let numbers = all(&mut received).await;
    assert!((600..800).contains(&numbers.len()), "{} of 1000 arrived", numbers.len());
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(net.fault_counts().dropped, 1_000 - numbers.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn delayed_messages_take_their_time_and_never_overtake() {
    let net = MemoryNet::seeded(2);
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    net.set_faults(Faults { delay: ms(10)..=ms(500), ..Faults::default() });
    let started = Instant::now();
    for number in 0..200 {
        say(&one, number).await;
    }
    assert!(received.try_recv().is_err(), "the first arrived at once");
    let first = timeout(ms(1_000), received.recv()).await.expect("the first in time").expect("an open inbox");
    assert!((ms(10)..=ms(501)).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(first.payload[..], [0, 0]);
    assert_eq!(all(&mut received).await, (1..200).collect::<Vec<_>>());
    assert_eq!(net.fault_counts(), FaultCounts { delayed: 200, ..FaultCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_behind_earlier_ones_when_the_delay_has_ended() {
    let net = MemoryNet::seeded(3);
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    say(&one, 1).await;
    net.clear_faults();
    say(&one, 2).await;
    assert!(received.try_recv().is_err(), "the second overtook the first");
    assert_eq!(all(&mut received).await, [1, 2]);
    say(&one, 3).await;
    assert!(received.try_recv().is_ok(), "nothing is on its way any more");
}

#[tokio::test(start_paused = true)]
async fn copies_come_again_and_may_come_after_newer_messages() {
    let net = MemoryNet::seeded(4);
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    net.set_faults(Faults { duplicate: 0.5, duplicate_after: ms(5)..=ms(5), ..Faults::default() });
    for number in 0..100 {
        say(&one, number).await;
    }
    let mut numbers = all(&mut received).await;
    assert_eq!(numbers[..100], (0..100).collect::<Vec<_>>(), "the messages themselves keep their order");
    let copies = numbers.split_off(100);
    assert!((30..70).contains(&copies.len()), "{} copies of 100", copies.len());
    let expected = FaultCounts { duplicated: copies.len() as u64, ..FaultCounts::default() };
    assert_eq!(net.fault_counts(), expected, "no message waits behind a copy");
}

#[tokio::test(start_paused = true)]
async fn faults_of_a_link_concern_that_direction_of_that_link() {
    let net = MemoryNet::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| net.client(edge(name)));
    net.set_link_faults(&edge("one"), &edge("two"), Faults { drop: 1.0, ..Faults::default() });
    let (_g1, mut at_one) = listen(&one).await;
    let (_g2, mut at_two) = listen(&two).await;
    let (_g3, mut at_three) = listen(&three).await;
    say(&one, 1).await;
    say(&two, 2).await;
    assert_eq!(all(&mut at_one).await, [1, 2]);
    assert_eq!(all(&mut at_two).await, [2]);
    assert_eq!(all(&mut at_three).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_block_silently_loses_one_direction() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_g1, mut at_one) = listen(&one).await;
    let (_g2, mut at_two) = listen(&two).await;
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    say(&one, 1).await;
    net.block(&edge("one"), &edge("two"));
    say(&one, 2).await;
    say(&two, 3).await;
    for bus in [&one, &two] {
        assert!(bus.health().borrow().connected, "nobody is told");
    }
    assert_eq!(all(&mut at_one).await, [1, 2, 3]);
    assert_eq!(all(&mut at_two).await, [3]);
    assert_eq!(net.fault_counts().dropped, 2);
    net.unblock(&edge("one"), &edge("two"));
    say(&one, 4).await;
    assert_eq!(all(&mut at_two).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_edge_is_told_and_its_subscriptions_stand_again_after_healing() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    let mut health = two.health();
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    say(&one, 1).await;
    say(&two, 2).await;
    net.clear_faults();
    net.cut(&edge("two"));
    net.cut(&edge("two"));
    assert!(health.has_changed().expect("a bus that lives"));
    assert!(!health.borrow_and_update().connected);
    assert_eq!(two.publish(&up("b1/g1"), Bytes::new()).await, Err(BusError::Unavailable));
    let (more, _received) = inbox(1);
    assert_eq!(two.subscribe(&watch("*/*"), &more).await.err(), Some(BusError::Unavailable));
    assert!(!net.client(edge("two")).health().borrow().connected, "a new connection of a cut edge");
    say(&one, 3).await;
    assert_eq!(all(&mut received).await, [] as [u16; 0], "what was on its way is lost too");

    net.heal(&edge("two"));
    net.heal(&edge("two"));
    let now = *health.borrow_and_update();
    assert!(now.connected);
    assert_eq!(now.reconnects, 1);
    say(&one, 4).await;
    say(&two, 5).await;
    assert_eq!(all(&mut received).await, [4, 5]);
    assert_eq!(one.health().borrow().reconnects, 0, "only the cut edge is told");
}

#[tokio::test(start_paused = true)]
async fn what_a_cut_edge_published_before_still_arrives() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, mut received) = listen(&two).await;
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    say(&one, 1).await;
    net.cut(&edge("one"));
    assert_eq!(all(&mut received).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_can_take_effect_late() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    net.set_interest_delay(ms(300)..=ms(300));
    let (_guard, mut received) = listen(&two).await;
    say(&one, 1).await;
    tokio::time::advance(ms(299)).await;
    say(&one, 2).await;
    tokio::time::advance(ms(1)).await;
    say(&one, 3).await;
    assert_eq!(all(&mut received).await, [3]);
    assert_eq!(net.fault_counts().early, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_loses_what_is_on_its_way() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    let (guard, mut received) = listen(&two).await;
    say(&one, 1).await;
    drop(guard);
    assert_eq!(all(&mut received).await, [] as [u16; 0]);
    assert_eq!(net.subscriptions(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_on_their_way_have_a_bound() {
    let net = MemoryNet::new();
    let (one, two) = (net.client(edge("one")), net.client(edge("two")));
    let (_guard, received) = listen(&two).await;
    net.set_faults(Faults { delay: ms(100)..=ms(100), ..Faults::default() });
    for _ in 0..IN_FLIGHT + 10 {
        say(&one, 7).await;
    }
    let counts = net.fault_counts();
    assert_eq!((counts.delayed, counts.dropped), (IN_FLIGHT as u64, 10));
    let overflowed = (IN_FLIGHT - received.capacity()) as u64;
    let mut health = two.health();
    let counted = timeout(ms(1_000), health.wait_for(|h| h.overflowed == overflowed)).await;
    assert!(counted.is_ok(), "what the inbox had no room for is counted when it lands");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_history() {
    async fn history(seed: u64) -> Vec<(Duration, u16)> {
        let net = MemoryNet::seeded(seed);
        let (one, two) = (net.client(edge("one")), net.client(edge("two")));
        let (_guard, mut received) = listen(&two).await;
        let delay = ms(0)..=ms(50);
        net.set_faults(Faults { drop: 0.1, delay, duplicate: 0.1, ..Faults::default() });
        let started = Instant::now();
        for number in 0..200 {
            say(&one, number).await;
        }
        let mut history = vec![];
        while let Ok(Some(d)) = timeout(ms(10_000), received.recv()).await {
            history.push((started.elapsed(), u16::from_be_bytes([d.payload[0], d.payload[1]])));
        }
        history
    }
    let first = history(5).await;
    assert_eq!(first, history(5).await);
    assert_ne!(first, history(6).await);
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_starts_again_counts_its_own_health() {
    let net = MemoryNet::new();
    let before = net.client(edge("one"));
    net.cut(&edge("one"));
    net.heal(&edge("one"));
    let after = net.client(edge("one"));
    assert_eq!(before.health().borrow().reconnects, 1);
    assert_eq!(after.health().borrow().reconnects, 0);
    net.cut(&edge("one"));
    assert!(!before.health().borrow().connected && !after.health().borrow().connected);
}
