//! The decoder: bytes of a client in, messages out, without I/O.
//!
//! It refuses everything that RFC 6455 forbids a client. It allocates nothing because of a length that was announced,
//! only for bytes that have arrived and cannot be passed on yet; an idle decoder holds no heap memory at all.

use std::ops::ControlFlow;

use super::violation::Violation;

/// The largest messages that are accepted, in bytes of payload over all fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a text message.
    pub text_bytes: u32,
    /// For a binary message.
    pub binary_bytes: u32,
}

impl Default for Limits {
    /// What the protocol promises to accept: 64 KiB of text, 16 KiB of binary.
    fn default() -> Self {
        Self { text_bytes: 65_536, binary_bytes: 16_384 }
    }
}

/// What a client sent, lent for as long as it is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message, joined from its fragments.
    Text(&'a str),
    /// A whole binary message, joined from its fragments.
    Binary(&'a [u8]),
    /// A ping, which may come between fragments.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The client closes, with its code when it gave one. Nothing that comes after it is decoded.
    Close(Option<u16>, &'a str),
}

/// How far [`Decoder::feed`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that were used. What is left over must come first in the next call.
    pub bytes: usize,
    /// Frames that began, control frames and empty fragments included.
    pub frames: u32,
}

/// A server's decoder of one client's stream.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Payload of the open message that could not be lent yet. Capacity 0 whenever no message is incomplete.
    kept: Vec<u8>,
    /// An incomplete header, or the incomplete payload of a control frame. There is never one of each.
    partial: Option<Box<Partial>>,
    /// Bytes of the current frame's payload that are still to come.
    left: u32,
    /// The current frame's mask, turned so that its first byte is the next to be used.
    mask: [u8; 4],
    /// How much of `kept` is known to be UTF-8; only characters that may still be completed are beyond it.
    valid: u32,
    at: At,
    /// Whether the current frame is its message's last.
    last: bool,
    /// The kind of the message whose final fragment has not come.
    open: Option<Data>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Header,
    Data(Data),
    Control(Control),
    /// After a close frame or a violation.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Close,
    Ping,
    Pong,
}

/// Room for the largest control payload; the largest header is smaller.
#[derive(Debug)]
struct Partial {
    length: u8,
    bytes: [u8; 125],
}

