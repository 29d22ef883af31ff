//! How connections end, on a paused clock.

use std::time::Duration;

use riser_edge::ws::{CLOSE_WAIT, End, Settings, Violation, frame};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::client::{self, CLOSE, FIN, PING, TEXT, close, next, text};
use super::peer::{Gated, Piped, Seen};

const PIPE: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_is_answered_with_its_own_code() {
    for (sent, answer, code) in [
        (close(1000, b"bye"), Some(1000), Some(1000)),
        (close(4321, b""), Some(4321), Some(4321)),
        (client::frame(FIN | CLOSE, b""), None, None),
    ] {
        let mut peer = Piped::new(PIPE, Settings::default(), b"");
        peer.client.write_all(&[text("echo last"), sent].concat()).await.unwrap();
        assert_eq!(next(&mut peer.client).await.unwrap().text(), "last");
        assert_eq!(next(&mut peer.client).await.unwrap().close_code(), answer);
        assert_eq!(next(&mut peer.client).await, None, "the server ends its direction");
        assert_eq!(peer.log.lock().seen.last(), Some(&Seen::Ended(End::Peer { code })));
        peer.client.shutdown().await.unwrap();
        assert_eq!(peer.end().await, End::Peer { code });
        assert!(peer.conn.is_gone());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_waits_for_the_answer_and_delivers_nothing_more() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    peer.conn.push(frame::text("queued"));
    assert!(peer.conn.close(4000, "drain"));
    assert!(!peer.conn.close(4001, "the first wins"));
    assert!(!peer.conn.send(frame::text("late")));
    peer.conn.ping();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "queued");
    let closing = next(&mut peer.client).await.unwrap();
    assert_eq!((closing.close_code(), &closing.payload[2..]), (Some(4000), &b"drain"[..]));
    let early = timeout(CLOSE_WAIT / 2, next(&mut peer.client)).await;
    assert!(early.is_err(), "it did not wait for the answer: {early:?}");
    let answer = [text("unseen"), client::frame(FIN | PING, b""), close(4000, b""), text("unseen")].concat();
    peer.client.write_all(&answer).await.unwrap();
    assert_eq!(next(&mut peer.client).await, None);
    peer.client.shutdown().await.unwrap();
    assert_eq!(peer.end().await, End::Us { code: 4000 });
    assert_eq!(peer.log.lock().seen, [Seen::Ended(End::Us { code: 4000 })]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_close_and_sees_nothing_more() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    peer.client.write_all(&[text("close"), text("unseen")].concat()).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().close_code(), Some(4003));
    peer.client.shutdown().await.unwrap();
    assert_eq!(peer.end().await, End::Us { code: 4003 });
    assert_eq!(peer.log.lock().seen, [Seen::Text("close".into()), Seen::Ended(End::Us { code: 4003 })]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_a_close_is_let_go_of_after_the_closing_time() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    peer.conn.close(4004, "");
    let begin = Instant::now();
    assert_eq!(peer.end().await, End::Us { code: 4004 });
    assert_eq!(begin.elapsed(), CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_a_close_with_a_flood_is_let_go_of_after_the_closing_time() {
    let mut peer = Piped::new(10_000, Settings::default(), b"");
    peer.conn.close(4004, "");
    let begin = Instant::now();
    let flood = text(&"x".repeat(60_000));
    // A byte that comes late each time keeps the clock going.
    while peer.client.write_all(&flood).await.is_ok() {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(peer.end().await, End::Us { code: 4004 });
    assert!(begin.elapsed() <= CLOSE_WAIT + Duration::from_millis(20), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_its_close_is_reset() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(1);
    peer.conn.send(frame::text("x"));
    peer.conn.close(4001, "");
    assert!(peer.task.run().is_pending());
    tokio::time::advance(CLOSE_WAIT.mul_f64(0.999)).await;
    assert!(peer.task.run().is_pending());
    assert_eq!(peer.gate.0.lock().end, [""; 0]);
    tokio::time::advance(CLOSE_WAIT).await;
    assert_eq!(peer.task.run(), std::task::Poll::Ready(End::Us { code: 4001 }));
    let written = peer.gate.0.lock();
    assert_eq!(written.end, ["abandoned", "dropped"]);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_is_not_a_reset() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.client.write_all(&close(1000, b"")).await.unwrap();
    assert!(peer.task.run().is_pending());
    drop(peer.client);
    assert_eq!(peer.task.run(), std::task::Poll::Ready(End::Peer { code: Some(1000) }));
    let written = peer.gate.0.lock();
    assert_eq!(written.end, ["settled", "dropped"]);
}

#[tokio::test(start_paused = true)]
async fn a_violation_is_answered_with_its_code_after_what_was_queued() {
    for (bytes, violation) in [
        (vec![FIN | TEXT, 1, b'x'], Violation::Unmasked),
        (client::frame(FIN | TEXT, b"\xFF"), Violation::TextUtf8),
        (client::header(FIN | TEXT, 65_537), Violation::TextTooLarge),
        (client::frame(FIN | CLOSE, &[3]), Violation::CloseTruncated),
    ] {
        let mut peer = Piped::new(PIPE, Settings::default(), b"");
        let bytes = [text("echo before"), bytes, text("after")].concat();
        peer.client.write_all(&bytes).await.unwrap();
        assert_eq!(next(&mut peer.client).await.unwrap().text(), "before");
        let closing = next(&mut peer.client).await.unwrap();
        assert_eq!(closing.close_code(), Some(violation.code()));
        assert_eq!(closing.payload[2..], *violation.as_str().as_bytes());
        assert_eq!(next(&mut peer.client).await, None, "it does not wait for an answer");
        let begin = Instant::now();
        peer.client.shutdown().await.unwrap();
        assert_eq!(peer.end().await, End::Violation(violation));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        let expected = [Seen::Text("echo before".into()), Seen::Ended(End::Violation(violation))];
        assert_eq!(peer.log.lock().seen, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_close_is_lost_at_once() {
    for bytes in [&b""[..], &text("x")[..3], &text("x")] {
        let mut peer = Piped::new(PIPE, Settings::default(), b"");
        peer.client.write_all(bytes).await.unwrap();
        peer.client.shutdown().await.unwrap();
        let begin = Instant::now();
        assert_eq!(peer.end().await, End::Lost { error: None });
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_connection_ends_without_a_word() {
    let mut peer = Gated::new(Settings::default(), true);
    peer.gate.open(0);
    peer.conn.send(frame::text("x"));
    assert!(peer.task.run().is_pending());
    peer.conn.abort();
    assert_eq!(peer.conn.queued_bytes(), 0);
    peer.gate.open(usize::MAX);
    assert_eq!(peer.task.run(), std::task::Poll::Ready(End::Aborted));
    assert_eq!(peer.gate.take(), [""; 0]);
    assert_eq!(peer.gate.0.lock().end, ["abandoned", "dropped"]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_even_a_closing_connection() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    peer.conn.close(4000, "");
    assert_eq!(next(&mut peer.client).await.unwrap().close_code(), Some(4000));
    let begin = Instant::now();
    peer.conn.abort();
    assert_eq!(peer.end().await, End::Us { code: 4000 });
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_ends_its_own_connection_and_no_other() {
    let mut other = Piped::new(PIPE, Settings::default(), b"");
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    peer.client.write_all(&text("panic")).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().close_code(), Some(1011));
    assert!(peer.ended().await.unwrap_err().is_panic());
    assert!(peer.conn.is_gone());
    other.client.write_all(&text("echo fine")).await.unwrap();
    assert_eq!(next(&mut other.client).await.unwrap().text(), "fine");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_task_is_dropped_lets_go_of_its_transport() {
    let peer = Gated::new(Settings::default(), true);
    drop(peer.task);
    let written = peer.gate.0.lock();
    assert_eq!(written.end, ["abandoned", "dropped"]);
    assert!(peer.conn.is_gone());
    drop(written);
    assert!(!peer.conn.send(frame::text("x")));
    assert_eq!(peer.conn.queued_bytes(), 0);
}
