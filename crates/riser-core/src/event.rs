//! Events: what happened once. Stored before they are acknowledged, and replayed by cursor.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Address, text_serde};
use crate::json::Json;
use crate::path::Path;
use crate::text::short_text;

/// Longest `id` of an event, in bytes.
pub const EVENT_ID_BYTES: usize = 128;
/// Longest `type` of an event, in bytes.
pub const EVENT_TYPE_BYTES: usize = 64;

/// Something that happened at an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Where.
    pub of: Address,
    /// The sender's own name for it: the same one from the same sender to the same address is the same event.
    pub id: EventId,
    /// Which device or property; none when it is about the address itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// What kind of event.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// Who sent it: `gateway:` and its address, or `client:` and its subject.
    pub from: String,
    /// When it was stored, Unix milliseconds on the store's clock.
    pub at_ms: u64,
    /// The sender's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts_ms: Option<i64>,
}

/// Why the name of an event was refused. It never repeats the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// Not an id.
    #[error("not an event id: 1 to 128 bytes without control characters")]
    Id,
    /// Not a type.
    #[error("not an event type: 1 to 64 bytes without control characters")]
    Type,
}

short_text!(
    /// A sender's name for an event.
    EventId, EVENT_ID_BYTES, EventNameError, EventNameError::Id
);
short_text!(
    /// What kind of event it is.
    EventType, EVENT_TYPE_BYTES, EventNameError, EventNameError::Type
);

/// A position in a tenant's stored events: after the event with this number, in this life of the stream. A stream that
/// was lost and made again has another life, so that an old position is seen to be meaningless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Which life of the stream; 0 before the tenant's first event ever.
    pub life: u64,
    /// The number of the last event before the position; 0 at the beginning.
    pub seq: u64,
}

/// Why a cursor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that this cluster gave")]
pub struct CursorError;

impl Cursor {
    /// Before everything.
    pub const START: Cursor = Cursor { life: 0, seq: 0 };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.life, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(s: &str) -> Result<Self, CursorError> {
        let (life, seq) = s.split_once('.').ok_or(CursorError)?;
        let number = |s: &str| {
            let canonical = s == "0" || !s.starts_with(['0', '+']);
            u64::from_str_radix(s, 16).ok().filter(|_| canonical).ok_or(CursorError)
        };
        Ok(Self { life: number(life)?, seq: number(seq)? })
    }
}

text_serde!(Cursor);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_prints_and_nothing_else_does() {
        for cursor in [Cursor::START, Cursor { life: 1 << 63, seq: u64::MAX }, Cursor { life: 10, seq: 1 }] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "-1.0", "+1.0", "01.0", "g.0", "1ffffffffffffffff.0", "1.0 "] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad:?}");
        }
    }

    #[test]
    fn names_of_events_are_short_and_visible() {
        for bad in ["", "a\n", "a\u{202e}", &"x".repeat(129)] {
            assert!(bad.parse::<EventId>().is_err(), "{bad:?}");
        }
        assert!("01J… any text".parse::<EventId>().is_ok());
        assert!("x".repeat(65).parse::<EventType>().is_err());
    }
}
