//! The little of WebSocket, HTTP and MQTT that a generator needs.
//!
//! A library's connection has buffers of its own, 8 KiB in the crate that riser-client uses; sixteen thousand of them
//! would make the generator larger than what it measures. Servers here send whole, unmasked frames, so that reading
//! them is a few lines over a buffer that all connections of a process share.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// A text message.
pub(crate) const TEXT: u8 = 1;
/// A binary message.
pub(crate) const BINARY: u8 = 2;
/// The end.
pub(crate) const CLOSE: u8 = 8;
/// A heartbeat that wants an answer.
pub(crate) const PING: u8 = 9;
/// The answer to a heartbeat.
pub(crate) const PONG: u8 = 10;

/// Largest message that is taken, in bytes: a snapshot's part is about 48 KiB, an HTTP answer up to a megabyte.
pub(crate) const MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// Masks need not be random where nothing is in between, but a server must have bytes to unmask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Lengths that say that the real one follows, in two and in eight bytes.
const MEDIUM: u8 = 0x7e;
const LONG: u8 = 0x7f;

/// One frame as a client sends it.
pub(crate) fn frame(op: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | op);
    if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        out.push(MASKED | MEDIUM);
        out.extend(medium.to_be_bytes());
    } else {
        out.push(MASKED | LONG);
        out.extend((payload.len() as u64).to_be_bytes());
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The first frame of `bytes`: its kind, its payload, and how long it is in all. None when some of it is missing.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let &[head, length, ref rest @ ..] = bytes else { return Ok(None) };
    if head >> 4 != FIN >> 4 || length & MASKED != 0 {
        bail!("a frame that is fragmented, masked or compressed");
    }
    let (length, rest) = match (length, rest) {
        (126, &[a, b, ref rest @ ..]) => (usize::from(u16::from_be_bytes([a, b])), rest),
        (127, rest) => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (usize::try_from(u64::from_be_bytes(*length))?, rest),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (short, rest) => (usize::from(short), rest),
    };
    if length > MESSAGE_BYTES {
        bail!("a message over {MESSAGE_BYTES} bytes");
    }
    let whole = bytes.len() - rest.len() + length;
    Ok(rest.get(..length).map(|payload| (head & 15, payload, whole)))
}

/// The server's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    code: u16,
    /// What Riser says of coming back.
    retry_after_ms: Option<u64>,
}

impl Closed {
    /// From a close frame's payload.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        Self { code, retry_after_ms: number_after(payload, br#""retry_after_ms":"#) }
    }

    /// Whether Riser asks to come back.
    pub(crate) fn is_for_now(&self) -> bool {
        (4_000..4_500).contains(&self.code)
    }

    /// After how many seconds, if it says so.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_ms.map(|ms| ms.div_ceil(1_000))
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "closed: {}", self.code)
    }
}

impl std::error::Error for Closed {}

/// The head of an upgrade.
pub(crate) fn upgrade(path: &str, subprotocol: Option<&str>, bearer: Option<&str>) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    if let Some(name) = subprotocol {
        // Writing to a string cannot fail, here and below.
        let _ = write!(head, "Sec-WebSocket-Protocol: {name}\r\n");
    }
    if let Some(token) = bearer {
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    head.push_str("\r\n");
    head
}

/// Where a head of HTTP ends.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, by its lower-case name.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of an HTTP answer.
pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The number right behind `bytes`' first occurrence of `mark`.
pub(crate) fn number_after(bytes: &[u8], mark: &[u8]) -> Option<u64> {
    digits(&bytes[memchr::memmem::find(bytes, mark)? + mark.len()..])
}

/// The number that `bytes` begin with.
pub(crate) fn digits(bytes: &[u8]) -> Option<u64> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..length]).ok()?.parse().ok()
}

/// The text between `mark` and the next quotation mark.
pub(crate) fn text_after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a str> {
    let rest = &bytes[memchr::memmem::find(bytes, mark)? + mark.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

/// MQTT 3.1.1, as much as publishing and subscribing on one topic takes.
pub(crate) mod mqtt {
    /// The topic that all publish on.
    const TOPIC: &[u8] = b"b0/g0";

    /// A session of its own, without credentials and without a keep-alive.
    pub(crate) fn connect(name: &str) -> Vec<u8> {
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut body, name.as_bytes());
        packet(0x10, &body)
    }

    /// Subscribes with QoS 0.
    pub(crate) fn subscribe() -> Vec<u8> {
        let mut body = vec![0, 1];
        text(&mut body, TOPIC);
        body.push(0);
        packet(0x82, &body)
    }

    /// Publishes with QoS 0, or with QoS 1 under a packet's number.
    pub(crate) fn publish(number: Option<u16>, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, TOPIC);
        if let Some(number) = number {
            body.extend(number.to_be_bytes());
        }
        body.extend(payload);
        packet(if number.is_some() { 0x32 } else { 0x30 }, &body)
    }

    fn text(out: &mut Vec<u8>, bytes: &[u8]) {
        // Names and topics here are short.
        out.extend(u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
        out.extend(bytes);
    }

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        let mut left = body.len();
        loop {
            let low = u8::try_from(left % 128).unwrap_or(0);
            left /= 128;
            out.push(if left > 0 { low | 128 } else { low });
            if left == 0 {
                break;
            }
        }
        out.extend(body);
        out
    }

    /// The packets of `bytes`: the first byte and the body of each that is whole.
    pub(crate) fn packets(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
        std::iter::from_fn(move || {
            let (&first, mut rest) = bytes.split_first()?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                length |= usize::from(byte & 127) << shift;
                shift += 7;
                if byte & 128 == 0 || shift > 21 {
                    break;
                }
            }
            let body = rest.get(..length)?;
            bytes = &rest[length..];
            Some((first, body))
        })
    }
}

