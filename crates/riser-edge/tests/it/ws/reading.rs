//! How messages come out of a connection, on a paused clock.

use std::time::Duration;

use riser_edge::ws::{End, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::client::{self, BINARY, FIN, PING, PONG, TEXT, close, next, text};
use super::peer::{Piped, Seen};

const PIPE: usize = 1 << 20;

fn paced(frames_per_second: u32) -> Settings {
    Settings { frames_per_second, ..Settings::default() }
}

fn longest_gap(times: &[Instant]) -> Duration {
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    gaps.max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_request_is_read_first() {
    let head = [text("echo one"), text("echo two")[..4].to_vec()].concat();
    let mut peer = Piped::new(PIPE, Settings::default(), &head);
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "one");
    peer.client.write_all(&text("echo two")[4..]).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "two");
}

#[tokio::test(start_paused = true)]
async fn messages_come_whole_however_slowly_their_bytes_come() {
    let mut peer = Piped::new(1, Settings::default(), b"");
    let payload = vec![7; 300];
    for byte in client::fragments(BINARY, &payload, &[100]).into_iter().chain(text("echo x")) {
        peer.client.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "x");
    assert_eq!(peer.log.lock().seen[0], Seen::Binary(payload));
    assert_eq!(peer.log.lock().frames, 3);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_too_many_frames_is_read_at_the_rate_that_is_allowed() {
    let mut peer = Piped::new(PIPE, paced(100), b"");
    let begin = Instant::now();
    let flood: Vec<_> = (0..500).flat_map(|_| text("x")).collect();
    peer.client.write_all(&[&flood[..], &text("echo done")].concat()).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "done");
    let log = peer.log.lock();
    let times: Vec<_> = log.at.iter().map(|at| at.duration_since(begin)).collect();
    assert_eq!(times.len(), 501);
    for (number, at) in (1..).zip(&times) {
        let allowed = 100.0 + 100.0 * at.as_secs_f64();
        assert!(f64::from(number) <= allowed, "{number} after {at:?}");
    }
    let gap = longest_gap(&log.at);
    assert!(gap <= Duration::from_millis(200), "{gap:?}");
    assert!(times[500] < Duration::from_secs(5), "{:?}", times[500]);
    assert!(log.count(&Seen::Paced) >= 30, "{}", log.count(&Seen::Paced));
}

#[tokio::test(start_paused = true)]
async fn empty_fragments_and_pongs_use_up_the_budget_too() {
    for (opening, filler) in [
        (client::frame(TEXT, b""), client::frame(0, b"")),
        (Vec::new(), client::frame(FIN | PONG, b"")),
        (Vec::new(), client::frame(FIN | PING, b"")),
    ] {
        let mut peer = Piped::new(PIPE, paced(1_000), b"");
        let begin = Instant::now();
        let flood = [opening, filler.repeat(3_999), close(1000, b"")].concat();
        peer.client.write_all(&flood).await.unwrap();
        peer.client.shutdown().await.unwrap();
        let mut answers = Vec::new();
        peer.client.read_to_end(&mut answers).await.unwrap();
        assert_eq!(peer.end().await, End::Peer { code: Some(1000) });
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(2_900) && took < Duration::from_secs(4), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_never_pauses_for_more_than_a_second() {
    for rate in [0, 1, 2, 3] {
        let mut peer = Piped::new(PIPE, paced(rate), b"");
        let flood: Vec<_> = (0..10).flat_map(|_| text("x")).collect();
        peer.client.write_all(&[&flood[..], &text("echo done")].concat()).await.unwrap();
        assert_eq!(next(&mut peer.client).await.unwrap().text(), "done");
        let log = peer.log.lock();
        let gap = longest_gap(&log.at);
        assert!(gap <= Duration::from_millis(1_001), "{gap:?} at {rate}");
        assert!(gap >= Duration::from_millis(300), "{gap:?} at {rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_within_its_budget_is_not_paced() {
    let mut peer = Piped::new(PIPE, paced(100), b"");
    for _ in 0..20 {
        let burst: Vec<_> = (0..49).flat_map(|_| text("x")).collect();
        peer.client.write_all(&[&burst[..], &text("echo done")].concat()).await.unwrap();
        assert_eq!(next(&mut peer.client).await.unwrap().text(), "done");
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    assert_eq!(peer.log.lock().count(&Seen::Paced), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_connection_keeps_what_was_read_until_it_is_resumed() {
    let mut peer = Piped::new(PIPE, Settings::default(), b"");
    let bytes = [text("one"), text("pause"), text("two"), text("echo three")].concat();
    peer.client.write_all(&bytes).await.unwrap();
    let early = timeout(Duration::from_secs(1), next(&mut peer.client)).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(peer.log.lock().seen.len(), 2);
    peer.conn.resume();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "three");
    assert_eq!(peer.log.lock().seen[2], Seen::Text("two".into()));
}
