//! How much of something each has, and no more than a share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts by whose they are. Who has none takes no memory, so that what is counted bounds it.
pub(super) struct Shares<K> {
    counts: Mutex<HashMap<K, usize>>,
    most: usize,
}

/// One of somebody's, given back when it is dropped.
pub(super) struct Share<K: Hash + Eq> {
    of: K,
    shares: Arc<Shares<K>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), most })
    }

    fn take(self: &Arc<Self>, of: &K) -> Option<Share<K>> {
        let mut counts = self.counts.lock();
        let count = counts.get(of).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        counts.insert(of.clone(), count + 1);
        drop(counts);
        Some(Share { of: of.clone(), shares: self.clone() })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.counts.lock().is_empty()
    }
}

/// Makes a share one of this one's; false, and as it was, when there is none left.
pub(super) fn count<K: Hash + Eq + Clone>(shares: &Arc<Shares<K>>, share: &mut Option<Share<K>>, of: &K) -> bool {
    if share.as_ref().is_some_and(|share| share.of == *of) {
        return true;
    }
    let taken = shares.take(of);
    let is_taken = taken.is_some();
    if is_taken {
        *share = taken;
    }
    is_taken
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = self.shares.counts.lock();
        match counts.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.of);
            }
        }
    }
}
