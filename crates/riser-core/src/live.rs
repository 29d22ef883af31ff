//! Live streams: what is said now or never. The header of a binary frame, and what is known of an open stream.

use serde::{Deserialize, Serialize};

use crate::id::{Address, EdgeId};
use crate::json::Json;
use crate::path::Path;

/// Bytes of the header before the payload of a binary frame.
pub const HEADER_BYTES: usize = 16;
/// Longest `params` of a stream, in bytes of JSON text.
pub const PARAMS_BYTES: usize = 1_024;
/// The flags that are known: the last frame of a talk spurt.
const FLAGS: u8 = 1;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Opus packets.
    Opus,
    /// Samples of 16 bits, little-endian.
    Pcm16,
    /// G.711 A-law.
    G711a,
    /// G.711 µ-law.
    G711u,
    /// Positions of what moves.
    Position,
    /// Anything else.
    Other,
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [StreamKind; 6] = [Self::Opus, Self::Pcm16, Self::G711a, Self::G711u, Self::Position, Self::Other];

    /// The byte that stands for it in a header.
    pub fn byte(self) -> u8 {
        match self {
            Self::Opus => 1,
            Self::Pcm16 => 2,
            Self::G711a => 3,
            Self::G711u => 4,
            Self::Position => 5,
            Self::Other => 16,
        }
    }

    /// The kind that a byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The number of a stream, unique among the tenant's open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnd {
    /// Its opener closed it, or sent nothing for long.
    Closed,
    /// Its opener is gone.
    Lost,
}

impl StreamEnd {
    /// The word on the wire and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
        }
    }
}

/// An open stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// Where it is heard.
    pub of: Address,
    /// Which device or property it is about.
    pub path: Path,
    /// What it carries.
    pub kind: StreamKind,
    /// What the opener says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Json>,
    /// Who opened it: `gateway:` and its address, or `client:` and its subject.
    pub from: String,
    /// The edge of its opener.
    pub edge: EdgeId,
}

/// The header of a binary frame, big-endian (protocol.md §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: StreamKind,
    /// Whether it is the last frame of a talk spurt.
    pub last: bool,
    /// Which stream.
    pub stream: StreamId,
    /// Its number within the stream, wrapping.
    pub seq: u32,
    /// The sender's clock, milliseconds, wrapping.
    pub clock_ms: u32,
}

/// Why a binary message is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no whole header.
    #[error("a binary frame begins with a header of 16 bytes")]
    Short,
    /// Unknown kind.
    #[error("byte 0 of a binary frame is not a kind that is known")]
    Kind,
    /// Bits that are not known.
    #[error("byte 1 of a binary frame has a flag that is not known, or bytes 2 and 3 are not 0")]
    Reserved,
}

impl Header {
    /// Reads the header of a binary message.
    pub fn parse(message: &[u8]) -> Result<Self, HeaderError> {
        let head: &[u8; HEADER_BYTES] = message.first_chunk().ok_or(HeaderError::Short)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let kind = StreamKind::from_byte(head[0]).ok_or(HeaderError::Kind)?;
        if head[1] & !FLAGS != 0 || head[2] != 0 || head[3] != 0 {
            return Err(HeaderError::Reserved);
        }
        Ok(Self { kind, last: head[1] & FLAGS != 0, stream: StreamId(word(4)), seq: word(8), clock_ms: word(12) })
    }

    /// The header as it stands before a payload.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        head[0] = self.kind.byte();
        head[1] = u8::from(self.last);
        head[4..8].copy_from_slice(&self.stream.0.to_be_bytes());
        head[8..12].copy_from_slice(&self.seq.to_be_bytes());
        head[12..16].copy_from_slice(&self.clock_ms.to_be_bytes());
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_stands_in_sixteen_bytes_and_is_read_back() {
        let header =
            Header { kind: StreamKind::Opus, last: true, stream: StreamId(0x1234_5678), seq: 9, clock_ms: u32::MAX };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [1, 1, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Header::parse(&bytes), Ok(header));
        for kind in StreamKind::ALL {
            assert_eq!(StreamKind::from_byte(kind.byte()), Some(kind));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let good = Header { kind: StreamKind::Other, last: false, stream: StreamId(1), seq: 0, clock_ms: 0 }.to_bytes();
        assert_eq!(Header::parse(&good[..15]), Err(HeaderError::Short));
        for (at, byte, error) in [
            (0, 0, HeaderError::Kind),
            (0, 6, HeaderError::Kind),
            (1, 2, HeaderError::Reserved),
            (2, 1, HeaderError::Reserved),
            (3, 1, HeaderError::Reserved),
        ] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Header::parse(&bad), Err(error));
        }
    }
}
