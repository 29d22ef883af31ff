//! The memory twin does what every bus must do.

use riser_bus::memory::{MemoryBus, MemoryNet};
use riser_bus::suite::Bench;

async fn bench(_case: &str) -> Bench<MemoryBus> {
    let net = MemoryNet::new();
    let client = |name: &str| net.client(name.parse().expect("an edge name"));
    Bench { one: client("edge-1"), two: client("edge-2"), three: client("edge-3"), name: "memory".into() }
}

riser_bus::conformance!(
    #[tokio::test(start_paused = true)]
    bench
);

/// The same cases on a network that keeps its contract but is slow and lets subscriptions spread.
mod slow {
    use std::time::Duration;

    use riser_bus::memory::Faults;

    use super::{Bench, MemoryBus, MemoryNet};

    async fn bench(case: &str) -> Bench<MemoryBus> {
        let net = MemoryNet::seeded(case.len() as u64);
        net.set_faults(Faults { delay: Duration::ZERO..=Duration::from_millis(20), ..Faults::default() });
        net.set_interest_delay(Duration::ZERO..=Duration::from_millis(400));
        let client = |name: &str| net.client(name.parse().expect("an edge name"));
        Bench { one: client("edge-1"), two: client("edge-2"), three: client("edge-3"), name: "slow".into() }
    }

    riser_bus::conformance!(
        #[tokio::test(start_paused = true)]
        bench
    );
}

#[test]
fn every_case_of_the_suite_is_in_its_list() {
    let source = include_str!("../../../src/suite.rs");
    let cases: Vec<_> = source.lines().filter_map(|l| l.strip_prefix("pub async fn ")?.split('<').next()).collect();
    let listed: Vec<_> = source.lines().map(str::trim).filter(|line| cases.contains(line)).collect();
    assert!(cases.len() >= 12, "{cases:?}");
    assert_eq!(cases, listed);
}
