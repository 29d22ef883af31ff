//! What every bus must do, one function for each sentence of the contract.
//!
//! An implementation gives a [`Bench`] for each case and lets [`conformance!`](crate::conformance) make a test of
//! every case. The cases use names of their own, so that they can run beside each other and again on servers that
//! are not empty. They wait for what must come, never for what must not: where a message must not arrive, a later
//! one of the same publisher must arrive first.

use std::time::Duration;

use bytes::Bytes;
use riser_core::{Address, EdgeId, GatewayKey, Pattern, TenantId};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use crate::{Bus, Delivery, Filter, Health, Inbox, Subject, Subscription, inbox};

/// How long a case waits for what must come. A real cluster takes milliseconds; this is for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a probe is waited for until the next one is sent, while a subscription spreads.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// Messages that an inbox of a case holds, more than any case publishes.
const ROOM: usize = 1_024;

/// What a case runs on.
pub struct Bench<B> {
    /// A client.
    pub one: B,
    /// A client of another edge of the same cluster.
    pub two: B,
    /// A client of a third.
    pub three: B,
    /// What no other case uses, and no other run: 1 to 24 of a-z and 0-9.
    pub name: String,
}

/// Makes a test of each case.
///
/// Takes the attribute of the tests and a function that makes a [`Bench`](crate::suite::Bench), as in
/// `riser_bus::conformance!(#[tokio::test(start_paused = true)] bench);`. The function is async and is given the
/// name of the case.
#[macro_export]
macro_rules! conformance {
    (# $attribute:tt $bench:path) => {
        $crate::conformance! { # $attribute $bench;
            a_message_reaches_every_matching_subscription_once
            a_message_reaches_no_other_tenant_building_gateway_or_edge
            messages_of_one_publisher_arrive_in_order
            messages_of_several_subjects_keep_the_order_of_their_publisher
            a_publisher_gets_its_own_messages
            a_payload_arrives_as_it_was_sent
            subscriptions_that_share_an_inbox_each_get_the_message
            a_dropped_subscription_gets_nothing_more
            ending_one_subscription_leaves_the_others_of_its_filter
            a_full_inbox_loses_the_message_and_counts_it
            a_receiver_that_is_gone_harms_nobody
            a_bus_that_was_reached_says_so
        }
    };
    (# $attribute:tt $bench:path; $($case:ident)*) => {
        $(
            # $attribute
            async fn $case() {
                $crate::suite::$case(&$bench(stringify!($case)).await).await;
            }
        )*
    };
}

/// A subscription that has taken effect, and what it received.
struct Ear {
    subscription: Subscription,
    inbox: Inbox,
    received: Receiver<Delivery>,
    name: String,
}

impl<B: Bus> Bench<B> {
    fn tenant(&self, suffix: &str) -> TenantId {
        format!("{}-{suffix}", self.name).parse().expect("a tenant name")
    }

    fn edge(&self, suffix: &str) -> EdgeId {
        format!("{}-{suffix}", self.name).parse().expect("an edge name")
    }

    fn key(&self, tenant: &str, address: &str) -> GatewayKey {
        GatewayKey::new(self.tenant(tenant), address.parse().expect("an address"))
    }

    fn up(&self, tenant: &str, address: &str) -> Subject {
        Subject::Up(self.key(tenant, address))
    }

    fn all_up(&self, tenant: &str, pattern: &str) -> Filter {
        Filter::Up(self.tenant(tenant), pattern.parse().expect("a pattern"))
    }

    /// Publishes a word that only this case's ears listen to.
    async fn say(&self, from: &B, subject: &Subject, word: &str) {
        let payload = Bytes::from(format!("{} {word}", self.name));
        from.publish(subject, payload).await.expect("a bus that can be reached");
    }

