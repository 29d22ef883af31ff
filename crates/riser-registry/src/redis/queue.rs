//! The open commands of one gateway, as they are kept: one line, so that counting them costs no look at their records.

use std::collections::BTreeMap;
use std::fmt::Write;

use riser_core::command::{Digest, Record};

use super::RedisRegistry;

/// What is known of an open command without its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) seq: u64,
    pub(super) digest: Digest,
    pub(super) deadline_at_ms: u64,
    pub(super) unsent: bool,
    pub(super) hold: bool,
}

impl Open {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            seq: record.seq,
            digest: record.cmd.digest,
            deadline_at_ms: record.deadline_at_ms,
            unsent: record.is_unsent(),
            hold: record.body.hold,
        }
    }
}

/// All of them, in the order of their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Queue(pub(super) Vec<Open>);

impl Queue {
    /// Reads a line; none when it is something else. The scripts read it too (`lua/open.lua`, `lua/latest.lua`).
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let open = |entry: &str| {
            let mut words = entry.split(' ');
            let seq = words.next()?.parse().ok()?;
            let digest = digest(words.next()?)?;
            let deadline_at_ms = words.next()?.parse().ok()?;
            let (unsent, hold) = match words.next()? {
                "uh" => (true, true),
                "un" => (true, false),
                "sh" => (false, true),
                "sn" => (false, false),
                _ => return None,
            };
            words.next().is_none().then_some(Open { seq, digest, deadline_at_ms, unsent, hold })
        };
        line.split_terminator(';').map(open).collect::<Option<_>>().map(Self)
    }

    /// The line; empty when there are none.
    pub(super) fn line(&self) -> String {
        let mut line = String::with_capacity(self.0.len() * 72);
        for open in &self.0 {
            let (sent, hold) = (if open.unsent { 'u' } else { 's' }, if open.hold { 'h' } else { 'n' });
            // Writing into a string does not fail.
            let _ = write!(line, "{} {} {} {sent}{hold};", open.seq, open.digest, open.deadline_at_ms);
        }
        line
    }

    /// Puts a record in its place, or takes it out when it is decided.
    pub(super) fn put(&mut self, record: &Record) {
        self.0.retain(|open| open.digest != record.cmd.digest);
        if record.decided().is_none() {
            let at = self.0.partition_point(|open| open.seq < record.seq);
            self.0.insert(at, Open::of(record));
        }
    }

    /// Those whose deadline has not passed.
    pub(super) fn waiting(&self, now_ms: u64) -> impl Iterator<Item = &Open> {
        self.0.iter().filter(move |open| open.deadline_at_ms > now_ms)
    }
}

pub(super) fn digest(hex: &str) -> Option<Digest> {
    let number = u128::from_str_radix(hex, 16).ok()?;
    (hex.len() == 32).then(|| Digest(number.to_be_bytes()))
}

impl RedisRegistry {
    /// Reads the open commands of a gateway. None are there when nothing is.
    pub(super) fn queue(&self, line: Option<&[u8]>) -> Queue {
        let Some(line) = line else { return Queue::default() };
        let queue = Queue::parse(line);
        self.link.bad("the open commands of a gateway", u64::from(queue.is_none()));
        queue.unwrap_or_default()
    }

    /// How many commands of each gateway wait to be sent for the first time.
    pub(super) fn unsent(&self, lines: Vec<(Vec<u8>, Vec<u8>)>, now_ms: u64) -> BTreeMap<String, usize> {
        let unsent = |(gateway, line): (Vec<u8>, Vec<u8>)| {
            let count = self.queue(Some(&line)).waiting(now_ms).filter(|open| open.unsent).count();
            Some((String::from_utf8(gateway).ok()?, count))
        };
        lines.into_iter().filter_map(unsent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let open = |place: u8, unsent, hold| Open {
            seq: place.into(),
            digest: Digest([place; 16]),
            deadline_at_ms: 10 * u64::from(place),
            unsent,
            hold,
        };
        let queue =
            Queue(vec![open(3, true, true), open(4, true, false), open(5, false, true), open(200, false, false)]);
        let line = queue.line();
        assert_eq!(Queue::parse(line.as_bytes()), Some(queue.clone()));
        assert_eq!(queue.waiting(40).count(), 2);
        assert_eq!((Queue::default().line().as_str(), Queue::parse(b"")), ("", Some(Queue::default())));
        for bad in ["x", "1 2 3 uh", "1 00 3 uh;", &line[1..line.len() - 2], &line.replace("uh", "hu")] {
            assert_eq!(Queue::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
