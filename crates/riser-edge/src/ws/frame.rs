//! Makes the frames that a server sends: unmasked, never fragmented, and as `Bytes`, so that one encoding is shared by
//! every connection that it goes to.

use bytes::Bytes;

/// The most payload bytes that a control frame can carry (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// The most bytes of a close frame's reason: a control frame's payload less the code.
pub const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// A ping without payload, which is all that a heartbeat needs.
pub(super) const EMPTY_PING: &[u8] = &[FIN | PING, 0];

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A text message in one frame.
pub fn text(payload: &str) -> Bytes {
    encode(TEXT, payload.as_bytes())
}

/// A binary message in one frame.
pub fn binary(payload: &[u8]) -> Bytes {
    encode(BINARY, payload)
}

/// A ping. Of the payload the first [`MAX_CONTROL_BYTES`] are sent.
pub fn ping(payload: &[u8]) -> Bytes {
    encode(PING, cut(payload))
}

/// The answer to a ping. Of the payload the first [`MAX_CONTROL_BYTES`] are sent.
pub fn pong(payload: &[u8]) -> Bytes {
    encode(PONG, cut(payload))
}

/// A close frame. A reason over [`MAX_REASON_BYTES`] is cut before the character that would not fit.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    encode(CLOSE, &payload)
}

/// A close frame without a code, the answer to one without a code.
pub fn close_empty() -> Bytes {
    encode(CLOSE, &[])
}

fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_BYTES)]
}

fn encode(opcode: u8, payload: &[u8]) -> Bytes {
    let length = payload.len();
    // Sized exactly, so that turning it into `Bytes` moves nothing.
    let header = match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    let mut out = Vec::with_capacity(header + length);
    out.push(FIN | opcode);
    if let Ok(short) = u8::try_from(length)
        && short <= 125
    {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    out.extend_from_slice(payload);
    Bytes::from(out)
}