    /// Subscribes, and waits until what `from` publishes on `subject` arrives. No probe is on its way afterwards.
    async fn ear_of(&self, at: &B, filter: &Filter, room: usize, from: &B, subject: &Subject) -> Ear {
        let (inbox, received) = inbox(room);
        let subscription = at.subscribe(filter, &inbox).await.expect("a bus that can be reached");
        let mut ear = Ear { subscription, inbox, received, name: self.name.clone() };
        let give_up = Instant::now() + PATIENCE;
        for number in 0.. {
            assert!(Instant::now() < give_up, "no subscription to {filter} within {PATIENCE:?}");
            let probe = format!("probe {number}");
            self.say(from, subject, &probe).await;
            // Only the newest probe counts: when it is here, the order says that no other is on its way.
            if timeout(PROBE_EVERY, ear.hear(&probe)).await.is_ok() {
                break;
            }
        }
        ear
    }

    async fn ear(&self, filter: &Filter, subject: &Subject) -> Ear {
        self.ear_of(&self.two, filter, ROOM, &self.one, subject).await
    }
}

impl Ear {
    /// The next word of this case.
    async fn next(&mut self) -> (Subject, String) {
        loop {
            let delivery = self.received.recv().await.expect("an inbox that this ear keeps open");
            let text = String::from_utf8_lossy(&delivery.payload).into_owned();
            if let Some(word) = text.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix(' ')) {
                return (delivery.subject, word.to_owned());
            }
        }
    }

    async fn hear(&mut self, word: &str) {
        while self.next().await.1 != word {}
    }

    /// The words up to the last one, without the probes of ears that were made after this one.
    async fn words_until(&mut self, last: &str) -> Vec<String> {
        let collect = async {
            let mut words = vec![];
            while words.last().is_none_or(|word| word != last) {
                words.push(self.next().await.1);
            }
            words.retain(|word| !word.starts_with("probe "));
            words
        };
        timeout(PATIENCE, collect).await.unwrap_or_else(|_| panic!("{last:?} did not arrive within {PATIENCE:?}"))
    }
}

/// "A message reaches each matching subscription at most once", and on a healthy bus it does reach it, whatever
/// the filter names.
pub async fn a_message_reaches_every_matching_subscription_once<B: Bus>(bench: &Bench<B>) {
    let edge = bench.edge("e");
    let up = bench.up("a", "b1/g1");
    let to_edge = Subject::Edge(edge.clone(), bench.key("a", "b1/g1"));
    let rows = [
        (bench.all_up("a", "b1/g1"), &up),
        (bench.all_up("a", "b1/*"), &up),
        (bench.all_up("a", "*/*"), &up),
        (Filter::Edge(edge), &to_edge),
        (Filter::Edges, &Subject::Edges),
    ];
    let mut ears = vec![];
    for (filter, subject) in &rows {
        for at in [&bench.one, &bench.two, &bench.three] {
            ears.push((bench.ear_of(at, filter, ROOM, &bench.one, subject).await, filter));
        }
    }
    for subject in [&up, &to_edge, &Subject::Edges] {
        bench.say(&bench.one, subject, "first").await;
        bench.say(&bench.one, subject, "last").await;
    }
    for (ear, filter) in &mut ears {
        assert_eq!(ear.words_until("last").await, ["first", "last"], "{filter}");
    }
}

/// "Delivers what matches": nothing of another tenant, building, gateway or edge.
pub async fn a_message_reaches_no_other_tenant_building_gateway_or_edge<B: Bus>(bench: &Bench<B>) {
    let edge = bench.edge("e");
    let to_edge = |edge: &EdgeId| Subject::Edge(edge.clone(), bench.key("a", "b1/g1"));
    let rows = [
        (bench.all_up("a", "b1/g1"), bench.up("a", "b1/g1")),
        (bench.all_up("a", "b1/*"), bench.up("a", "b1/g9")),
        (bench.all_up("a", "*/*"), bench.up("a", "b9/g9")),
        (bench.all_up("a", "b1/_"), bench.up("a", "b1/_")),
        (Filter::Edge(edge.clone()), to_edge(&edge)),
    ];
    let others = [
        bench.up("a", "b1/g1"),
        bench.up("a", "b1/g2"),
        bench.up("a", "b1/_"),
        bench.up("a", "b2/g1"),
        bench.up("a", "b11/g1"),
        bench.up("a", "_/_"),
        bench.up("aa", "b1/g1"),
        bench.up("b", "b1/g1"),
        to_edge(&edge),
        to_edge(&bench.edge("ee")),
        Subject::Edges,
    ];
    for (filter, matching) in &rows {
        let mut ear = bench.ear(filter, matching).await;
        for other in others.iter().filter(|other| !filter.matches(other)) {
            bench.say(&bench.one, other, &format!("not for {filter}")).await;
        }
        bench.say(&bench.one, matching, "last").await;
        assert_eq!(ear.words_until("last").await, ["last"], "{filter}");
    }
}

