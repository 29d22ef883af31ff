//! The memory twin finds by its index exactly the subscriptions whose filters match.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_bus::memory::MemoryNet;
use riser_bus::{Bus, Filter, Subject, Subscription, inbox};
use riser_core::{Address, EdgeId, GatewayKey, Pattern, TenantId};

fn addresses() -> impl Strategy<Value = Address> {
    prop::sample::select(vec!["b1/g1", "b1/g2", "b1/_", "b2/g1", "_/_"]).prop_map(|a| a.parse().expect("an address"))
}

fn tenants() -> impl Strategy<Value = TenantId> {
    prop::sample::select(vec!["a", "b"]).prop_map(|t| t.parse().expect("a tenant"))
}

fn edges() -> impl Strategy<Value = EdgeId> {
    prop::sample::select(vec!["a", "e"]).prop_map(|e| e.parse().expect("an edge name"))
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let building = prop::sample::select(vec!["b1", "b2"]).prop_map(|b| Pattern::Building(b.parse().expect("a name")));
    prop_oneof![addresses().prop_map(Pattern::One), building, Just(Pattern::All)]
}

fn filters() -> impl Strategy<Value = Filter> {
    prop_oneof![
        4 => (tenants(), patterns()).prop_map(|(tenant, pattern)| Filter::Up(tenant, pattern)),
        1 => edges().prop_map(Filter::Edge),
        1 => Just(Filter::Edges),
    ]
}

fn subjects() -> impl Strategy<Value = Subject> {
    let key = || (tenants(), addresses()).prop_map(|(tenant, address)| GatewayKey::new(tenant, address));
    prop_oneof![
        4 => key().prop_map(Subject::Up),
        1 => (edges(), key()).prop_map(|(edge, key)| Subject::Edge(edge, key)),
        1 => Just(Subject::Edges),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(Filter),
    /// Ends the subscription at this place, counted round.
    End(usize),
    Publish(Subject),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => filters().prop_map(Step::Subscribe),
        1 => any::<usize>().prop_map(Step::End),
        3 => subjects().prop_map(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_publish_reaches_those_whose_filters_match(steps in prop::collection::vec(steps(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let bus = MemoryNet::new().client("one".parse().expect("an edge name"));
            let mut subscriptions: Vec<(Filter, Subscription, _)> = vec![];
            for step in steps {
                match step {
                    Step::Subscribe(filter) => {
                        let (inbox, received) = inbox(1);
                        let guard = bus.subscribe(&filter, &inbox).await.expect("a bus that can be reached");
                        subscriptions.push((filter, guard, received));
                    }
                    Step::End(_) if subscriptions.is_empty() => {}
                    Step::End(at) => drop(subscriptions.remove(at % subscriptions.len())),
                    Step::Publish(subject) => {
                        bus.publish(&subject, Bytes::new()).await.expect("a bus that can be reached");
                        for (filter, _, received) in &mut subscriptions {
                            let got = received.try_recv().ok().map(|delivery| delivery.subject);
                            let expected = filter.matches(&subject).then(|| subject.clone());
                            prop_assert_eq!(got, expected, "{} at {}", subject, filter);
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
