//! How frames leave a connection, on a paused clock.

use std::io;
use std::time::Duration;

use riser_edge::ws::{End, Settings, frame};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::client::{self, FIN, PING, PONG, close, next, text};
use super::peer::{Gated, Piped, Seen};

const PIPE: usize = 1 << 20;

fn paced(frames_per_second: u32) -> Settings {
    Settings { frames_per_second, ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_pushed_together_leave_in_one_write() {
    for vectored in [true, false] {
        let peer = Gated::new(Settings::default(), vectored);
        for number in 0..5 {
            assert!(peer.conn.push(frame::text(&number.to_string())));
        }
        assert_eq!(peer.conn.queued_bytes(), 15);
        assert_eq!(peer.gate.take(), [""; 0]);
        peer.conn.flush();
        assert_eq!(peer.gate.take(), [r"\x81\x010\x81\x011\x81\x012\x81\x013\x81\x014"]);
        assert_eq!(peer.conn.queued_bytes(), 0);
        assert_eq!(peer.gate.0.lock().flushes, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_vectors_writes_are_joined_up_to_16_kib_and_all_bytes_arrive_in_order() {
    let peer = Gated::new(Settings::default(), false);
    let mut sent = Vec::new();
    for number in 0..40u8 {
        let frame = frame::binary(&vec![number; 1_000 * usize::from(number % 4) + 1]);
        sent.extend_from_slice(&frame);
        peer.conn.push(frame);
    }
    peer.conn.flush();
    let written = peer.gate.0.lock();
    assert_eq!(written.writes.concat(), sent);
    assert!(written.writes.iter().all(|write| write.len() <= 16 * 1024));
    assert!(written.writes.len() <= sent.len() / (16 * 1024) + 1, "{}", written.writes.len());
}

#[tokio::test(start_paused = true)]
async fn more_frames_than_one_vector_holds_leave_in_order() {
    let peer = Gated::new(Settings::default(), true);
    let mut sent = Vec::new();
    for number in 0..200u8 {
        let frame = frame::binary(&[number; 3]);
        sent.extend_from_slice(&frame);
        peer.conn.push(frame);
    }
    peer.conn.flush();
    let written = peer.gate.0.lock();
    assert_eq!(written.writes.concat(), sent);
    assert_eq!(written.writes.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_to_a_peer_that_reads_does_not_wake_its_task() {
    let peer = Gated::new(Settings::default(), true);
    for _ in 0..10 {
        peer.conn.send(frame::text("x"));
    }
    assert!(!peer.task.is_woken());
    assert_eq!(peer.gate.take().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_serves_many_connections_blocks_none_of_them() {
    // More than tokio lets one task do before it must yield.
    let mut peers: Vec<_> = (0..400).map(|_| Piped::new(1_000, Settings::default(), b"")).collect();
    for peer in &peers {
        peer.conn.send(frame::text("x"));
    }
    assert!(peers.iter().all(|peer| peer.conn.queued_bytes() == 0 && peer.conn.blocked_since().is_none()));
    for peer in &mut peers {
        assert_eq!(next(&mut peer.client).await.unwrap().text(), "x");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_peer_does_not_read_only_its_own_task_tries_to_write() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(4);
    peer.conn.send(frame::text("one"));
    assert!(peer.task.is_woken());
    assert_eq!(peer.conn.queued_bytes(), 1);
    assert_eq!(peer.conn.blocked_since(), Some(Instant::now()));
    assert!(peer.task.run().is_pending());
    let attempts = peer.gate.0.lock().attempts;
    for _ in 0..10 {
        peer.conn.send(frame::text("two"));
    }
    assert!(!peer.task.is_woken());
    assert_eq!(peer.gate.0.lock().attempts, attempts);
    assert_eq!(peer.gate.take(), [r"\x81\x03on"]);
    peer.gate.open(usize::MAX);
    assert!(peer.task.is_woken());
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take(), [r"e".to_owned() + &r"\x81\x03two".repeat(10)]);
    assert_eq!((peer.conn.queued_bytes(), peer.conn.blocked_since()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_again_is_given_what_is_owed_piece_by_piece() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.log.lock().owed = vec!["owed last", "owed first"];
    peer.gate.open(0);
    peer.conn.send(frame::text("queued"));
    assert!(peer.task.run().is_pending());
    // Asking again and again costs no wake-up.
    for _ in 0..10 {
        peer.conn.request_refill();
    }
    assert!(!peer.task.is_woken());
    assert_eq!(peer.log.lock().count(&Seen::Drained), 0);
    peer.gate.open(5);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.log.lock().count(&Seen::Drained), 0, "something waits still");
    peer.gate.open(14);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.log.lock().count(&Seen::Drained), 1, "the first is not written yet");
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    let written = peer.gate.take().concat();
    assert_eq!(written, r"\x81\x06queued\x81\nowed first\x81\towed last");
    // Once it owed nothing any more, it is left in peace.
    let asked = peer.log.lock().count(&Seen::Drained);
    peer.conn.send(frame::text("x"));
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.log.lock().count(&Seen::Drained), asked);
}

#[tokio::test(start_paused = true)]
async fn a_refill_can_be_asked_for_at_any_time() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.log.lock().owed = vec!["owed"];
    peer.conn.request_refill();
    assert!(peer.task.is_woken());
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take(), [r"\x81\x04owed"]);
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_closes_with_4002_and_drops_what_waits() {
    let settings = Settings { max_queue_bytes: 100, ..Settings::default() };
    let mut peer = Gated::new(settings, true);
    peer.gate.open(1);
    assert!(peer.conn.send(frame::text(&"a".repeat(48))));
    assert!(peer.conn.send(frame::text(&"b".repeat(49))), "100 bytes and the one that was written");
    assert!(!peer.conn.push(frame::text("")), "one byte too many");
    assert!(peer.conn.is_ending());
    assert!(peer.conn.queued_bytes() < 70, "{}", peer.conn.queued_bytes());
    assert!(peer.task.run().is_pending());
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    let written = peer.gate.take().concat();
    assert_eq!(written, r"\x810".to_owned() + &"a".repeat(48) + r"\x88\n\x0f\xa2too slow");
    peer.client.write_all(&close(4002, b"")).await.unwrap();
    drop(peer.client);
    assert_eq!(peer.task.run(), std::task::Poll::Ready(End::Us { code: 4002 }));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_nothing_or_fails_ends_the_connection() {
    for kind in [io::ErrorKind::WriteZero, io::ErrorKind::BrokenPipe] {
        let mut peer = Gated::new(Settings::default(), true);
        peer.gate.0.lock().fails_with = Some(kind);
        peer.conn.send(frame::text("x"));
        assert_eq!(peer.gate.0.lock().attempts, 1);
        assert!(peer.task.is_woken());
        let end = End::Lost { error: Some(kind) };
        assert_eq!(peer.task.run(), std::task::Poll::Ready(end));
        assert_eq!(peer.log.lock().seen, [Seen::Ended(end)]);
        assert_eq!(peer.gate.0.lock().end, ["abandoned", "dropped"]);
        assert!(!peer.conn.push(frame::text("y")));
    }
}

#[tokio::test(start_paused = true)]
async fn every_ping_of_a_peer_that_reads_is_answered_in_order() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    let pings: Vec<_> = (0..50u8).flat_map(|number| client::frame(FIN | PING, &[number])).collect();
    peer.client.write_all(&pings).await.unwrap();
    for number in 0..50 {
        let pong = next(&mut peer.client).await.unwrap();
        assert_eq!((pong.first, &pong.payload[..]), (FIN | PONG, &[number][..]));
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_pings_of_a_peer_that_does_not_read_only_the_newest_is_answered() {
    let mut peer = Gated::new(paced(100_000), true);
    peer.gate.open(1);
    for number in 0..1_000u16 {
        let ping = client::frame(FIN | PING, &[&[b'x'; 123][..], &number.to_be_bytes()].concat());
        peer.client.write_all(&ping).await.unwrap();
        assert!(peer.task.run().is_pending());
        assert!(peer.conn.queued_bytes() <= 2 * 127, "{}", peer.conn.queued_bytes());
    }
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    let written = peer.gate.0.lock().writes.concat();
    // The one whose first byte was taken, and the newest.
    assert_eq!(written.len(), 2 * 127);
    assert_eq!(written[125..127], 0u16.to_be_bytes());
    assert_eq!(written[252..], 999u16.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn control_frames_go_before_messages_but_not_into_one() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(3);
    peer.conn.send(frame::text("first"));
    peer.conn.send(frame::text("second"));
    peer.conn.ping();
    peer.conn.ping();
    peer.client.write_all(&client::frame(FIN | PING, b"?")).await.unwrap();
    assert!(peer.task.run().is_pending());
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take(), [r"\x81\x05f", r"irst\x8a\x01?\x89\x00\x81\x06second"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_sent_at_once_and_its_pong_counts_as_activity() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    let begin = Instant::now();
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(peer.conn.last_activity(), begin);
    peer.conn.ping();
    assert_eq!(next(&mut peer.client).await.unwrap().first, FIN | PING);
    peer.client.write_all(&client::frame(FIN | PONG, b"")).await.unwrap();
    peer.client.write_all(&text("echo seen")).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "seen");
    assert_eq!(peer.conn.last_activity(), begin + Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn live_frames_go_behind_all_else_that_comes_before_they_are_begun() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(0);
    assert_eq!(peer.conn.push_live(1, frame::text("live 1")), 0);
    assert_eq!(peer.conn.push_live(1, frame::text("live 2")), 0);
    peer.conn.flush();
    assert_eq!(peer.conn.queued_bytes(), 0, "they are no reason to conflate");
    peer.conn.send(frame::text("answer"));
    peer.conn.ping();
    assert_eq!(peer.conn.queued_bytes(), 10);
    peer.gate.open(2 + 8 + 3);
    assert!(peer.task.run().is_pending());
    // The first of them is begun now, and is not cut.
    peer.conn.send(frame::text("command"));
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    let written = peer.gate.take().concat();
    assert_eq!(written, r"\x81\x06answer\x89\x00\x81\x06live 1\x81\x07command\x81\x06live 2");
    assert_eq!((peer.conn.queued_bytes(), peer.conn.blocked_since()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_live_frames_are_dropped_by_number_and_by_bytes() {
    for vectored in [true, false] {
        let mut peer = Gated::new(Settings::default(), vectored);
        peer.gate.open(0);
        let dropped: usize = (0..100).map(|seq| push_flushed(&peer, frame::binary(&[seq]))).sum();
        assert_eq!(dropped, 36);
        peer.conn.send(frame::text("x"));
        peer.gate.open(usize::MAX);
        assert!(peer.task.run().is_pending());
        let mut expected = frame::text("x").to_vec();
        (36..100).for_each(|seq| expected.extend_from_slice(&frame::binary(&[seq])));
        let written: Vec<u8> = std::mem::take(&mut peer.gate.0.lock().writes).concat();
        assert_eq!(written, expected);

        peer.gate.open(0);
        let large = frame::binary(&[0; 16_380]);
        assert_eq!(large.len(), 16 * 1024);
        let dropped: Vec<usize> = (0..6).map(|_| push_flushed(&peer, large.clone())).collect();
        assert_eq!(dropped, [0, 0, 0, 0, 1, 1]);
        assert_eq!(push_flushed(&peer, frame::text("one byte more costs one more")), 1);
        peer.gate.open(usize::MAX);
        assert!(peer.task.run().is_pending());
        let written: Vec<u8> = peer.gate.0.lock().writes.concat();
        assert_eq!(written.len(), 3 * large.len() + 2 + 28);
    }
}

fn push_flushed(peer: &Gated, frame: bytes::Bytes) -> usize {
    let dropped = peer.conn.push_live(7, frame);
    peer.conn.flush();
    dropped
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_live_frames_to_a_peer_that_reads_loses_none_and_a_stream_can_be_forgotten() {
    let mut peer = Gated::new(Settings::default(), true);
    assert_eq!((0..1_000).map(|_| peer.conn.push_live(7, frame::text("!"))).sum::<usize>(), 0);
    peer.conn.flush();
    assert_eq!(peer.gate.take().concat().matches('!').count(), 1_000);
    peer.gate.open(0);
    for tag in [1, 2, 1] {
        peer.conn.push_live(tag, frame::text(&format!("of {tag}")));
        peer.conn.flush();
    }
    assert_eq!((peer.conn.forget_live(1), peer.conn.forget_live(1), peer.conn.forget_live(9)), (2, 0, 0));
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take(), [r"\x81\x04of 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_does_not_wait_for_live_frames_that_never_end() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.log.lock().owed = vec!["owed"];
    peer.gate.open(3);
    for _ in 0..10 {
        peer.conn.push_live(7, frame::text("live"));
        peer.conn.flush();
    }
    let begin = Instant::now();
    tokio::time::advance(Duration::from_secs(50)).await;
    peer.conn.request_refill();
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.conn.queued_bytes(), 6);
    assert!(peer.conn.blocked_since().is_some_and(|since| since >= begin));
    peer.gate.open(3 + 6);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take(), [r"\x81\x04l", r"ive\x81\x04owed"]);
    // Whoever takes all but live frames is not too slow.
    tokio::time::advance(Duration::from_secs(50)).await;
    peer.gate.open(1);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.conn.blocked_since(), Some(begin + Duration::from_secs(100)));
}

#[tokio::test(start_paused = true)]
async fn nothing_live_follows_a_close_frame() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(3);
    for text in ["one", "two"] {
        peer.conn.push_live(7, frame::text(text));
        peer.conn.flush();
    }
    assert!(peer.conn.close(4003, ""));
    assert_eq!(peer.conn.push_live(7, frame::text("three")), 0);
    assert!(peer.task.run().is_pending());
    peer.gate.open(usize::MAX);
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.take().concat(), r"\x81\x03one\x88\x02\x0f\xa3");
}
