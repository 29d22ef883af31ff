//! Gateways that wait to be fenced: a queue per tenant, and the tenants take turns.
//!
//! Only so many are fenced at once, so that the registry's own queue, which knows no tenants, stays short. A tenant that
//! waits alone may fill the whole room; when others come, its queue gives up its newest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use riser_core::TenantId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Why a gateway's turn does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// There is no room, and its tenant's queue is the longest.
    Full,
    /// It has waited long enough.
    Late,
}

impl Missed {
    /// A word of a closed set, fit for a metric's label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "busy_openings",
            Self::Late => "late_opening",
        }
    }
}

/// Lets gateways in, so many at once.
pub(crate) struct Turnstile(Mutex<Waiting>);

struct Waiting {
    /// How many more may be at it.
    free: usize,
    /// How many may wait, in all.
    room: usize,
    count: usize,
    /// Who waits, the oldest first. No queue is empty.
    queues: IndexMap<TenantId, VecDeque<oneshot::Sender<Turn>>>,
    /// Those who have a queue, in the order of their turns.
    turns: VecDeque<TenantId>,
}

/// The right to be fenced now. Dropping it gives it to the next.
pub(crate) struct Turn(Option<Arc<Turnstile>>);

impl Turnstile {
    /// So many at once, and room for so many who wait.
    pub(crate) fn new(at_once: usize, room: usize) -> Arc<Self> {
        let (queues, turns) = (IndexMap::new(), VecDeque::new());
        Arc::new(Self(Mutex::new(Waiting { free: at_once, room, count: 0, queues, turns })))
    }

    /// Whether one more of this tenant's could wait now, or need not.
    pub(crate) fn has_room(&self, tenant: &TenantId) -> bool {
        let mut waiting = self.0.lock();
        waiting.free > 0 || waiting.is_room() || waiting.longest_but(tenant).is_some()
    }

    /// Waits for a turn.
    pub(crate) async fn turn(self: &Arc<Self>, tenant: &TenantId, within: Duration) -> Result<Turn, Missed> {
        let turn = {
            let mut waiting = self.0.lock();
            if waiting.free > 0 {
                waiting.free -= 1;
                return Ok(Turn(Some(self.clone())));
            }
            if !waiting.is_room() {
                let longest = waiting.longest_but(tenant).ok_or(Missed::Full)?;
                waiting.give_up_newest(&longest);
            }
            waiting.join(tenant)
        };
        match timeout(within, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(Missed::Full),
            Err(_) => Err(Missed::Late),
        }
    }
}

