//! Who may take up an edge's room before their session has begun, so that nobody's storm keeps all others out.
//!
//! At the [`Door`] are connections whose session has not begun: each has a [`Place`], and of one address and of one tenant
//! only so many may be there, as far as these are known. Before the [`Turnstile`] wait gateways whose credential is good: only so many
//! are fenced at once, and tenants take turns.

mod shares;
mod turnstile;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use riser_core::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use shares::{Share, Shares};
pub(crate) use turnstile::{Missed, Turnstile};

/// How much of an IPv6 address names a site: whoever has one address of it has all.
const SITE: u128 = u128::MAX << 64;

/// Why there is no place at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// All places are taken.
    All,
    /// One address has as many as it may have.
    Address,
    /// One tenant has as many as it may have.
    Tenant,
}

impl Crowded {
    /// A word of a closed set, fit for a metric's label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "busy",
            Self::Address => "busy_address",
            Self::Tenant => "busy_tenant",
        }
    }
}

/// The places for connections whose session has not begun.
pub(crate) struct Door {
    places: Arc<Semaphore>,
    addresses: Arc<Shares<IpAddr>>,
    tenants: Arc<Shares<TenantId>>,
}

/// A connection's place at the door, given back when it is dropped.
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    door: Arc<Door>,
    address: Option<Share<IpAddr>>,
    tenant: Option<Share<TenantId>>,
}

impl Door {
    /// So many places in all, and so many at most for one address and for one tenant.
    pub(crate) fn new(places: usize, each: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(places));
        Arc::new(Self { places, addresses: Shares::new(each), tenants: Shares::new(each) })
    }

    /// A place for a connection of which nothing is known yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place, Crowded> {
        let one = self.places.clone().try_acquire_owned().map_err(|_| Crowded::All)?;
        Ok(Place { _one: one, door: self.clone(), address: None, tenant: None })
    }
}

impl Place {
    /// Counts the place as one of this address' and of no other one's.
    pub(crate) fn of_address(&mut self, address: IpAddr) -> Result<(), Crowded> {
        if shares::count(&self.door.addresses, &mut self.address, &site(address)) {
            return Ok(());
        }
        Err(Crowded::Address)
    }

    /// Counts the place as one of this tenant's and of no other one's.
    pub(crate) fn of_tenant(&mut self, tenant: &TenantId) -> Result<(), Crowded> {
        if shares::count(&self.door.tenants, &mut self.tenant, tenant) { Ok(()) } else { Err(Crowded::Tenant) }
    }
}

/// What counts as one address.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & SITE)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn places(door: &Arc<Door>, addresses: &[&str]) -> Vec<Result<Place, Crowded>> {
        let enter = |text: &&str| {
            let mut place = door.enter()?;
            place.of_address(ip(text))?;
            Ok(place)
        };
        addresses.iter().map(enter).collect()
    }

    #[test]
    fn one_address_leaves_places_to_others() {
        let door = Door::new(3, 2);
        let taken = places(&door, &["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let errors: Vec<_> = taken.iter().map(|place| place.as_ref().err().copied()).collect();
        assert_eq!(errors, [None, None, Some(Crowded::Address), None, Some(Crowded::All)]);
        drop(taken);
        assert!(places(&door, &["10.0.0.1", "10.0.0.1", "10.0.0.2"]).iter().all(Result::is_ok));
        assert!(door.addresses.is_empty());
    }

    #[test]
    fn a_site_is_one_address_of_ipv6() {
        let door = Door::new(9, 1);
        let taken = places(&door, &["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]);
        assert_eq!(taken.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_place_counts_for_whom_it_was_taken_last() {
        let door = Door::new(9, 1);
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|name| name.parse().expect("a tenant"));
        let mut place = door.enter().expect("a place");
        assert_eq!([place.of_tenant(&a), place.of_tenant(&a), place.of_tenant(&b)], [Ok(()); 3]);
        let mut other = door.enter().expect("a place");
        assert_eq!(other.of_tenant(&b), Err(Crowded::Tenant));
        assert_eq!(other.of_tenant(&a), Ok(()));
        drop((place, other));
        assert!(door.tenants.is_empty());
    }
}