/// "Messages of one publisher that reach one subscription arrive in the order in which they were published."
pub async fn messages_of_one_publisher_arrive_in_order<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let mut ear = bench.ear(&bench.all_up("a", "b1/g1"), &subject).await;
    let words: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    for word in &words {
        bench.say(&bench.one, &subject, word).await;
    }
    assert_eq!(ear.words_until("499").await, words);
}

/// The same, when one subscription gets messages of several subjects.
pub async fn messages_of_several_subjects_keep_the_order_of_their_publisher<B: Bus>(bench: &Bench<B>) {
    let subjects = ["b1/g1", "b1/g2", "b2/g1", "b1/_"].map(|address| bench.up("a", address));
    let mut ear = bench.ear(&bench.all_up("a", "*/*"), &subjects[0]).await;
    let words: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    for (word, subject) in words.iter().zip(subjects.iter().cycle()) {
        bench.say(&bench.one, subject, word).await;
    }
    let heard = timeout(PATIENCE, async {
        let mut heard = vec![];
        for _ in &words {
            heard.push(ear.next().await);
        }
        heard
    });
    let sent: Vec<_> = subjects.iter().cloned().cycle().zip(words.iter().cloned()).collect();
    assert_eq!(heard.await.expect("all messages in time"), sent);
}

/// A message reaches each matching subscription, its publisher's own included.
pub async fn a_publisher_gets_its_own_messages<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let filter = bench.all_up("a", "b1/*");
    let mut ear = bench.ear_of(&bench.one, &filter, ROOM, &bench.one, &subject).await;
    bench.say(&bench.one, &subject, "to myself").await;
    assert_eq!(ear.words_until("to myself").await, ["to myself"]);
}

/// A delivery is where it was published and what was published, whatever bytes these are.
pub async fn a_payload_arrives_as_it_was_sent<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let mut ear = bench.ear(&bench.all_up("a", "*/*"), &subject).await;
    let payloads = [
        Bytes::new(),
        Bytes::from_static(b"\r\nPUB x 0\r\n\r\n"),
        (0..=255).collect::<Bytes>(),
        Bytes::from(vec![b'x'; 512 * 1024]),
    ];
    for payload in &payloads {
        bench.one.publish(&subject, payload.clone()).await.expect("a bus that can be reached");
    }
    for payload in &payloads {
        let delivery = timeout(PATIENCE, ear.received.recv()).await.expect("a message in time").expect("an open inbox");
        assert_eq!(delivery.subject, subject);
        assert!(delivery.payload == *payload, "{} bytes became {} others", payload.len(), delivery.payload.len());
    }
}

/// Each matching subscription gets the message, also when one inbox serves several.
pub async fn subscriptions_that_share_an_inbox_each_get_the_message<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let mut narrow = bench.ear(&bench.all_up("a", "b1/g1"), &subject).await;
    let wide = bench.all_up("a", "*/*");
    let _wide = bench.two.subscribe(&wide, &narrow.inbox).await.expect("a bus that can be reached");
    // The second subscription has taken effect when a word comes twice.
    let twice = async {
        let mut round = 0;
        loop {
            round += 1;
            let word = format!("round {round}");
            bench.say(&bench.one, &subject, &word).await;
            let both = async {
                narrow.hear(&word).await;
                narrow.hear(&word).await;
            };
            if timeout(PROBE_EVERY, both).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, twice).await.expect("every word twice");
}