impl Waiting {
    /// Whether one more may wait. Who went away is counted no longer: all wait equally long, so that these are in front.
    fn is_room(&mut self) -> bool {
        if self.count < self.room {
            return true;
        }
        let mut gone = 0;
        for queue in self.queues.values_mut() {
            while queue.front().is_some_and(oneshot::Sender::is_closed) {
                queue.pop_front();
                gone += 1;
            }
        }
        self.count -= gone;
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|tenant| self.queues.contains_key(tenant));
        self.count < self.room
    }

    fn join(&mut self, tenant: &TenantId) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        self.queues.entry(tenant.clone()).or_insert_with(|| {
            self.turns.push_back(tenant.clone());
            VecDeque::new()
        });
        if let Some(queue) = self.queues.get_mut(tenant) {
            queue.push_back(sender);
            self.count += 1;
        }
        receiver
    }

    /// Whose queue is longest, when it stays at least as long as this tenant's with one more in that and one less in it.
    fn longest_but(&self, tenant: &TenantId) -> Option<TenantId> {
        let own = self.queues.get(tenant).map_or(0, VecDeque::len);
        let longest = self.queues.iter().max_by_key(|(_, queue)| queue.len())?;
        (longest.1.len() > own + 1).then(|| longest.0.clone())
    }

    /// Has the newest of a queue told that its turn will not come.
    fn give_up_newest(&mut self, tenant: &TenantId) {
        self.take(tenant, VecDeque::pop_back);
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let tenant = self.turns.pop_front()?;
        // At the end of all, unless nobody of it waits any more.
        self.turns.push_back(tenant.clone());
        self.take(&tenant, VecDeque::pop_front)
    }

    fn take(
        &mut self,
        tenant: &TenantId,
        which: impl FnOnce(&mut VecDeque<oneshot::Sender<Turn>>) -> Option<oneshot::Sender<Turn>>,
    ) -> Option<oneshot::Sender<Turn>> {
        let queue = self.queues.get_mut(tenant)?;
        let taken = which(queue);
        self.count -= usize::from(taken.is_some());
        if queue.is_empty() {
            self.queues.swap_remove(tenant);
            self.turns.retain(|other| other != tenant);
        }
        taken
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turnstile) = self.0.take() else { return };
        let mut waiting = turnstile.0.lock();
        let mut turn = Self(Some(turnstile.clone()));
        while let Some(next) = waiting.next() {
            match next.send(turn) {
                Ok(()) => return,
                // It has gone away meanwhile.
                Err(back) => turn = back,
            }
        }
        waiting.free += 1;
        // What was not passed on must not be given back twice.
        turn.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    type Wait = Pin<Box<dyn Future<Output = Result<Turn, Missed>>>>;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    /// Has one wait, who is looked at once.
    fn wait(turnstile: &Arc<Turnstile>, name: &str) -> Wait {
        let (turnstile, tenant) = (turnstile.clone(), tenant(name));
        let mut wait: Wait = Box::pin(async move { turnstile.turn(&tenant, WITHIN).await });
        assert!(wait.as_mut().now_or_never().is_none(), "{name} need not wait");
        wait
    }

    fn now(wait: &mut Wait) -> Option<Result<Turn, Missed>> {
        wait.as_mut().now_or_never()
    }

    async fn turn(turnstile: &Arc<Turnstile>, name: &str) -> Result<Turn, Missed> {
        turnstile.turn(&tenant(name), WITHIN).await
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_however_many_wait_of_one() {
        let turnstile = Turnstile::new(1, 100);
        let mut at_it = turn(&turnstile, "storm").await.ok();
        let mut waits: Vec<(&str, Wait)> = (0..5).map(|_| ("storm", wait(&turnstile, "storm"))).collect();
        waits.extend(["b", "c", "b"].map(|name| (name, wait(&turnstile, name))));
        let mut order = Vec::new();
        while !waits.is_empty() {
            drop(at_it.take());
            let next = waits.iter_mut().enumerate().find_map(|(at, (_, wait))| Some((at, now(wait)?)));
            let (at, turn) = next.expect("somebody's turn");
            at_it = turn.ok();
            order.push(waits.remove(at).0);
        }
        assert_eq!(order, ["storm", "b", "c", "storm", "b", "storm", "storm", "storm"]);
        drop(at_it);
        assert!(turn(&turnstile, "b").await.is_ok(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_line_gives_up_its_newest_when_there_is_no_room() {
        let turnstile = Turnstile::new(1, 4);
        let at_it = turn(&turnstile, "storm").await.expect("a turn");
        let mut storm: Vec<Wait> = (0..4).map(|_| wait(&turnstile, "storm")).collect();
        assert!(!turnstile.has_room(&tenant("storm")) && turnstile.has_room(&tenant("b")));
        assert_eq!(turn(&turnstile, "storm").await.err(), Some(Missed::Full));
        let mut others = [wait(&turnstile, "b"), wait(&turnstile, "b")];
        for (at, wait) in storm.iter_mut().enumerate() {
            let missed = now(wait).map(Result::err);
            assert_eq!(missed, (at >= 2).then_some(Some(Missed::Full)), "number {at}");
        }
        // Both have half of it, and nobody takes anything from the other any more.
        for name in ["storm", "b"] {
            assert!(!turnstile.has_room(&tenant(name)));
            assert_eq!(turn(&turnstile, name).await.err(), Some(Missed::Full), "{name}");
        }
        drop(at_it);
        assert!(now(&mut storm[0]).is_some_and(|turn| turn.is_ok()));
        assert!(now(&mut others[0]).is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_never_lost_with_one_who_went_away() {
        let turnstile = Turnstile::new(1, 2);
        let at_it = turn(&turnstile, "a").await.expect("a turn");
        let (gone, mut other) = (wait(&turnstile, "a"), wait(&turnstile, "b"));
        drop(gone);
        drop(at_it);
        let at_it = now(&mut other).expect("the other's turn").expect("a turn");
        // One to whom it was given and who goes before looking.
        let given = wait(&turnstile, "a");
        drop(at_it);
        drop(given);
        assert!(turn(&turnstile, "b").now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_too_long_leaves_room() {
        let turnstile = Turnstile::new(1, 2);
        let _at_it = turn(&turnstile, "a").await.expect("a turn");
        let (first, second) = tokio::join!(turn(&turnstile, "a"), turn(&turnstile, "a"));
        assert_eq!([first.err(), second.err()], [Some(Missed::Late); 2]);
        assert!(turnstile.has_room(&tenant("a")));
        drop(wait(&turnstile, "a"));
    }
}
