//! Random sequences of operations by several edges, against rules that know nothing of the store.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_bus::log::memory::{MemoryLog, MemoryLogClient};
use riser_bus::log::{Bounds, Log, LogError, Tail};
use tokio::sync::mpsc::error::TryRecvError;

use super::{START_MS, edge, event, tenant};

const TENANTS: [&str; 2] = ["acme", "acme-2"];
const EDGES: [&str; 2] = ["one", "two"];

/// What happens. Tenants, edges and tails are given by their places, counted round.
#[derive(Debug, Clone)]
enum Step {
    Append { edge: usize, tenant: usize, sender: u8, id: u8, window_ms: u64 },
    Read { edge: usize, tenant: usize, from: u64 },
    Tail { edge: usize, tenant: usize },
    Hear(usize),
    Drop(usize),
    Pass(u64),
    Retain(usize),
    Full(bool),
    Cut(usize),
    Heal(usize),
    Lose(usize),
    Empty,
}

fn steps() -> impl Strategy<Value = Step> {
    let edge = || 0..EDGES.len();
    let tenant = || prop_oneof![3 => Just(0), 1 => Just(1)];
    let windows = prop::sample::select(vec![0, 100, 1_000]);
    prop_oneof![
        16 => (edge(), tenant(), 0..2u8, 0..4u8, windows)
            .prop_map(|(edge, tenant, sender, id, window_ms)| Step::Append { edge, tenant, sender, id, window_ms }),
        6 => (edge(), tenant(), 0..16u64).prop_map(|(edge, tenant, from)| Step::Read { edge, tenant, from }),
        4 => (edge(), tenant()).prop_map(|(edge, tenant)| Step::Tail { edge, tenant }),
        3 => any::<usize>().prop_map(Step::Hear),
        1 => any::<usize>().prop_map(Step::Drop),
        4 => (0..700u64).prop_map(Step::Pass),
        1 => (0..8usize).prop_map(Step::Retain),
        1 => any::<bool>().prop_map(Step::Full),
        1 => edge().prop_map(Step::Cut),
        2 => edge().prop_map(Step::Heal),
        1 => tenant().prop_map(Step::Lose),
        1 => Just(Step::Empty),
    ]
}

/// What must be true of one tenant.
#[derive(Default)]
struct Stream {
    life: u64,
    /// Everything that was stored in this life: sender, id and time.
    events: Vec<(u8, u8, u64)>,
    /// How many of them retention has dropped.
    dropped: usize,
    /// The longest window that was asked for.
    longest_ms: u64,
    /// How many of them are too old for every window so far.
    forgotten: usize,
}

/// A tail, and what must be in it.
struct Ear {
    edge: usize,
    tenant: usize,
    tail: Tail,
    due: VecDeque<u64>,
    ended: bool,
}

struct Model {
    log: MemoryLog,
    clients: Vec<MemoryLogClient>,
    streams: [Stream; TENANTS.len()],
    lives: BTreeSet<u64>,
    ears: Vec<Ear>,
    cut: [bool; EDGES.len()],
    kept: usize,
    full: bool,
}

impl Stream {
    fn bounds(&self) -> Bounds {
        Bounds { life: self.life, first: self.dropped as u64 + 1, last: self.events.len() as u64 }
    }

    /// Where an event was stored within the window, if it was.
    fn stored(&mut self, (sender, id): (u8, u8), window_ms: u64, now_ms: u64) -> Option<usize> {
        self.longest_ms = self.longest_ms.max(window_ms);
        let old = self.events.iter().take_while(|(_, _, at_ms)| now_ms - at_ms >= self.longest_ms).count();
        self.forgotten = self.forgotten.max(old);
        let newest = self.events.iter().rposition(|&(s, i, _)| (s, i) == (sender, id))?;
        (newest >= self.forgotten && now_ms - self.events[newest].2 < window_ms).then_some(newest)
    }

    fn retain(&mut self, kept: usize) {
        self.dropped = self.dropped.max(self.events.len().saturating_sub(kept));
    }
}

impl Model {
    fn new() -> Self {
        let log = MemoryLog::new(START_MS);
        let clients = EDGES.iter().map(|name| log.client(&edge(name))).collect();
        let (streams, lives, ears) = (Default::default(), BTreeSet::new(), vec![]);
        Self { log, clients, streams, lives, ears, cut: Default::default(), kept: usize::MAX, full: false }
    }