/// "Delivers what matches into the inbox until the guard is dropped."
pub async fn a_dropped_subscription_gets_nothing_more<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let filter = bench.all_up("a", "b1/*");
    let Ear { subscription, inbox, mut received, .. } = bench.ear(&filter, &subject).await;
    let mut other = bench.ear(&filter, &subject).await;
    while received.try_recv().is_ok() {}
    drop(subscription);
    bench.say(&bench.one, &subject, "too late").await;
    bench.say(&bench.one, &subject, "last").await;
    assert_eq!(other.words_until("last").await, ["too late", "last"]);
    assert!(received.try_recv().is_err(), "a message came after the guard was dropped");
    drop(inbox);
}

/// A guard ends its own subscription only.
pub async fn ending_one_subscription_leaves_the_others_of_its_filter<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let filter = bench.all_up("a", "b1/g1");
    let mut first = bench.ear(&filter, &subject).await;
    let second = bench.ear(&filter, &subject).await;
    let mut third = bench.ear_of(&bench.three, &filter, ROOM, &bench.one, &subject).await;
    drop(second);
    bench.say(&bench.one, &subject, "last").await;
    for ear in [&mut first, &mut third] {
        assert_eq!(ear.words_until("last").await, ["last"]);
    }
}

/// "Delivery never waits for a receiver: a full inbox loses the message and counts it."
pub async fn a_full_inbox_loses_the_message_and_counts_it<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let filter = bench.all_up("a", "b1/g1");
    let mut large = bench.ear_of(&bench.three, &filter, ROOM, &bench.one, &subject).await;
    // The small one last: no probe is on its way to it any more.
    let mut small = bench.ear_of(&bench.two, &filter, 1, &bench.one, &subject).await;
    let mut health = bench.two.health();
    let before = health.borrow_and_update().overflowed;
    for word in ["first", "second", "third"] {
        bench.say(&bench.one, &subject, word).await;
    }
    let heard = large.words_until("third").await;
    assert_eq!(heard, ["first", "second", "third"], "a full inbox holds up nobody");
    let counted = health.wait_for(|health: &Health| health.overflowed >= before + 2);
    let after = timeout(PATIENCE, counted).await.expect("the count in time").expect("a bus that lives").overflowed;
    assert_eq!(after, before + 2);
    assert_eq!(small.words_until("first").await, ["first"]);
    bench.say(&bench.one, &subject, "fourth").await;
    assert_eq!(small.words_until("fourth").await, ["fourth"], "an inbox with room again gets messages again");
}

/// A subscriber that forgot to drop its guard, or dies before it, costs the publisher and the others nothing.
pub async fn a_receiver_that_is_gone_harms_nobody<B: Bus>(bench: &Bench<B>) {
    let subject = bench.up("a", "b1/g1");
    let filter = bench.all_up("a", "b1/g1");
    let Ear { subscription, inbox, received, .. } = bench.ear(&filter, &subject).await;
    let mut other = bench.ear(&filter, &subject).await;
    drop((received, inbox));
    bench.say(&bench.one, &subject, "last").await;
    assert_eq!(other.words_until("last").await, ["last"]);
    drop(subscription);
}

/// What [`Health`] says of a bus that was reached and lost nothing.
pub async fn a_bus_that_was_reached_says_so<B: Bus>(bench: &Bench<B>) {
    let subject = Subject::Up(GatewayKey::new(bench.tenant("a"), "b1/g1".parse::<Address>().expect("an address")));
    let _ear = bench.ear(&Filter::Up(bench.tenant("a"), Pattern::All), &subject).await;
    for bus in [&bench.one, &bench.two] {
        let health = *bus.health().borrow();
        assert_eq!(health, Health { connected: true, reconnects: 0, overflowed: 0 });
    }
}
