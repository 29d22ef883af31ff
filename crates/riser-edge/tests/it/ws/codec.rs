//! The decoder against everything that a client may and may not send.

use std::ops::ControlFlow;

use riser_edge::ws::{Decoder, Limits, Message, Violation};

use super::client::{
    BINARY, CLOSE, CONTINUATION, FIN, MASKED, PING, PONG, TEXT, close, fragments, frame as masked, header, text,
};

/// A message that has outlived its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(data) => Self::Binary(data.into()),
            Message::Ping(data) => Self::Ping(data.into()),
            Message::Pong(data) => Self::Pong(data.into()),
            Message::Close(code, reason) => Self::Close(code, reason.into()),
        }
    }
}

/// Decodes `bytes` in pieces that end at each of `cuts`: the messages, and how it ended.
pub(crate) fn decode_at(limits: Limits, bytes: &[u8], cuts: &[usize]) -> (Vec<Owned>, Result<(), Violation>) {
    let mut decoder = Decoder::new(limits);
    let mut messages = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let mut piece = bytes[from..to].to_vec();
        let fed = decoder.feed(&mut piece, u32::MAX, &mut |message| {
            messages.push(Owned::from(message));
            ControlFlow::Continue(())
        });
        match fed {
            Ok(fed) => assert_eq!(fed.bytes, piece.len()),
            Err(violation) => return (messages, Err(violation)),
        }
        from = to;
    }
    (messages, Ok(()))
}

fn decode(bytes: &[u8]) -> (Vec<Owned>, Result<(), Violation>) {
    let whole = decode_at(Limits::default(), bytes, &[]);
    let every: Vec<_> = (1..bytes.len()).collect();
    assert_eq!(decode_at(Limits::default(), bytes, &every), whole, "byte by byte it is something else");
    whole
}

fn violation(bytes: &[u8]) -> Violation {
    decode(bytes).1.expect_err("no violation was found")
}