/// Centrifugo's JSON protocol, as much as publishing and subscribing on one channel takes.
pub(crate) mod centrifugo {
    /// The first command.
    pub(crate) const CONNECT: &[u8] = br#"{"id":1,"connect":{}}"#;
    /// The second one of those who listen.
    pub(crate) const SUBSCRIBE: &[u8] = br#"{"id":2,"subscribe":{"channel":"all"}}"#;
    /// A heartbeat, and the answer to it.
    pub(crate) const BEAT: &[u8] = b"{}";

    /// Publishes under a number that the answer repeats.
    pub(crate) fn publish(number: u16, data: &str) -> String {
        format!(r#"{{"id":{number},"publish":{{"channel":"all","data":{data}}}}}"#)
    }

    /// What a message holds: objects, one on a line.
    pub(crate) fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
        message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }

    /// Which command a line answers; an error when it was refused. None when it answers nothing.
    pub(crate) fn answer(line: &[u8]) -> Option<Result<u16, u16>> {
        let number = u16::try_from(super::digits(line.strip_prefix(br#"{"id":"#)?)?).ok()?;
        let refused = memchr::memmem::find(&line[..line.len().min(32)], br#""error":"#).is_some();
        Some(if refused { Err(number) } else { Ok(number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame.
    fn server(op: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![FIN | op];
        match payload.len() {
            n @ 0..126 => out.push(u8::try_from(n).expect("short")),
            n => {
                out.push(126);
                out.extend(u16::try_from(n).expect("medium").to_be_bytes());
            }
        }
        out.extend(payload);
        out
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let long = vec![b'x'; 300];
        let bytes = [server(TEXT, b"one"), server(PING, b""), server(BINARY, &long)].concat();
        for cut in 0..bytes.len() {
            let (mut kept, mut seen) = (Vec::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                kept.extend_from_slice(part);
                while let Some((op, payload, whole)) = first(&kept).expect("good frames") {
                    seen.push((op, payload.to_vec()));
                    kept.drain(..whole);
                }
            }
            assert_eq!(seen, [(TEXT, b"one".to_vec()), (PING, vec![]), (BINARY, long.clone())], "cut at {cut}");
        }
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        for bad in [&[0x01_u8, 0][..], &[0x81, 0x80], &[0xc1, 0], &[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]] {
            assert!(first(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_frame_of_ours_is_masked_and_counts_its_bytes() {
        let mut out = Vec::new();
        frame(TEXT, b"ab", &mut out);
        assert_eq!(out, [0x81, 0x82, 0x37, 0xfa, 0x21, 0x3d, b'a' ^ 0x37, b'b' ^ 0xfa]);
        for (length, head) in [(125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let mut out = Vec::new();
            frame(BINARY, &vec![0; length], &mut out);
            assert_eq!(out.len(), head + length, "{length}");
        }
    }

    #[test]
    fn an_end_says_whether_to_come_back() {
        let end = |code: u16, reason: &str| Closed::of(&[&code.to_be_bytes(), reason.as_bytes()].concat());
        assert_eq!(end(4003, r#"{"retry_after_ms":1500}"#).retry_after_s(), Some(2));
        assert_eq!(end(4004, "").retry_after_s(), None);
        assert_eq!([4_003, 4_004, 4_502, 1_009].map(|code| end(code, "").is_for_now()), [true, true, false, false]);
        assert_eq!(
            (end(4006, "").to_string(), Closed::of(b"").to_string()),
            ("closed: 4006".into(), "closed: 1005".into())
        );
    }

    #[test]
    fn values_are_found_in_text() {
        let text = br#"{"t":"outcome","cmd":"b0.g1.x","data":123456,"at_ms":1}"#;
        assert_eq!(number_after(text, b"\"data\":"), Some(123_456));
        assert_eq!(number_after(text, b"\"cmd\":"), None);
        assert_eq!(text_after(text, b"\"cmd\":\""), Some("b0.g1.x"));
        let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-after: 7\r\n\r\n";
        assert_eq!((status(head), header(head, "retry-after"), header(head, "age")), (503, Some("7"), None));
    }

    #[test]
    fn packets_of_mqtt_come_apart_again() {
        let long = vec![b'x'; 200];
        let bytes = [mqtt::publish(Some(7), &long), mqtt::subscribe(), mqtt::publish(None, b"a")].concat();
        let packets: Vec<_> = mqtt::packets(&bytes).collect();
        assert_eq!(
            packets.iter().map(|(first, body)| (*first, body.len())).collect::<Vec<_>>(),
            [(0x32, 209), (0x82, 10), (0x30, 8)]
        );
        assert_eq!(mqtt::packets(&bytes[..50]).count(), 0, "what is not whole is no packet");
    }

    #[test]
    fn answers_of_centrifugo_are_told_from_what_else_stands_in_a_message() {
        let message =
            b"{\"id\":7,\"publish\":{}}\n{}\n{\"push\":{\"channel\":\"all\"}}\n{\"id\":8,\"error\":{\"code\":103}}\n";
        let answers: Vec<_> = centrifugo::lines(message).map(centrifugo::answer).collect();
        assert_eq!(answers, [Some(Ok(7)), None, None, Some(Err(8))]);
        assert_eq!(centrifugo::lines(message).filter(|line| *line == centrifugo::BEAT).count(), 1);
    }
}
