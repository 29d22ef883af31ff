use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::*;

/// Messages of a reader whose other end is given too.
fn pair() -> (DuplexStream, Messages) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    (theirs, messages(ours))
}

fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    match u16::try_from(payload.len()) {
        Ok(len) if len < 126 => bytes.push(u8::try_from(len).expect("small")),
        Ok(len) => {
            bytes.push(126);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            bytes.push(127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

async fn text(messages: &mut Messages) -> String {
    match messages.next().await {
        Some(Ok(Heard::Text(text))) => text,
        Some(Err(end)) => panic!("{end}"),
        _ => panic!("no text"),
    }
}

#[tokio::test]
async fn fragments_are_joined_and_pings_may_come_between() {
    let (mut peer, mut messages) = pair();
    for bytes in [frame(0x01, b"Gr\xc3"), frame(0x89, b"p"), frame(0x00, b"\xbc"), frame(0x80, b"n")] {
        peer.write_all(&bytes).await.expect("room");
    }
    assert!(matches!(messages.next().await, Some(Ok(Heard::Ping(payload))) if payload == b"p"));
    assert_eq!(text(&mut messages).await, "Grün");
}

#[tokio::test]
async fn a_reader_dropped_inside_a_frame_goes_on_where_it_was() {
    let (mut peer, mut messages) = pair();
    let bytes = frame(0x81, b"a message in three pieces");
    for (from, to) in [(0, 1), (1, 9)] {
        peer.write_all(&bytes[from..to]).await.expect("room");
        // Polled until there is nothing more to read, and dropped.
        assert!(futures_util::FutureExt::now_or_never(messages.next()).is_none());
    }
    peer.write_all(&bytes[9..]).await.expect("room");
    assert_eq!(text(&mut messages).await, "a message in three pieces");
}

#[tokio::test]
async fn messages_over_the_limit_end_the_connection_however_they_are_cut() {
    let (mut peer, mut messages) = pair();
    let writing = async {
        for i in 0..20 {
            // It stops reading in the middle, and the rest does not get through.
            let _ = peer.write_all(&frame(u8::from(i == 0), &vec![b'x'; 64 * 1024])).await;
        }
        drop(peer);
    };
    let reading = async {
        let last = messages.next().await;
        drop(messages);
        last
    };
    let ((), last) = tokio::join!(writing, reading);
    assert!(matches!(last, Some(Err(End::Broken(why))) if why.contains("over")));
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() {
    let rows: [(&str, Vec<u8>); 6] = [
        ("bad UTF-8", frame(0x81, b"\xff")),
        ("a continuation of nothing", frame(0x80, b"x")),
        ("a message inside another", [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        ("half a close code", frame(0x88, b"\x03")),
        ("a reason that is not UTF-8", frame(0x88, b"\x0f\xa0\xff")),
        ("a reserved bit", frame(0xc1, b"x")),
    ];
    for (what, bytes) in rows {
        let (mut peer, mut messages) = pair();
        peer.write_all(&bytes).await.expect("room");
        assert!(matches!(messages.next().await, Some(Err(End::Broken(_)))), "{what}");
        assert!(messages.next().await.is_none(), "{what}");
    }
}

#[tokio::test]
async fn a_close_tells_its_code_and_reason() {
    let (mut peer, mut messages) = pair();
    peer.write_all(&frame(0x88, b"\x0f\xa0bye")).await.expect("room");
    assert!(matches!(messages.next().await, Some(Ok(Heard::Close(Some(4000), reason))) if reason == "bye"));
}
