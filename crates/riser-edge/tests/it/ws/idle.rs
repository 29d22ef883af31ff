//! What an idle connection costs: all of its heap, counted to the byte.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use riser_edge::ws::{self, Conn, Handler, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::client::{self, text};

/// The bytes of heap that an idle TCP connection may hold in all: its task, the `Conn`, both halves of the socket and
/// what the runtime knows of it. The reason for it is in docs/adr/0001-own-websocket-codec.md.
const MAX_IDLE_BYTES: isize = 1_000;

/// Connections that are measured at once.
const CONNECTIONS: usize = 128;

thread_local! {
    /// Bytes that this thread has allocated and not freed. The runtime of a test runs on the test's own thread.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize, sign: isize) {
    // A thread that ends frees after its counter is gone.
    let _ = LIVE.try_with(|live| live.set(live.get() + sign * isize::try_from(bytes).unwrap_or(0)));
}

#[expect(unsafe_code, reason = "an allocator cannot be counted otherwise; it passes everything on as it is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        unsafe { System.dealloc(memory, layout) }
    }
}

/// As much as a session's handler keeps inline at the least: one pointer.
struct Echo(#[expect(dead_code, reason = "it stands for a session")] Arc<()>);

impl Handler for Echo {
    fn text(&mut self, conn: &Arc<Conn>, text: &str) {
        conn.push(ws::frame::text(text));
    }

    fn binary(&mut self, _: &Arc<Conn>, _: &[u8]) {}
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer_and_little_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Arc::new(Settings::default());
    let session = Arc::new(());
    let mut tasks = JoinSet::new();
    let mut clients = Vec::with_capacity(2 * CONNECTIONS);
    let mut conns = Vec::with_capacity(2 * CONNECTIONS);
    let mut live = Vec::with_capacity(2);
    // The first round pays for what is allocated once: the thread's buffer, the runtime's queues.
    for _ in 0..2 {
        let before = LIVE.get();
        for _ in 0..CONNECTIONS {
            clients.push(std::net::TcpStream::connect(address).unwrap());
            let (server, _) = listener.accept().await.unwrap();
            let (read, write) = server.into_split();
            let conn = Conn::new(write, Arc::clone(&settings));
            conns.push(Arc::clone(&conn));
            tasks.spawn(ws::serve(conn, read, &bytes::Bytes::new(), Echo(Arc::clone(&session))));
        }
        for client in &clients {
            exchange(client).await;
        }
        live.push((LIVE.get() - before) / isize::try_from(CONNECTIONS).unwrap());
    }
    println!("an idle connection holds {} bytes of heap", live[1]);
    assert!(live[1] <= MAX_IDLE_BYTES, "{} bytes", live[1]);
    assert!(live[1] > 500, "{} bytes: the allocator does not count", live[1]);
}

/// Three messages each way, one of them in fragments, and a ping: an idle connection is one that was used.
async fn exchange(client: &std::net::TcpStream) {
    let client = client.try_clone().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(client).unwrap();
    let fragments = client::fragments(client::TEXT, &[b'x'; 5_000], &[10, 3_000]);
    let ping = client::frame(client::FIN | client::PING, b"");
    client.write_all(&[text("one"), fragments, ping, text("three")].concat()).await.unwrap();
    let mut answers = vec![0; 5 + 5_004 + 2 + 7];
    client.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers[answers.len() - 5..], *b"three");
}
