//! What is kept of one gateway besides its values, as the scripts write it: one line.

use riser_core::{Presence, Reason, Version};

use crate::{Holder, Lease};

/// Every reason, by its word.
const REASONS: [Reason; 8] = [
    Reason::Closed,
    Reason::Heartbeat,
    Reason::Error,
    Reason::EdgeLost,
    Reason::EdgeDrained,
    Reason::Revoked,
    Reason::Kicked,
    Reason::Takeover,
];

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) at_ms: u64,
    since_ms: u64,
    reason: Option<Reason>,
    pub(super) lease: Option<Lease>,
}

impl Head {
    /// Reads a head; none when it is something else. `lua/head.lua` writes it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let number = |words: &mut std::str::Split<'_, char>| words.next()?.parse::<u64>().ok();
        let (epoch, rev) = (number(&mut words)?, number(&mut words)?);
        let (at_ms, since_ms) = (number(&mut words)?, number(&mut words)?);
        let reason = match words.next()? {
            "-" => None,
            word => Some(REASONS.into_iter().find(|reason| reason.as_str() == word)?),
        };
        let (edge, start) = (words.next()?, number(&mut words)?);
        let lease = if edge == "-" { None } else { Some(Lease { edge: edge.parse().ok()?, start }) };
        let rest: Vec<_> = words.map(str::parse::<u64>).collect::<Result<_, _>>().ok()?;
        (rest.len() == 6).then(|| Self { version: Version::new(epoch, rev), at_ms, since_ms, reason, lease })
    }

    pub(super) fn presence(&self) -> Presence {
        Presence {
            online: self.lease.is_some(),
            since_ms: self.since_ms,
            epoch: self.version.epoch,
            reason: self.reason,
            edge: self.lease.as_ref().map(|lease| lease.edge.clone()),
        }
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        self.lease.as_ref().map(|lease| Holder { edge: lease.edge.clone(), epoch: self.version.epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_and_what_is_none_is_not() {
        let head = Head::parse(b"12 3 45 40 takeover e-1 18446744073709551615 0 1 44 2 30 1").expect("a head");
        assert_eq!((head.version, head.at_ms), (Version::new(12, 3), 45));
        let lease = head.lease.clone().expect("a lease");
        assert_eq!((lease.edge.as_str(), lease.start), ("e-1", u64::MAX));
        assert!(head.presence().online);
        assert_eq!(head.presence().reason, Some(Reason::Takeover));
        let offline = Head::parse(b"12 3 45 40 edge_lost - 0 0 1 44 2 30 1").expect("a head");
        assert_eq!((offline.lease.clone(), offline.holder()), (None, None));
        for bad in [
            &b""[..],
            b"12",
            b"{\"epoch\":12}",
            b"12 3 45 40 bored - 0 0 1 44 2 30 1",
            b"12 3 45 40 closed - 0 0 1 44 2 30",
            b"12 3 45 40 closed - 0 0 1 44 2 30 1 9",
            b"-12 3 45 40 closed - 0 0 1 44 2 30 1",
            b"12 3 45 40 closed a.b 1 0 1 44 2 30 1",
            b"\xff",
        ] {
            assert_eq!(Head::parse(bad), None, "{bad:?}");
        }
    }
}
