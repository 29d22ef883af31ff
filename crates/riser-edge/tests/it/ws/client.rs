//! What a client puts on the wire, right or wrong, and what it reads there.

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;
pub(crate) const FIN: u8 = 0x80;
pub(crate) const MASKED: u8 = 0x80;

const MASK: [u8; 4] = [0xA1, 0x5B, 0x00, 0xFE];

/// A masked frame with this first byte, its length in the shortest form.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len() as u64);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// The header of a masked frame that announces `length`, and the mask.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        0..=125 => out.push(MASKED | u8::try_from(length).unwrap()),
        126..=0xFFFF => {
            out.push(MASKED | 0x7E);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            out.push(MASKED | 0x7F);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// One message in fragments that end at each of `cuts`.
pub(crate) fn fragments(opcode: u8, payload: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut from = 0;
    for &to in cuts {
        out.extend(frame(if out.is_empty() { opcode } else { CONTINUATION }, &payload[from..to]));
        from = to;
    }
    let last = if out.is_empty() { opcode } else { CONTINUATION };
    out.extend(frame(FIN | last, &payload[from..]));
    out
}

/// A frame of the server: its first byte and its payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, FIN | CLOSE, "not a close frame: {self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }

    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.first, FIN | TEXT, "not a text frame: {self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// The server's next frame; `None` when the stream ends before it or fails.
pub(crate) async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.ok()?;
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let length = match second {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Received { first, payload })
}