struct Header {
    kind: At,
    last: bool,
    length: u32,
    mask: [u8; 4],
}

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const MAX_HEADER_BYTES: usize = 14;

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            kept: Vec::new(),
            partial: None,
            left: 0,
            mask: [0; 4],
            valid: 0,
            at: At::Header,
            last: false,
            open: None,
        }
    }

    /// Decodes `input`, in place, and hands each message to `on` as soon as it is complete.
    ///
    /// It stops before a frame when `frames` of them have begun, after a message for which `on` breaks, and after a
    /// close frame. After a close frame or a violation all input counts as used and is ignored.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        frames: u32,
        on: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<Fed, Violation> {
        let result = self.decode(input, frames, on);
        if result.is_err() {
            self.kept = Vec::new();
            self.partial = None;
            self.at = At::End;
        }
        result
    }

    /// Heap bytes that are held because of an incomplete frame or message. At most twice what has arrived of it.
    pub fn held_bytes(&self) -> usize {
        self.kept.capacity() + self.partial.as_ref().map_or(0, |_| size_of::<Partial>())
    }

    fn decode(
        &mut self,
        input: &mut [u8],
        frames: u32,
        on: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<Fed, Violation> {
        let mut fed = Fed { bytes: 0, frames: 0 };
        loop {
            let rest = &mut input[fed.bytes..];
            let (used, flow) = match self.at {
                At::End => {
                    fed.bytes = input.len();
                    return Ok(fed);
                }
                At::Header => {
                    if rest.is_empty() || fed.frames == frames {
                        return Ok(fed);
                    }
                    let (used, complete) = self.header(rest)?;
                    fed.frames += u32::from(complete);
                    (used, ControlFlow::Continue(()))
                }
                _ if rest.is_empty() && self.left > 0 => return Ok(fed),
                At::Data(kind) => self.data(kind, rest, on)?,
                At::Control(kind) => self.control(kind, rest, on)?,
            };
            fed.bytes += used;
            if flow.is_break() {
                return Ok(fed);
            }
        }
    }

    /// Takes a header, or as much of it as is there, from `input`. Tells how many bytes that were, and whether the
    /// header is complete.
    fn header(&mut self, input: &[u8]) -> Result<(usize, bool), Violation> {
        let Some(partial) = &mut self.partial else {
            return Ok(if let Some((header, used)) = self.parse(input)? {
                self.begin(&header);
                (used, true)
            } else {
                self.partial = Some(Box::new(Partial::new(input)));
                (input.len(), false)
            });
        };
        let before = usize::from(partial.length);
        let fresh = input.len().min(MAX_HEADER_BYTES - before);
        let mut bytes = [0; MAX_HEADER_BYTES];
        bytes[..before].copy_from_slice(partial.as_slice());
        bytes[before..before + fresh].copy_from_slice(&input[..fresh]);
        if let Some((header, used)) = self.parse(&bytes[..before + fresh])? {
            self.partial = None;
            self.begin(&header);
            Ok((used - before, true))
        } else {
            self.partial = Some(Box::new(Partial::new(&bytes[..before + fresh])));
            Ok((fresh, false))
        }
    }

    /// Reads a header from the start of `bytes`. Each byte is judged as soon as it is there: a peer that announces too
    /// much and falls silent is refused at once.
    fn parse(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let kind = self.kind(first)?;
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let short = second & 0x7F;
        if short > 125 && matches!(kind, At::Control(_)) {
            return Err(Violation::LongControl);
        }
        let (length, mask_at) = match short {
            126 => {
                let Some(&field) = bytes[2..].first_chunk() else {
                    return Ok(None);
                };
                (shortest(u64::from(u16::from_be_bytes(field)), 126)?, 4)
            }
            127 => {
                let Some(&field) = bytes[2..].first_chunk() else {
                    return Ok(None);
                };
                (shortest(u64::from_be_bytes(field), 0x1_0000)?, 10)
            }
            short => (u64::from(short), 2),
        };
        let length = self.within_limit(kind, length)?;
        let Some(&mask) = bytes[mask_at..].first_chunk() else {
            return Ok(None);
        };
        let last = first & 0x80 != 0;
        Ok(Some((Header { kind, last, length, mask }, mask_at + 4)))
    }

    /// What a frame with this first byte is, if it may come now.
    fn kind(&self, first: u8) -> Result<At, Violation> {
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let data = match first & 0x0F {
            0x0 => return self.open.map(At::Data).ok_or(Violation::StrayContinuation),
            0x1 => Data::Text,
            0x2 => Data::Binary,
            opcode => {
                let control = match opcode {
                    0x8 => Control::Close,
                    0x9 => Control::Ping,
                    0xA => Control::Pong,
                    _ => return Err(Violation::ReservedOpcode),
                };
                let last = first & 0x80 != 0;
                return if last { Ok(At::Control(control)) } else { Err(Violation::FragmentedControl) };
            }
        };
        if self.open.is_some() { Err(Violation::InterruptedMessage) } else { Ok(At::Data(data)) }
    }

    /// The announced length, if with it the message stays within its limit.
    fn within_limit(&self, kind: At, length: u64) -> Result<u32, Violation> {
        let (limit, violation) = match kind {
            At::Data(Data::Text) => (self.limits.text_bytes, Violation::TextTooLarge),
            At::Data(Data::Binary) => (self.limits.binary_bytes, Violation::BinaryTooLarge),
            At::Header | At::Control(_) | At::End => (125, Violation::LongControl),
        };
        let before = if matches!(kind, At::Data(_)) { self.kept.len() as u64 } else { 0 };
        match u32::try_from(length) {
            Ok(small) if before + length <= u64::from(limit) => Ok(small),
            _ => Err(violation),
        }
    }

    fn begin(&mut self, header: &Header) {
        self.at = header.kind;
        self.left = header.length;
        self.mask = header.mask;
        if let At::Data(kind) = header.kind {
            self.open = Some(kind);
            self.last = header.last;
        }
    }

    /// Unmasks what is there of the current frame's payload. Returns it.
    fn payload<'a>(&mut self, input: &'a mut [u8]) -> &'a [u8] {
        let there = input.len().min(self.left as usize);
        let payload = &mut input[..there];
        unmask(payload, self.mask);
        self.mask.rotate_left(there % 4);
        // `there` is at most `left`, hence fits.
        self.left -= u32::try_from(there).unwrap_or(self.left);
        payload
    }

    fn data(
        &mut self,
        kind: Data,
        input: &mut [u8],
        on: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>), Violation> {
        let payload = self.payload(input);
        let used = payload.len();
        let complete = self.left == 0;
        if complete {
            self.at = At::Header;
        }
        if complete && self.last {
            self.open = None;
            if self.kept.is_empty() {
                return Ok((used, on(whole(kind, payload)?)));
            }
        }
        self.kept.extend_from_slice(payload);
        if kind == Data::Text {
            self.check_text()?;
        }
        if !(complete && self.last) {
            return Ok((used, ControlFlow::Continue(())));
        }
        // Taken, so that its memory is free again when this returns.
        let message = std::mem::take(&mut self.kept);
        self.valid = 0;
        Ok((used, on(whole(kind, &message)?)))
    }

    /// Looks at the text that was not looked at yet, so that bad text is refused before its message is complete.
    fn check_text(&mut self) -> Result<(), Violation> {
        let valid = self.valid as usize;
        let more = match std::str::from_utf8(&self.kept[valid..]) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Violation::TextUtf8),
        };
        // `kept` is within a limit that is a u32.
        self.valid = u32::try_from(valid + more).unwrap_or(self.valid);
        Ok(())
    }

    fn control(
        &mut self,
        kind: Control,
        input: &mut [u8],
        on: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>), Violation> {
        let payload = self.payload(input);
        let used = payload.len();
        if self.left > 0 {
            match &mut self.partial {
                Some(partial) => partial.push(payload),
                None => self.partial = Some(Box::new(Partial::new(payload))),
            }
            return Ok((used, ControlFlow::Continue(())));
        }
        self.at = At::Header;
        let joined = self.partial.take().map(|mut partial| {
            partial.push(payload);
            partial
        });
        let payload = joined.as_ref().map_or(payload, |partial| partial.as_slice());
        let message = match kind {
            Control::Ping => Message::Ping(payload),
            Control::Pong => Message::Pong(payload),
            Control::Close => {
                let message = close(payload)?;
                self.kept = Vec::new();
                self.at = At::End;
                message
            }
        };
        Ok((used, on(message)))
    }
}