#[test]
fn every_violation_of_the_framing_has_its_code() {
    let mut unmasked = masked(FIN | TEXT, b"");
    unmasked[1] = 0;
    let long = [MASKED | 0x7E, 0, 125, 0, 0, 0, 0];
    let longer = [MASKED | 0x7F, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0];
    let top = [MASKED | 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let all = [MASKED | 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    let begun = masked(TEXT, b"a");
    let rows: Vec<(Vec<u8>, Violation)> = vec![
        (unmasked, Violation::Unmasked),
        (masked(FIN | 0x40 | TEXT, b""), Violation::ReservedBits),
        (masked(FIN | 0x20 | BINARY, b""), Violation::ReservedBits),
        (masked(FIN | 0x10 | PING, b""), Violation::ReservedBits),
        (masked(PING, b""), Violation::FragmentedControl),
        (masked(PONG, b""), Violation::FragmentedControl),
        (masked(CLOSE, b""), Violation::FragmentedControl),
        (masked(FIN | PING, &[0; 126]), Violation::LongControl),
        (masked(FIN | PONG, &[0; 200]), Violation::LongControl),
        (masked(FIN | CLOSE, &vec![0x03; 70_000]), Violation::LongControl),
        ([&[FIN | TEXT], &long[..]].concat(), Violation::LengthNotMinimal),
        ([&[FIN | BINARY], &longer[..]].concat(), Violation::LengthNotMinimal),
        ([&[FIN | TEXT], &top[..]].concat(), Violation::LengthTopBit),
        ([&[FIN | BINARY], &all[..]].concat(), Violation::LengthTopBit),
        (masked(CONTINUATION, b"a"), Violation::StrayContinuation),
        (masked(FIN | CONTINUATION, b""), Violation::StrayContinuation),
        ([text("a"), masked(FIN | CONTINUATION, b"b")].concat(), Violation::StrayContinuation),
        ([begun.clone(), text("b")].concat(), Violation::InterruptedMessage),
        ([begun.clone(), masked(BINARY, b"b")].concat(), Violation::InterruptedMessage),
        ([masked(TEXT, b""), masked(TEXT, b"")].concat(), Violation::InterruptedMessage),
        (masked(FIN | CLOSE, &[0x03]), Violation::CloseTruncated),
        (close(1000, &[0xFF]), Violation::CloseReasonUtf8),
        (close(1000, &[0xE2, 0x82]), Violation::CloseReasonUtf8),
    ];
    for (bytes, expected) in rows {
        assert_eq!(violation(&bytes), expected, "{bytes:02X?}");
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(violation(&masked(FIN | opcode, b"")), Violation::ReservedOpcode, "{opcode}");
        assert_eq!(violation(&masked(opcode, b"")), Violation::ReservedOpcode, "{opcode}");
    }
}

#[test]
fn violations_close_with_the_codes_of_the_rfc() {
    use Violation as V;
    let framing = [
        V::ReservedBits,
        V::ReservedOpcode,
        V::Unmasked,
        V::FragmentedControl,
        V::LongControl,
        V::LengthNotMinimal,
        V::LengthTopBit,
        V::StrayContinuation,
        V::InterruptedMessage,
        V::CloseTruncated,
        V::CloseCode,
    ];
    let rows = framing.map(|violation| (violation, 1002)).into_iter().chain([
        (V::CloseReasonUtf8, 1007),
        (V::TextUtf8, 1007),
        (V::TextTooLarge, 1009),
        (V::BinaryTooLarge, 1009),
    ]);
    let mut names = std::collections::BTreeSet::new();
    for (violation, code) in rows {
        assert_eq!(violation.code(), code, "{violation:?}");
        assert!(names.insert(violation.as_str()), "{violation:?} shares its name");
    }
    assert_eq!(names.len(), 15);
}

#[test]
fn a_header_is_refused_at_its_first_wrong_byte() {
    let rows: [(&[u8], Violation); 6] = [
        (&[FIN | 0x40 | TEXT], Violation::ReservedBits),
        (&[FIN | 3], Violation::ReservedOpcode),
        (&[PING], Violation::FragmentedControl),
        (&[FIN], Violation::StrayContinuation),
        (&[FIN | TEXT, 5], Violation::Unmasked),
        (&[FIN | PING, MASKED | 0x7E], Violation::LongControl),
    ];
    for (bytes, expected) in rows {
        assert_eq!(violation(bytes), expected, "{bytes:02X?}");
    }
}

#[test]
fn close_codes_are_those_that_may_be_sent() {
    for code in (0..=u16::MAX).filter(|code| *code < 5_100 || *code > 65_400) {
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let (messages, end) = decode_at(Limits::default(), &close(code, "é".as_bytes()), &[]);
        if allowed {
            assert_eq!((messages, end), (vec![Owned::Close(Some(code), "é".into())], Ok(())), "{code}");
        } else {
            assert_eq!((messages, end), (vec![], Err(Violation::CloseCode)), "{code}");
        }
    }
    assert_eq!(decode(&masked(FIN | CLOSE, b"")).0, [Owned::Close(None, String::new())]);
}

#[test]
fn nothing_is_decoded_after_a_close_frame() {
    let bytes = [text("a"), close(1000, b""), text("b"), vec![0xFF; 100]].concat();
    let (messages, end) = decode(&bytes);
    assert_eq!(messages, [Owned::Text("a".into()), Owned::Close(Some(1000), String::new())]);
    assert_eq!(end, Ok(()));
}

#[test]
fn nothing_is_decoded_after_a_violation() {
    let mut decoder = Decoder::new(Limits::default());
    let mut never = |message: Message<'_>| panic!("{message:?}");
    let bad = [masked(TEXT, &[b'x'; 1_000]), masked(FIN | 3, b"")].concat();
    assert!(decoder.feed(&mut bad.clone(), u32::MAX, &mut never).is_err());
    assert_eq!(decoder.held_bytes(), 0);
    let fed = decoder.feed(&mut text("a"), u32::MAX, &mut never).unwrap();
    assert_eq!((fed.bytes, fed.frames), (7, 0));
}

#[test]
fn control_frames_may_come_between_fragments() {
    let bytes = [
        masked(TEXT, b"a"),
        masked(FIN | PING, &[7; 125]),
        masked(CONTINUATION, b""),
        masked(FIN | PONG, b""),
        masked(FIN | CONTINUATION, b"b"),
        masked(BINARY, b"c"),
        close(4999, b"x"),
    ]
    .concat();
    let expected = [
        Owned::Ping(vec![7; 125]),
        Owned::Pong(vec![]),
        Owned::Text("ab".into()),
        Owned::Close(Some(4999), "x".into()),
    ];
    assert_eq!(decode(&bytes), (expected.into(), Ok(())));
}

#[test]
fn empty_messages_are_messages() {
    let bytes = [
        text(""),
        masked(FIN | BINARY, b""),
        fragments(TEXT, b"", &[0, 0]),
        fragments(BINARY, b"", &[0]),
        masked(FIN | PING, b""),
    ]
    .concat();
    let expected = [
        Owned::Text(String::new()),
        Owned::Binary(vec![]),
        Owned::Text(String::new()),
        Owned::Binary(vec![]),
        Owned::Ping(vec![]),
    ];
    assert_eq!(decode(&bytes), (expected.into(), Ok(())));
}

const BAD_TEXTS: [&[u8]; 14] = [
    b"\x80",
    b"\xC0\xAF",
    b"\xC1\xBF",
    b"\xE0\x80\xAF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xF0\x80\x80\xAF",
    b"\xF4\x90\x80\x80",
    b"\xF5\x80\x80\x80",
    b"\xFE",
    b"\xFF",
    b"\xE2\x82a",
    b"\xF0\x9F\x98",
    b"\xC3",
];

#[test]
fn bad_text_is_refused_wherever_it_is_split() {
    for bad in BAD_TEXTS {
        for (before, after) in [("", ""), ("κόσμε", ""), ("", "z"), ("a€", "b")] {
            let payload = [before.as_bytes(), bad, after.as_bytes()].concat();
            for first in 0..=payload.len() {
                for second in first..=payload.len() {
                    let bytes = fragments(TEXT, &payload, &[first, second]);
                    let cuts: Vec<_> = (1..bytes.len()).collect();
                    for cuts in [&[][..], &cuts] {
                        let (messages, end) = decode_at(Limits::default(), &bytes, cuts);
                        assert_eq!((messages, end), (vec![], Err(Violation::TextUtf8)), "{payload:02X?}");
                    }
                }
            }
        }
    }
}

#[test]
fn good_text_passes_wherever_it_is_split() {
    let good = "aß€😀\u{10FFFF}\u{FFFF}\u{0}\u{D7FF}\u{E000}z";
    for first in 0..=good.len() {
        for second in first..=good.len() {
            let bytes = fragments(TEXT, good.as_bytes(), &[first, second]);
            assert_eq!(decode(&bytes), (vec![Owned::Text(good.into())], Ok(())), "{first} {second}");
        }
    }
}

#[test]
fn bad_text_is_refused_before_its_message_is_complete() {
    // The message goes on, in the same frame or in another, but not its text.
    let whole = masked(FIN | TEXT, &[b"ok \xF4\x90".as_slice(), &[0; 995]].concat());
    let begun = &whole[..header(FIN | TEXT, 1_000).len() + 5];
    assert_eq!(violation(begun), Violation::TextUtf8);
    let in_fragments = [masked(TEXT, b"ok \xED"), masked(CONTINUATION, b"\xA0")].concat();
    assert_eq!(violation(&in_fragments), Violation::TextUtf8);
}

#[test]
fn binary_may_hold_any_bytes() {
    let payload: Vec<u8> = (0..=255).rev().collect();
    assert_eq!(decode(&fragments(BINARY, &payload, &[3, 77])), (vec![Owned::Binary(payload)], Ok(())));
}

#[test]
fn the_limits_hold_to_the_byte_in_one_frame_and_in_one_byte_fragments() {
    let limits = Limits { text_bytes: 300, binary_bytes: 200 };
    for (opcode, limit, violation) in [(TEXT, 300, Violation::TextTooLarge), (BINARY, 200, Violation::BinaryTooLarge)] {
        for size in [limit - 1, limit, limit + 1] {
            let payload = vec![b'x'; size];
            let cuts: Vec<_> = (1..size).collect();
            for bytes in [masked(FIN | opcode, &payload), fragments(opcode, &payload, &cuts)] {
                let (messages, end) = decode_at(limits, &bytes, &[]);
                if size > limit {
                    assert_eq!((messages, end), (vec![], Err(violation)));
                } else {
                    assert_eq!(messages.len(), 1);
                    assert_eq!(end, Ok(()));
                }
            }
        }
    }
}

#[test]
fn the_default_limits_are_those_of_the_protocol() {
    let rows = [(TEXT, 65_536, Violation::TextTooLarge), (BINARY, 16_384, Violation::BinaryTooLarge)];
    for (opcode, limit, expected) in rows {
        let bytes = masked(FIN | opcode, &vec![b'x'; limit]);
        assert_eq!(decode_at(Limits::default(), &bytes, &[]).1, Ok(()));
        let bytes = masked(FIN | opcode, &vec![b'x'; limit + 1]);
        assert_eq!(decode_at(Limits::default(), &bytes, &[]), (vec![], Err(expected)));
    }
}

#[test]
fn a_claim_is_refused_by_its_header_and_allocates_nothing() {
    for length in [65_537, 1 << 31, 1 << 32, (1 << 32) + 5, (1 << 63) - 1] {
        let claim = header(FIN | TEXT, length);
        let mut decoder = Decoder::new(Limits::default());
        // The mask need not even have come.
        let mut silent = claim[..claim.len() - 4].to_vec();
        let end = decoder.feed(&mut silent, u32::MAX, &mut |message| panic!("{message:?}"));
        assert_eq!(end, Err(Violation::TextTooLarge), "{length}");
        assert_eq!(decoder.held_bytes(), 0);
    }
    let mut decoder = Decoder::new(Limits::default());
    let mut claim = header(FIN | TEXT, 65_536);
    decoder.feed(&mut claim, u32::MAX, &mut |message| panic!("{message:?}")).unwrap();
    assert_eq!(decoder.held_bytes(), 0, "memory for bytes that have not come");
    let mut sum = [masked(TEXT, &vec![b'x'; 60_000]), header(CONTINUATION, 5_537)].concat();
    let end = Decoder::new(Limits::default()).feed(&mut sum, u32::MAX, &mut |message| panic!("{message:?}"));
    assert_eq!(end, Err(Violation::TextTooLarge));
}

#[test]
fn endless_fragments_end_at_the_limit_and_empty_ones_hold_nothing() {
    let mut decoder = Decoder::new(Limits { text_bytes: 1_000, binary_bytes: 1_000 });
    let mut never = |message: Message<'_>| panic!("{message:?}");
    decoder.feed(&mut masked(TEXT, b""), u32::MAX, &mut never).unwrap();
    for _ in 0..100_000 {
        decoder.feed(&mut masked(CONTINUATION, b""), u32::MAX, &mut never).unwrap();
    }
    assert_eq!(decoder.held_bytes(), 0);
    for sent in 1..=1_000 {
        decoder.feed(&mut masked(CONTINUATION, b"x"), u32::MAX, &mut never).unwrap();
        assert!(decoder.held_bytes() <= (2 * sent).max(64), "{} for {sent}", decoder.held_bytes());
    }
    let end = decoder.feed(&mut masked(CONTINUATION, b"x"), u32::MAX, &mut never);
    assert_eq!(end, Err(Violation::TextTooLarge));
}

#[test]
fn an_idle_decoder_holds_no_memory() {
    let mut decoder = Decoder::new(Limits::default());
    assert!(size_of::<Decoder>() <= 64, "{}", size_of::<Decoder>());
    let stream = [text("one"), fragments(BINARY, &[1; 9_000], &[1, 5_000]), masked(FIN | PING, &[1; 125])].concat();
    for byte in stream {
        decoder.feed(&mut [byte], u32::MAX, &mut |_| ControlFlow::Continue(())).unwrap();
    }
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn the_budget_counts_every_frame_and_keeps_the_rest() {
    let stream = [
        masked(FIN | PING, b"1"),
        masked(TEXT, b""),
        masked(CONTINUATION, b""),
        masked(FIN | CONTINUATION, b"2"),
        text("3"),
    ]
    .concat();
    let mut decoder = Decoder::new(Limits::default());
    let mut rest = stream;
    let mut steps = Vec::new();
    for budget in [0, 1, 2, 0, 1, 5] {
        let mut seen = 0;
        let fed = decoder
            .feed(&mut rest, budget, &mut |_| {
                seen += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        rest.drain(..fed.bytes);
        steps.push((fed.frames, seen));
    }
    assert_eq!(steps, [(0, 0), (1, 1), (2, 0), (0, 0), (1, 1), (1, 1)]);
    assert!(rest.is_empty());
}

#[test]
fn a_break_stops_after_its_message() {
    let mut stream = [text("one"), text("two")].concat();
    let mut decoder = Decoder::new(Limits::default());
    let fed = decoder.feed(&mut stream, u32::MAX, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((fed.bytes, fed.frames), (9, 1));
    let fed = decoder
        .feed(&mut stream[fed.bytes..], u32::MAX, &mut |message| {
            assert_eq!(message, Message::Text("two"));
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!((fed.bytes, fed.frames), (9, 1));
}
