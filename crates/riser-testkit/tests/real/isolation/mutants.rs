//! Every name that may be wrong, and how.

use riser_core::mutants::{Side, confuse};

use super::pair::Pair;

/// How a tenant is wrong in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is not there: the same word stands there for all.
    Dropped,
    /// The other one is there.
    Swapped,
}

/// One name that is wrong in one way.
pub(super) struct Mutant {
    pub(super) name: String,
    /// Only the list of all streams shows it.
    pub(super) is_of_lists: bool,
    confuse: Box<dyn Fn(&Pair) + Send + Sync>,
}

impl Mutant {
    /// Every mutant there is.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![];
        add(&mut all, "subject", &riser_bus::Naming::WRITTEN, Side::Written);
        add(&mut all, "subject", &riser_bus::Naming::READ, Side::Read);
        add(&mut all, "key", &riser_registry::redis::Naming::WRITTEN, Side::Written);
        add(&mut all, "key", &riser_registry::redis::Naming::READ, Side::Read);
        all
    }

    /// Makes the names of two tenants wrong.
    pub(super) fn apply(&self, pair: &Pair) {
        (self.confuse)(pair);
    }
}

fn add<N>(all: &mut Vec<Mutant>, of: &str, namings: &[N], side: Side)
where
    N: std::fmt::Debug + Copy + Send + Sync + 'static,
{
    for &naming in namings {
        for how in [How::Dropped, How::Swapped] {
            let put = move |pair: &Pair| {
                let [a, b] = [0, 1].map(|whose| pair.of[whose].id.clone());
                let nobody: riser_core::TenantId = format!("x{}", pair.run).parse().expect("a tenant name");
                let (for_a, for_b) =
                    if how == How::Dropped { (nobody.clone(), nobody) } else { (b.clone(), a.clone()) };
                confuse(naming, side, a, for_a);
                confuse(naming, side, b, for_b);
            };
            let name = format!("{of} {naming:?} {side:?} {how:?}");
            let is_of_lists = name.starts_with("subject EventStream Read");
            all.push(Mutant { name, is_of_lists, confuse: Box::new(put) });
        }
    }
}
