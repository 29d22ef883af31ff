//! Live streams: what was said on them, and what each connection heard.
//!
//! A bus that repeats messages breaks its own contract, and is nobody's promise: a copy of what is said while it does may
//! come late, also to who was told of the stream between the two. Nothing else is excused by it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use super::model::{Found, Spans};
use crate::history::{Body, Event};

/// How long a frame may be on its way to the bus, in milliseconds.
const ON_ITS_WAY_MS: u64 = 500;

/// A stream: its tenant and its number.
type Stream = (String, u32);

#[derive(Default)]
pub(super) struct Live {
    /// What was said, and by which connection. A number may be used again once a stream is over.
    said: BTreeMap<(Stream, u32), Vec<Said>>,
    connections: BTreeMap<String, Hearer>,
    /// When the bus repeated messages.
    copies: Spans,
    heard: usize,
}

/// A frame as it was said.
struct Said {
    body: Body,
    speaker: String,
    at: u64,
}

/// What one connection was told.
#[derive(Default)]
struct Hearer {
    open: BTreeSet<u32>,
    /// The frames of each stream of each speaker.
    frames: BTreeMap<(u32, String), BTreeSet<u32>>,
    over: bool,
}

impl Live {
    /// How many frames were heard.
    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    /// The bus begins to repeat messages, or ends it.
    pub(super) fn copies(&mut self, at: u64, begins: bool) {
        if begins { self.copies.begin(at) } else { self.copies.end(at) }
    }

    /// Something that a connection of a peer did or saw.
    pub(super) fn event(&mut self, at: u64, tenant: &str, peer: &str, session: u32, event: &Event) -> Found {
        let me = format!("{tenant}/{peer}#{session}");
        let hearer = self.connections.entry(me.clone()).or_default();
        match event {
            Event::Closed { .. } | Event::Left { .. } => hearer.over = true,
            Event::Speaks { stream, seq, body } => {
                let of = ((tenant.to_owned(), *stream), *seq);
                self.said.entry(of).or_default().push(Said { body: body.clone(), speaker: me, at });
            }
            Event::Opened { stream, .. } => drop(hearer.open.insert(*stream)),
            Event::Shut { stream, .. } => drop(hearer.open.remove(stream)),
            Event::Hears { stream, seq, body } => {
                self.heard += 1;
                let of = ((tenant.to_owned(), *stream), *seq);
                let said = self.said.get(&of).into_iter().flatten().find(|said| said.body == *body);
                let Some(Said { speaker, at: said_at, .. }) = said else {
                    return vec![(Rule::Live, format!("frame {seq} of {stream} is not what was said"))];
                };
                let mut found = Vec::new();
                if *speaker == me {
                    found.push((Rule::Live, format!("frame {seq} of {stream} came back to its speaker")));
                }
                if !hearer.open.contains(stream) {
                    found.push((Rule::Live, format!("frame {seq} of {stream}, which is not open")));
                }
                let frames = hearer.frames.entry((*stream, speaker.clone())).or_default();
                let last = frames.last().copied();
                frames.insert(*seq);
                let copied = self.copies.touch(*said_at, said_at + ON_ITS_WAY_MS);
                if let Some(last) = last.filter(|last| seq <= last && !copied) {
                    found.push((Rule::Live, format!("frame {seq} of {stream} after {last}")));
                }
                return found;
            }
            _ => {}
        }
        Vec::new()
    }

    /// Nobody has spoken for more than a minute: nobody may think that somebody does.
    pub(super) fn end(&self) -> Found {
        let open = self.connections.iter().filter(|(_, hearer)| !hearer.over && !hearer.open.is_empty());
        open.map(|(who, hearer)| (Rule::Live, format!("{who} was never told that {:?} are over", hearer.open)))
            .collect()
    }
}
