//! Where a tenant's events stand in the store, asked once for all who want to know at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use riser_bus::log::{Bounds, LogError};
use tokio::sync::Mutex;

type Answer = Result<Bounds, LogError>;

/// The question that is under way, and the answer to the one before.
///
/// Who comes while a question is under way waits for the next one: what was stored before it came may not have been stored
/// yet when that one began. So however many come at once, the store is asked twice.
#[derive(Default)]
pub(super) struct Newest {
    /// How many questions were begun.
    begun: AtomicU64,
    /// Which question was answered last, and how. Locked while the store is asked.
    answered: Mutex<Option<(u64, Answer)>>,
}

impl Newest {
    /// The answer to a question that begins after this call.
    pub(super) async fn ask(&self, store: impl Future<Output = Answer>) -> Answer {
        let before = self.begun.load(Ordering::Acquire);
        let mut answered = self.answered.lock().await;
        if let Some((_, answer)) = answered.filter(|(question, _)| *question > before) {
            return answer;
        }
        let question = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let answer = store.await;
        *answered = Some((question, answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// A store that answers with how often it was asked, once it may.
    #[derive(Default)]
    struct Store {
        asked: AtomicU64,
        may: Option<Semaphore>,
    }

    impl Store {
        fn that_waits() -> Arc<Self> {
            Arc::new(Self { may: Some(Semaphore::new(0)), ..Self::default() })
        }

        async fn bounds(&self) -> Answer {
            let last = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(may) = &self.may {
                may.acquire().await.expect("it is never closed").forget();
            }
            if last == 1 { Err(LogError::Unavailable) } else { Ok(Bounds { life: 1, first: 1, last }) }
        }

        fn answer(&self, count: usize) {
            self.may.iter().for_each(|may| may.add_permits(count));
        }
    }

    #[tokio::test]
    async fn who_comes_while_the_store_is_asked_shares_the_next_question() {
        let (newest, store) = (Arc::new(Newest::default()), Store::that_waits());
        let mut asking = JoinSet::new();
        let ask = |asking: &mut JoinSet<Answer>| {
            let (newest, store) = (newest.clone(), store.clone());
            asking.spawn(async move { newest.ask(store.bounds()).await });
        };
        ask(&mut asking);
        yield_now().await;
        for _ in 0..1_000 {
            ask(&mut asking);
        }
        yield_now().await;
        assert_eq!(store.asked.load(Ordering::Relaxed), 1);
        store.answer(2);
        let answers = asking.join_all().await;
        let second = Ok(Bounds { life: 1, first: 1, last: 2 });
        assert_eq!(
            answers.iter().filter(|answer| **answer == Err(LogError::Unavailable)).count(),
            1,
            "the first alone"
        );
        assert_eq!(answers.iter().filter(|answer| **answer == second).count(), 1_000);
        assert_eq!(store.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn who_went_away_while_asking_keeps_nobody_from_an_answer() {
        let (newest, store) = (Newest::default(), Store::that_waits());
        let gone = tokio::select! {
            biased;
            answer = newest.ask(store.bounds()) => Some(answer),
            () = yield_now() => None,
        };
        assert_eq!(gone, None);
        store.answer(1);
        assert_eq!(newest.ask(store.bounds()).await, Ok(Bounds { life: 1, first: 1, last: 2 }));
    }

    #[tokio::test]
    async fn an_answer_serves_nobody_who_comes_after_it() {
        let (newest, store) = (Newest::default(), Store::default());
        assert_eq!(newest.ask(store.bounds()).await, Err(LogError::Unavailable));
        for last in [2, 3] {
            assert_eq!(newest.ask(store.bounds()).await, Ok(Bounds { life: 1, first: 1, last }));
        }
    }
}
