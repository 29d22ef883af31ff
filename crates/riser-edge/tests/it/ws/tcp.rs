//! What only a real socket can show.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use riser_edge::ws::{self, CLOSE_WAIT, Conn, End, Settings, frame};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::client::{close, next, text};
use super::peer::{Recorder, Seen};

/// For what must come, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a closed connection may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

struct Served {
    client: TcpStream,
    conn: Arc<Conn>,
    log: Arc<parking_lot::Mutex<super::peer::Log>>,
    tasks: JoinSet<End>,
}

impl Served {
    async fn new(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (client, (server, _)) = (client.unwrap(), accepted.unwrap());
        ws::tune(&server, 64 * 1024).unwrap();
        let (read, write) = server.into_split();
        let conn = Conn::new(write, Arc::new(settings));
        let log = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(ws::serve(conn.clone(), read, &Bytes::new(), Recorder(Arc::clone(&log))));
        Self { client, conn, log, tasks }
    }

    async fn end(&mut self) -> End {
        timeout(PATIENCE, self.tasks.join_next()).await.unwrap().unwrap().unwrap()
    }

    /// Sends until the kernel takes no more.
    fn block(&self) {
        let frame = frame::binary(&vec![0; 60_000]);
        for _ in 0..10_000 {
            self.conn.send(frame.clone());
            if self.conn.blocked_since().is_some() {
                return;
            }
        }
        panic!("the kernel takes everything");
    }
}

#[tokio::test]
async fn messages_go_and_come_over_tcp() {
    let mut peer = Served::new(Settings::default()).await;
    let content = "x".repeat(60_000);
    for _ in 0..20 {
        peer.client.write_all(&text(&format!("echo {content}"))).await.unwrap();
        assert_eq!(next(&mut peer.client).await.unwrap().text(), content);
    }
    peer.client.write_all(&close(1000, b"")).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().close_code(), Some(1000));
    assert_eq!(peer.client.read(&mut [0]).await.unwrap(), 0);
    drop(peer.client.into_std());
    let end = timeout(PATIENCE, peer.tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(end, End::Peer { code: Some(1000) });
}

#[tokio::test]
async fn a_tuned_socket_does_not_wait_and_bounds_what_the_kernel_holds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    ws::tune(&stream, 32 * 1024).unwrap();
    assert!(stream.nodelay().unwrap());
    let size = SockRef::from(&stream).send_buffer_size().unwrap();
    assert!((32 * 1024..=64 * 1024).contains(&size), "{size}");
}

#[tokio::test]
async fn half_a_frame_and_a_reset_end_the_connection_at_once() {
    let mut peer = Served::new(Settings::default()).await;
    let first = text("echo here");
    peer.client.write_all(&[&first[..], &text("half")[..3]].concat()).await.unwrap();
    assert_eq!(next(&mut peer.client).await.unwrap().text(), "here");
    SockRef::from(&peer.client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(std::mem::replace(&mut peer.client, unconnected().await));
    let end = peer.end().await;
    assert_eq!(end, End::Lost { error: Some(io::ErrorKind::ConnectionReset) });
    assert_eq!(peer.log.lock().seen.last(), Some(&Seen::Ended(end)));
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_order() {
    let mut peer = Served::new(Settings { max_queue_bytes: 64 << 20, ..Settings::default() }).await;
    peer.block();
    let waiting = peer.conn.queued_bytes();
    assert!(waiting > 0);
    for number in 0..100 {
        assert!(peer.conn.send(frame::text(&number.to_string())));
    }
    for number in 0..100 {
        loop {
            let frame = timeout(PATIENCE, next(&mut peer.client)).await.unwrap().unwrap();
            if frame.payload.len() < 60_000 {
                assert_eq!(frame.text(), number.to_string());
                break;
            }
            assert_eq!(number, 0, "an older message came after a newer one");
        }
    }
    // It asks what is owed once all was taken.
    peer.client.write_all(&text("echo end")).await.unwrap();
    assert_eq!(timeout(PATIENCE, next(&mut peer.client)).await.unwrap().unwrap().text(), "end");
    assert!(peer.log.lock().count(&Seen::Drained) >= 1);
    assert_eq!((peer.conn.queued_bytes(), peer.conn.blocked_since()), (0, None));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_reset_within_the_closing_time() {
    let mut peer = Served::new(Settings { max_queue_bytes: 64 << 20, ..Settings::default() }).await;
    peer.block();
    let begin = Instant::now();
    peer.conn.close(4001, "");
    assert_eq!(peer.end().await, End::Us { code: 4001 });
    assert!(begin.elapsed() >= CLOSE_WAIT && begin.elapsed() < GONE_WITHIN, "{:?}", begin.elapsed());
    // Its own socket is the proof: what it had not read is gone with the reset.
    let error = peer.client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_peer_that_lets_the_queue_overflow_is_gone_in_time() {
    let mut peer = Served::new(Settings { max_queue_bytes: 100_000, ..Settings::default() }).await;
    peer.block();
    let begin = Instant::now();
    while peer.conn.send(frame::binary(&[0; 10_000])) {
        assert!(peer.conn.queued_bytes() <= 100_000);
    }
    assert_eq!(peer.end().await, End::Us { code: 4002 });
    assert!(begin.elapsed() < GONE_WITHIN, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_peer_that_reads_late_finds_the_reason_of_its_close() {
    let mut peer = Served::new(Settings { max_queue_bytes: 100_000, ..Settings::default() }).await;
    peer.block();
    while peer.conn.send(frame::binary(&[0; 10_000])) {}
    loop {
        let frame = timeout(PATIENCE, next(&mut peer.client)).await.unwrap().unwrap();
        if frame.payload.len() < 10_000 {
            assert_eq!(frame.close_code(), Some(4002));
            break;
        }
    }
    peer.client.write_all(&close(4002, b"")).await.unwrap();
    assert_eq!(peer.client.read(&mut [0]).await.unwrap(), 0);
    drop(std::mem::replace(&mut peer.client, unconnected().await));
    assert_eq!(peer.end().await, End::Us { code: 4002 });
}

/// Some stream to put where another is taken from.
async fn unconnected() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
}
