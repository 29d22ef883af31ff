//! Addresses from which wrong API keys come again and again are not listened to for a while.
//!
//! Nobody guesses 256 bits; this keeps a program that tries from costing more than an answer, and makes it seen. It is
//! about API keys alone. A wrong key names no tenant, so that addresses are counted by themselves. Tokens are left out on
//! purpose: many flats stand behind one address, and one of them could lock out the gateways of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admission::site;

/// How many wrong keys may come from an address within [`WINDOW`]. Somebody who pastes the wrong one tries a few times;
/// a back end with a revoked one tries again all day, and is slowed.
pub(crate) const WRONG: u32 = 100;
/// In which time they are counted, and for how long an address is locked out afterwards.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted at a time. Beyond that, new ones are not: they are served as if they had tried nothing.
const ADDRESSES: usize = 16_384;

#[derive(Default)]
pub(crate) struct Lockout(Mutex<HashMap<IpAddr, Wrong>>);

struct Wrong {
    since: Instant,
    count: u32,
}

impl Lockout {
    /// Whether keys from this address are not even looked at.
    pub(crate) fn holds(&self, from: IpAddr) -> bool {
        let wrong = self.0.lock();
        wrong.get(&site(from)).is_some_and(|wrong| wrong.count >= WRONG && wrong.since.elapsed() < WINDOW)
    }

    /// Counts a wrong key. True when the address is locked out with it.
    pub(crate) fn count(&self, from: IpAddr) -> bool {
        let (site, now) = (site(from), Instant::now());
        let mut all = self.0.lock();
        if all.len() >= ADDRESSES && !all.contains_key(&site) {
            all.retain(|_, wrong| wrong.since.elapsed() < WINDOW);
            if all.len() >= ADDRESSES {
                return false;
            }
        }
        let wrong = all.entry(site).or_insert(Wrong { since: now, count: 0 });
        if wrong.since.elapsed() >= WINDOW {
            *wrong = Wrong { since: now, count: 0 };
        }
        wrong.count += 1;
        if wrong.count == WRONG {
            // The whole time from here.
            wrong.since = now;
        }
        wrong.count == WRONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_locked_out_for_a_minute_and_no_other_is() {
        let lockout = Lockout::default();
        let (guesser, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for i in 1..=WRONG {
            assert!(!lockout.holds(guesser), "after {i}");
            assert_eq!(lockout.count(guesser), i == WRONG);
        }
        assert!(lockout.holds(guesser) && lockout.holds(ip("::ffff:192.0.2.1")) && !lockout.holds(other));
        tokio::time::advance(WINDOW).await;
        assert!(!lockout.holds(guesser));
        assert!(!lockout.count(guesser), "counted from the start again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_is_one_address_and_slow_mistakes_are_none() {
        let lockout = Lockout::default();
        for i in 0..WRONG {
            lockout.count(ip(&format!("2001:db8::{i:x}")));
        }
        assert!(lockout.holds(ip("2001:db8::ffff")) && !lockout.holds(ip("2001:db8:0:1::1")));
        for _ in 0..2 * WRONG {
            tokio::time::advance(WINDOW / WRONG * 2).await;
            assert!(!lockout.count(ip("192.0.2.9")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_is_bounded() {
        let lockout = Lockout::default();
        for i in 0..u32::try_from(ADDRESSES).expect("few") + 10 {
            lockout.count(IpAddr::V4(i.into()));
        }
        assert_eq!(lockout.0.lock().len(), ADDRESSES);
        tokio::time::advance(WINDOW).await;
        lockout.count(ip("192.0.2.1"));
        assert_eq!(lockout.0.lock().len(), 1);
    }
}
