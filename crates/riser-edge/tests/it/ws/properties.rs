//! What holds of the decoder for any stream.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_edge::ws::Limits;

use super::client::{BINARY, FIN, PING, PONG, TEXT, fragments, frame as masked};
use super::codec::{Owned, decode_at};

/// A message, and at which of its bytes (taken modulo its length) its fragments end.
fn message() -> impl Strategy<Value = (Owned, Vec<usize>)> {
    let content = prop_oneof![
        "\\PC{0,200}".prop_map(Owned::Text),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(Owned::Binary),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Owned::Ping),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Owned::Pong),
    ];
    (content, prop::collection::vec(any::<usize>(), 0..4))
}

fn encode(message: &Owned, cuts: &[usize]) -> Vec<u8> {
    let (opcode, payload) = match message {
        Owned::Text(text) => (TEXT, text.as_bytes()),
        Owned::Binary(data) => (BINARY, &data[..]),
        Owned::Ping(data) => return masked(FIN | PING, data),
        Owned::Pong(data) => return masked(FIN | PONG, data),
        Owned::Close(..) => unreachable!("no strategy makes one"),
    };
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
    cuts.sort_unstable();
    fragments(opcode, payload, &cuts)
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(6455),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn however_the_stream_is_split_the_messages_are_the_same(
        messages in prop::collection::vec(message(), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(message, cuts)| encode(message, cuts)).collect();
        let expected: Vec<_> = messages.into_iter().map(|(message, _)| message).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode_at(Limits::default(), &stream, &cuts), (expected, Ok(())));
    }

    #[test]
    fn whatever_comes_is_decoded_or_refused_the_same_way_in_one_piece_and_byte_by_byte(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        good in message(),
    ) {
        // Random bytes alone seldom pass the second byte.
        let stream = [encode(&good.0, &good.1), bytes].concat();
        let limits = Limits { text_bytes: 1_000, binary_bytes: 1_000 };
        let every: Vec<_> = (1..stream.len()).collect();
        prop_assert_eq!(decode_at(limits, &stream, &[]), decode_at(limits, &stream, &every));
    }
}
