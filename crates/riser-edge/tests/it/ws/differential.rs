//! This codec against fastwebsockets: each reads what the other has written.

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use riser_edge::ws::{Limits, Settings};
use tokio::io::DuplexStream;

use super::peer::{Piped, Seen};

const LIMIT: u32 = 1 << 20;

fn settings() -> Settings {
    Settings {
        limits: Limits { text_bytes: LIMIT, binary_bytes: LIMIT },
        max_queue_bytes: 16 << 20,
        frames_per_second: 1_000_000,
        ..Settings::default()
    }
}

type Client = FragmentCollector<DuplexStream>;

async fn write(client: &mut Client, last: bool, opcode: OpCode, payload: &[u8]) {
    let frame = Frame::new(last, opcode, None, Payload::Borrowed(payload));
    client.write_frame(frame).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fastwebsockets_and_this_codec_understand_each_other() {
    let peer = Piped::new(64 * 1024, settings(), b"");
    let log = peer.log.clone();
    let mut random = fastrand::Rng::with_seed(6455);
    let mut client = WebSocket::after_handshake(peer.client, Role::Client);
    client.set_auto_pong(false);
    client.set_auto_close(false);
    let mut client = FragmentCollector::new(client);
    let mut expected = Vec::new();
    for round in 0..300 {
        // Sizes around the borders of the length field, and any other.
        let size = match round % 10 {
            0 => 0,
            1 => 120 + random.usize(0..12),
            2 => 65_530 + random.usize(0..12),
            _ => random.usize(0..5_000),
        };
        let content: String = std::iter::repeat_with(|| random.char(..)).take(size).collect();
        let message = format!("echo {content}");
        let mut from = 0;
        let mut opcode = OpCode::Text;
        while random.u8(0..3) == 0 {
            let to = random.usize(from..=message.len());
            write(&mut client, false, opcode, &message.as_bytes()[from..to]).await;
            write(&mut client, true, OpCode::Ping, &[random.u8(..); 5]).await;
            (from, opcode) = (to, OpCode::Continuation);
        }
        write(&mut client, true, opcode, &message.as_bytes()[from..]).await;
        let echoed = loop {
            let frame = client.read_frame().await.unwrap();
            match frame.opcode {
                OpCode::Pong => assert_eq!(frame.payload.len(), 5),
                OpCode::Text => break frame,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(std::str::from_utf8(&echoed.payload).unwrap(), content);
        expected.push(Seen::Text(message));
        let binary: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(size).collect();
        write(&mut client, true, OpCode::Binary, &binary).await;
        expected.push(Seen::Binary(binary));
    }
    peer.conn.close(4321, "done");
    let frame = client.read_frame().await.unwrap();
    assert_eq!((frame.opcode, &frame.payload[..]), (OpCode::Close, &b"\x10\xE1done"[..]));
    let mut seen = log.lock().seen.clone();
    seen.retain(|seen| matches!(seen, Seen::Text(_) | Seen::Binary(_)));
    // The last message was on its way when the connection was closed.
    assert!(seen.len() >= expected.len() - 1);
    assert!(seen[..] == expected[..seen.len()], "a message has changed on its way");
}
