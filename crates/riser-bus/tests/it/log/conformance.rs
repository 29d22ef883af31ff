//! The memory twin does what every log must do.

use riser_bus::log::memory::{MemoryLog, MemoryLogClient};
use riser_bus::log::suite::{Bench, KEPT_AT_LEAST};

use super::START_MS;

fn bench_on(log: &MemoryLog, name: &str) -> Bench<MemoryLogClient> {
    log.set_retention(usize::try_from(KEPT_AT_LEAST).expect("a number of events"));
    let client = |name: &str| log.client(&name.parse().expect("an edge name"));
    let store = log.clone();
    Bench {
        one: client("edge-1"),
        two: client("edge-2"),
        name: name.into(),
        kept: KEPT_AT_LEAST,
        lose: Box::new(move |tenant| {
            store.lose(&tenant);
            Box::pin(async {})
        }),
    }
}

async fn bench(_case: &str) -> Bench<MemoryLogClient> {
    bench_on(&MemoryLog::new(START_MS), "memory")
}

riser_bus::log_conformance!(
    #[tokio::test(start_paused = true)]
    bench
);

/// The same cases when every call takes time.
mod slow {
    use std::time::Duration;

    use riser_bus::log::memory::Faults;

    use super::{Bench, MemoryLog, MemoryLogClient, START_MS, bench_on};

    async fn bench(case: &str) -> Bench<MemoryLogClient> {
        let log = MemoryLog::seeded(START_MS, case.len() as u64);
        log.set_faults(&Faults { delay: Duration::ZERO..=Duration::from_millis(5), ..Faults::default() });
        bench_on(&log, "slow")
    }

    riser_bus::log_conformance!(
        #[tokio::test(start_paused = true)]
        bench
    );
}

#[test]
fn every_case_of_the_suite_is_in_its_list() {
    let lists = include_str!("../../../src/log/suite.rs");
    let files = [
        include_str!("../../../src/log/suite/appends.rs"),
        include_str!("../../../src/log/suite/reads.rs"),
        include_str!("../../../src/log/suite/tails.rs"),
        include_str!("../../../src/log/suite/lives.rs"),
    ];
    let functions = files.into_iter().flat_map(str::lines).filter_map(|l| l.strip_prefix("pub async fn "));
    let cases: Vec<_> = functions.filter_map(|rest| rest.split('<').next()).collect();
    let listed: Vec<_> = lists.lines().map(str::trim).filter(|line| cases.contains(line)).collect();
    assert!(cases.len() >= 25, "{cases:?}");
    assert_eq!(cases, listed);
}
