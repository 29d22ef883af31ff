//! Many store and many listen at once, through losses and cuts: who joins reads to tails has every event once.

use std::time::Duration;

use fastrand::Rng;
use riser_bus::log::memory::{FaultCounts, Faults, MemoryLog, MemoryLogClient};
use riser_bus::log::{Log, Stored, Tail};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{PATIENCE, START_MS, edge, event, tenant};

const EDGES: [&str; 3] = ["one", "two", "three"];
const EACH: u64 = 40;
const ALL: u64 = EACH * EDGES.len() as u64;
/// Longer than anybody here goes on repeating.
const WINDOW: Duration = Duration::from_secs(3_600);
/// How long a seed may take on its own clock, many times what it does take.
const LONGEST: Duration = Duration::from_secs(600);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Stores events in turn, each repeated until it is answered. Gives the numbers that were answered.
async fn store(client: MemoryLogClient, sender: &'static str, mut rng: Rng) -> Vec<u64> {
    let mut answered = vec![];
    for number in 0..EACH {
        let id = number.to_string();
        loop {
            // Who was not answered repeats.
            let answer = client.append(&tenant("acme"), event(sender, &id), WINDOW).await;
            if let Ok(stored) = answer {
                answered.push(stored.cursor.seq);
                break;
            }
        }
        // Some that were answered repeat too, since the answer was lost behind the client.
        if rng.u8(..) < 64 {
            let again = client.append(&tenant("acme"), event(sender, &id), WINDOW).await;
            assert!(
                again.is_err() || again.is_ok_and(|again| again.duplicate && answered.ends_with(&[again.cursor.seq]))
            );
        }
        tokio::time::sleep(ms(rng.u64(0..10))).await;
    }
    answered
}

/// What a reader got, and what it was told that it missed.
#[derive(Default)]
struct Heard {
    events: Vec<Stored>,
    missed: u64,
    position: u64,
    /// How often it began anew.
    joins: u64,
}

impl Heard {
    fn take(&mut self, stored: Stored) {
        assert_eq!(stored.seq, self.position + 1, "a hole or a double");
        self.position += 1;
        self.events.push(stored);
    }

    /// Reads up to where the tail began. Whether everything was answered.
    async fn catch_up(&mut self, client: &MemoryLogClient, tail: &Tail) -> bool {
        while self.position < tail.bounds.last {
            let Ok(page) = client.read(&tenant("acme"), self.position + 1).await else { return false };
            assert_eq!(page.bounds.life, tail.bounds.life);
            let missed = (page.bounds.first - 1).saturating_sub(self.position);
            self.missed += missed;
            self.position += missed;
            let before = page.events.into_iter().take_while(|stored| stored.seq <= tail.bounds.last);
            before.for_each(|stored| self.take(stored));
            // Retention may have overtaken the tail; what it still holds is older than the position.
        }
        true
    }
}

/// Listens from the beginning until everything was heard or missed.
async fn listen(client: MemoryLogClient) -> Heard {
    let mut heard = Heard::default();
    while heard.position < ALL {
        let Ok(mut tail) = client.tail(&tenant("acme")).await else { continue };
        heard.joins += 1;
        if !heard.catch_up(&client, &tail).await {
            continue;
        }
        while heard.position < ALL
            && let Some(stored) = tail.events.recv().await
        {
            if stored.seq > heard.position {
                heard.take(stored);
            }
        }
    }
    heard
}

/// Cuts edges off now and then, some for longer than retention keeps what they miss.
async fn trouble(log: MemoryLog, mut rng: Rng) {
    loop {
        tokio::time::sleep(ms(rng.u64(20..150))).await;
        let name = edge(EDGES[rng.usize(..EDGES.len())]);
        log.cut(&name, ms(5));
        tokio::time::sleep(ms(rng.u64(0..80))).await;
        log.heal(&name);
    }
}

#[derive(Default)]
struct Totals {
    faults: FaultCounts,
    joins: u64,
    missed: u64,
}

