//! Many threads that have frames for one connection. What is lost here is a wake-up, and shows as a time-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riser_edge::ws::{Conn, Handler, Settings, frame, serve};
use tokio::io::{ReadHalf, split};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::next;

/// For what must come, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SENDERS: usize = 4;
const FRAMES: u64 = 5_000;

/// Knows one value, of which only the newest counts, and what of it was sent.
#[derive(Default)]
struct Mirror {
    newest: AtomicU64,
    conflated: AtomicU64,
}

struct Reader(Arc<Mirror>);

impl Handler for Reader {
    fn text(&mut self, _: &Arc<Conn>, _: &str) {}

    fn binary(&mut self, _: &Arc<Conn>, _: &[u8]) {}

    fn drained(&mut self, conn: &Arc<Conn>) -> bool {
        conn.push(frame::text(&self.0.newest.load(Ordering::SeqCst).to_string()));
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frames_of_many_threads_arrive_whole_and_each_threads_in_order() {
    let (mut client, server) = tokio::io::duplex(1_000);
    let (read, write) = split(server);
    let settings = Settings { max_queue_bytes: 64 << 20, ..Settings::default() };
    let conn = Conn::new(write, Arc::new(settings));
    let mut session = JoinSet::new();
    session.spawn(serve(conn.clone(), read, &bytes::Bytes::new(), Reader(Arc::default())));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let conn = Arc::clone(&conn);
        senders.spawn_blocking(move || {
            for number in 0..FRAMES {
                assert!(conn.push(frame::text(&format!("{sender} {number}"))));
                if number % 3 == 0 || number + 1 == FRAMES {
                    conn.flush();
                }
            }
        });
    }
    let mut expected = [0; SENDERS];
    while expected != [FRAMES; SENDERS] {
        let frame = timeout(PATIENCE, next(&mut client)).await.expect("a wake-up was lost").unwrap();
        let Some((sender, number)) = frame.text().split_once(' ') else {
            // What is owed comes between the others.
            continue;
        };
        let expected = &mut expected[sender.parse::<usize>().unwrap()];
        assert_eq!(number.parse(), Ok(*expected));
        *expected += 1;
    }
    while senders.join_next().await.is_some_and(|sender| sender.is_ok()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_that_is_served_conflated_values_ends_with_the_newest() {
    let mut conflated = 0;
    for _ in 0..50 {
        let (mut client, server) = tokio::io::duplex(64);
        let (read, write): (ReadHalf<_>, _) = split(server);
        let conn = Conn::new(write, Arc::new(Settings::default()));
        let mirror = Arc::new(Mirror::default());
        let mut session = JoinSet::new();
        session.spawn(serve(conn.clone(), read, &bytes::Bytes::new(), Reader(Arc::clone(&mirror))));
        let mut sender = JoinSet::new();
        let (theirs, conns) = (Arc::clone(&mirror), Arc::clone(&conn));
        sender.spawn_blocking(move || {
            for number in 1..=FRAMES {
                theirs.newest.store(number, Ordering::SeqCst);
                if conns.queued_bytes() > 0 {
                    theirs.conflated.fetch_add(1, Ordering::SeqCst);
                    conns.request_refill();
                } else {
                    conns.send(frame::text(&number.to_string()));
                }
            }
        });
        let mut last = 0;
        while last < FRAMES {
            let frame = timeout(PATIENCE, next(&mut client)).await.expect("a wake-up was lost").unwrap();
            last = frame.text().parse().unwrap();
        }
        conflated += mirror.conflated.load(Ordering::SeqCst);
        sender.join_next().await.unwrap().unwrap();
    }
    assert!(conflated > 0, "the reader was never slow");
}