    async fn append(&mut self, edge: usize, of: usize, (sender, id): (u8, u8), window_ms: u64) {
        let (window, now_ms) = (Duration::from_millis(window_ms), self.log.now_ms());
        let sent = event(&format!("client:{sender}"), &id.to_string());
        let answer = self.clients[edge].append(&tenant(TENANTS[of]), sent, window).await;
        if self.cut[edge] {
            return assert_eq!(answer, Err(LogError::Unavailable));
        }
        let stream = &mut self.streams[of];
        let repeated = stream.stored((sender, id), window_ms, now_ms);
        if self.full && repeated.is_none() {
            return assert_eq!(answer, Err(LogError::Full));
        }
        let answer = answer.expect("an answer");
        assert_eq!(answer.duplicate, repeated.is_some());
        if stream.life == 0 {
            assert!(self.lives.insert(answer.cursor.life) && answer.cursor.life != 0, "a life came twice");
            stream.life = answer.cursor.life;
            self.end_ears(|ear| ear.tenant == of);
        }
        let stream = &mut self.streams[of];
        let at = repeated.unwrap_or_else(|| {
            stream.events.push((sender, id, now_ms));
            stream.retain(self.kept);
            stream.events.len() - 1
        });
        let seq = at as u64 + 1;
        assert_eq!((answer.cursor.life, answer.cursor.seq), (stream.life, seq));
        if repeated.is_none() {
            let ears = self.ears.iter_mut().filter(|ear| ear.tenant == of && !ear.ended);
            ears.for_each(|ear| ear.due.push_back(seq));
        }
    }

    async fn read(&self, edge: usize, of: usize, from: u64) {
        let page = self.clients[edge].read(&tenant(TENANTS[of]), from).await;
        if self.cut[edge] {
            return assert_eq!(page, Err(LogError::Unavailable));
        }
        let (page, stream) = (page.expect("an answer"), &self.streams[of]);
        assert_eq!(page.bounds, stream.bounds());
        assert_eq!(self.clients[edge].bounds(&tenant(TENANTS[of])).await, Ok(stream.bounds()));
        let first = stream.bounds().first.max(from);
        assert!(page.events.iter().map(|stored| stored.seq).eq(first..=stream.bounds().last));
        for stored in &page.events {
            self.check(of, stored.seq, &stored.event);
        }
    }

    async fn tail(&mut self, edge: usize, of: usize) {
        let tail = self.clients[edge].tail(&tenant(TENANTS[of])).await;
        if self.cut[edge] {
            return assert_eq!(tail.map(drop), Err(LogError::Unavailable));
        }
        let tail = tail.expect("an answer");
        assert_eq!(tail.bounds, self.streams[of].bounds());
        self.ears.push(Ear { edge, tenant: of, tail, due: VecDeque::new(), ended: false });
    }

    /// What a tail holds is what must be in it, and it has ended when it must have.
    fn hear(&mut self, at: usize) {
        let ear = &mut self.ears[at];
        let mut heard = vec![];
        let end = loop {
            match ear.tail.events.try_recv() {
                Ok(stored) => heard.push(stored),
                Err(end) => break end,
            }
        };
        assert_eq!(end == TryRecvError::Disconnected, ear.ended);
        assert!(heard.iter().map(|stored| stored.seq).eq(ear.due.drain(..)));
        let (of, life) = (ear.tenant, ear.tail.bounds.life);
        // What was heard of a life that is over cannot be compared any more.
        if life == self.streams[of].life {
            for stored in &heard {
                self.check(of, stored.seq, &stored.event);
            }
        }
    }

    fn check(&self, of: usize, seq: u64, got: &riser_core::event::Event) {
        let at = usize::try_from(seq).expect("a small number") - 1;
        let (sender, id, at_ms) = self.streams[of].events[at];
        let mut sent = event(&format!("client:{sender}"), &id.to_string());
        sent.at_ms = at_ms;
        assert_eq!(*got, sent);
    }

    fn end_ears(&mut self, which: impl Fn(&Ear) -> bool) {
        self.ears.iter_mut().filter(|ear| which(ear)).for_each(|ear| ear.ended = true);
    }

    fn lose(&mut self, of: usize) {
        self.streams[of] = Stream::default();
        self.end_ears(|ear| ear.tenant == of);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { edge, tenant, sender, id, window_ms } => {
                self.append(edge, tenant, (sender, id), window_ms).await;
            }
            Step::Read { edge, tenant, from } => self.read(edge, tenant, from).await,
            Step::Tail { edge, tenant } => self.tail(edge, tenant).await,
            Step::Hear(_) | Step::Drop(_) if self.ears.is_empty() => {}
            Step::Hear(at) => self.hear(at % self.ears.len()),
            Step::Drop(at) => drop(self.ears.swap_remove(at % self.ears.len())),
            Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            Step::Retain(kept) => {
                self.log.set_retention(kept);
                self.kept = kept;
                self.streams.iter_mut().for_each(|stream| stream.retain(kept));
            }
            Step::Full(full) => {
                self.log.set_full(full);
                self.full = full;
            }
            Step::Cut(at) => {
                self.log.cut(&edge(EDGES[at]), Duration::ZERO);
                self.cut[at] = true;
                self.end_ears(|ear| ear.edge == at);
            }
            Step::Heal(at) => {
                self.log.heal(&edge(EDGES[at]));
                self.cut[at] = false;
            }
            Step::Lose(of) => {
                self.log.lose(&tenant(TENANTS[of]));
                self.lose(of);
            }
            Step::Empty => {
                self.log.empty();
                (0..TENANTS.len()).for_each(|of| self.lose(of));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_024,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_follows_the_model(steps in prop::collection::vec(steps(), 1..100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut model = Model::new();
            for step in steps {
                model.step(step).await;
            }
            for at in 0..model.ears.len() {
                model.hear(at);
            }
        });
    }
}
