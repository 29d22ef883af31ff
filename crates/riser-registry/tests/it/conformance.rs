//! The memory twin does what every registry must do.

use riser_registry::memory::{MemoryClient, MemoryRegistry};
use riser_registry::suite::Bench;

async fn bench(_case: &str) -> Bench<MemoryClient> {
    let store = MemoryRegistry::new(1_763_800_000_000);
    let client = |name: &str| store.client(&name.parse().expect("an edge name"));
    Bench { one: client("edge-1"), two: client("edge-2"), name: "memory".into(), behind: None }
}

riser_registry::conformance!(
    #[tokio::test(start_paused = true)]
    bench
);

/// The same cases when every call takes time.
mod slow {
    use std::time::Duration;

    use riser_registry::memory::Faults;

    use super::{Bench, MemoryClient, MemoryRegistry};

    async fn bench(case: &str) -> Bench<MemoryClient> {
        let store = MemoryRegistry::seeded(1_763_800_000_000, case.len() as u64);
        store.set_faults(&Faults { delay: Duration::ZERO..=Duration::from_millis(5), ..Faults::default() });
        let client = |name: &str| store.client(&name.parse().expect("an edge name"));
        Bench { one: client("edge-1"), two: client("edge-2"), name: "slow".into(), behind: None }
    }

    riser_registry::conformance!(
        #[tokio::test(start_paused = true)]
        bench
    );
}

#[test]
fn every_case_of_the_suite_is_in_its_list() {
    let lists = include_str!("../../src/suite.rs");
    let files = [
        include_str!("../../src/suite/leases.rs"),
        include_str!("../../src/suite/sessions.rs"),
        include_str!("../../src/suite/restores.rs"),
        include_str!("../../src/suite/state.rs"),
        include_str!("../../src/suite/commands.rs"),
        include_str!("../../src/suite/steps.rs"),
        include_str!("../../src/suite/lists.rs"),
        include_str!("../../src/suite/copies.rs"),
        include_str!("../../src/suite/streams.rs"),
    ];
    let functions = files.into_iter().flat_map(str::lines).filter_map(|l| l.strip_prefix("pub async fn "));
    let cases: Vec<_> = functions.filter_map(|rest| rest.split('<').next()).collect();
    let listed: Vec<_> = lists.lines().map(str::trim).filter(|line| cases.contains(line)).collect();
    assert!(cases.len() >= 80, "{cases:?}");
    assert_eq!(cases, listed);
}