impl Partial {
    /// Holds `bytes`, which are fewer than 125.
    fn new(bytes: &[u8]) -> Self {
        let mut partial = Self { length: 0, bytes: [0; 125] };
        partial.push(bytes);
        partial
    }

    fn push(&mut self, bytes: &[u8]) {
        let length = usize::from(self.length);
        self.bytes[length..length + bytes.len()].copy_from_slice(bytes);
        // The copy above has shown that the sum is at most 125.
        self.length += u8::try_from(bytes.len()).unwrap_or(0);
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

fn shortest(length: u64, least: u64) -> Result<u64, Violation> {
    if length >> 63 == 1 {
        Err(Violation::LengthTopBit)
    } else if length < least {
        Err(Violation::LengthNotMinimal)
    } else {
        Ok(length)
    }
}

fn whole(kind: Data, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match kind {
        Data::Text => std::str::from_utf8(payload).map(Message::Text).map_err(|_| Violation::TextUtf8),
        Data::Binary => Ok(Message::Binary(payload)),
    }
}

fn close(payload: &[u8]) -> Result<Message<'_>, Violation> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Message::Close(None, "")) } else { Err(Violation::CloseTruncated) };
    };
    let code = u16::from_be_bytes(code);
    if !may_be_sent(code) {
        return Err(Violation::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonUtf8)?;
    Ok(Message::Close(Some(code), reason))
}

/// Whether a peer may put `code` into a close frame: RFC 6455 §7.4 and what IANA has registered since.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Eight bytes at a time, which the compiler turns into vector instructions.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}