async fn run(seed: u64, kept: usize, totals: &mut Totals) {
    let mut rng = Rng::with_seed(seed);
    let log = MemoryLog::seeded(START_MS, seed);
    log.set_retention(kept);
    log.set_faults(&Faults { delay: ms(0)..=ms(4), lost_request: 0.1, lost_reply: 0.1, silence: ms(3) });
    let (mut stores, mut listens, mut troubles) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    troubles.spawn(trouble(log.clone(), rng.fork()));
    for name in EDGES {
        let client = log.client(&edge(name));
        listens.spawn(listen(client.clone()));
        stores.spawn(store(client, name, rng.fork()));
    }
    let stored = stores.join_all().await;
    let heard = listens.join_all().await;
    drop(troubles);
    assert!(stored.iter().all(|numbers| numbers.is_sorted()), "a sender's events changed their order");
    let mut numbers = stored.concat();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=ALL), "an event has two numbers, or two events have one");
    for heard in &heard {
        assert_eq!(heard.events.len() as u64 + heard.missed, ALL);
        for one in &heard.events {
            let others = heard.events.iter().filter(|other| other.event.id == one.event.id);
            assert!(others.filter(|other| other.event.from == one.event.from).count() == 1, "an event came twice");
        }
        totals.joins += heard.joins;
        totals.missed += heard.missed;
    }
    let FaultCounts { refused, lost_requests, lost_replies, delayed } = log.fault_counts();
    totals.faults.refused += refused;
    totals.faults.lost_requests += lost_requests;
    totals.faults.lost_replies += lost_replies;
    totals.faults.delayed += delayed;
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// Runs many seeds, and says whether what they are to survive happened.
fn seeds(kept: usize) -> Totals {
    let mut totals = Totals::default();
    for seed in 0..100 {
        let ran = paused().block_on(async { timeout(LONGEST, run(seed, kept, &mut totals)).await });
        assert!(ran.is_ok(), "seed {seed} did not end");
    }
    let FaultCounts { refused, lost_requests, lost_replies, delayed } = totals.faults;
    assert!([refused, lost_requests, lost_replies, delayed].iter().all(|count| *count > 1_000), "{:?}", totals.faults);
    assert!(totals.joins > 600, "only {} tails in all", totals.joins);
    totals
}

#[test]
fn every_reader_has_every_event_once_through_losses_and_cuts() {
    assert_eq!(seeds(usize::MAX).missed, 0);
}

#[test]
fn a_reader_that_was_away_for_too_long_is_told_what_it_missed() {
    assert!(seeds(8).missed > 0);
}

/// The locks, under real parallelism: events have one order, and every tail has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tails_have_the_order_of_the_store_when_all_run_in_parallel() {
    const ROUNDS: u64 = 300;
    let log = MemoryLog::new(START_MS);
    let acme = tenant("acme");
    log.client(&edge("one")).append(&acme, event("first", "0"), WINDOW).await.expect("an answer");
    let mut stores = JoinSet::new();
    let mut listens = JoinSet::new();
    for name in EDGES {
        let client = log.client(&edge(name));
        stores.spawn(async move {
            for number in 0..ROUNDS {
                // All edges send the same events, so that each is stored by one of them.
                let sent = event("client:a", &number.to_string());
                let stored = client.append(&tenant("acme"), sent, WINDOW).await.expect("an answer");
                assert_eq!(stored.cursor.seq, number + 2, "an order that is not the senders'");
                tokio::task::yield_now().await;
            }
        });
        let client = log.client(&edge(name));
        listens.spawn(async move {
            let mut tail = client.tail(&tenant("acme")).await.expect("an answer");
            let mut events = client.read(&tenant("acme"), 1).await.expect("an answer").events;
            events.retain(|stored| stored.seq <= tail.bounds.last);
            while events.len() as u64 <= ROUNDS {
                let stored = timeout(PATIENCE, tail.events.recv()).await.expect("an event in time");
                events.push(stored.expect("a tail that goes on"));
            }
            events
        });
    }
    stores.join_all().await;
    let all: Vec<_> = listens.join_all().await;
    for events in &all {
        assert!(events.iter().map(|stored| stored.seq).eq(1..=ROUNDS + 1));
        assert_eq!(*events, all[0]);
        assert!(events.is_sorted_by_key(|stored| stored.event.at_ms));
    }
}
