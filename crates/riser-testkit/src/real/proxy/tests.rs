use std::io::ErrorKind;

use tokio::time::timeout;

use super::*;

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy, a client and the server's end of its connection.
struct Bench {
    proxy: Proxy,
    listener: TcpListener,
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("an address"), 7).await.expect("a proxy");
        Self { proxy, listener }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.expect("a connection");
        let (server, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("a connection");
        (client, server)
    }
}

async fn send(to: &mut TcpStream, text: &str) {
    to.write_all(text.as_bytes()).await.expect("an open connection");
}

async fn expect(from: &mut TcpStream, text: &str) {
    let mut read = vec![0; text.len()];
    timeout(PATIENCE, from.read_exact(&mut read)).await.expect("in time").expect("an open connection");
    assert_eq!(String::from_utf8_lossy(&read), text);
}

async fn end(of: &mut TcpStream) -> Result<usize, ErrorKind> {
    timeout(PATIENCE, of.read(&mut [0; 8])).await.expect("an end in time").map_err(|error| error.kind())
}

#[tokio::test]
async fn bytes_and_ends_pass_both_ways() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    send(&mut client, "hello").await;
    expect(&mut server, "hello").await;
    client.shutdown().await.expect("an open connection");
    assert_eq!(end(&mut server).await, Ok(0));
    send(&mut server, "bye").await;
    expect(&mut client, "bye").await;
    drop(server);
    assert_eq!(end(&mut client).await, Ok(0));
    assert_eq!(bench.proxy.accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_takes_as_long_one_way_and_stays_in_order() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    let (delay, jitter) = (Duration::from_secs(3), Duration::from_secs(2));
    bench.proxy.set(Way::In, Traffic { delay, jitter, stalled: false });
    let begun = Instant::now();
    let both = async {
        for number in 0..50 {
            send(&mut client, &format!("{number:04}")).await;
            // So that they are pieces of their own.
            tokio::task::yield_now().await;
        }
        for number in 0..50 {
            expect(&mut server, &format!("{number:04}")).await;
        }
    };
    both.await;
    assert!(begun.elapsed() >= delay);
    assert!(begun.elapsed() < 3 * (delay + jitter), "pieces wait for each other's delay");
    bench.proxy.set(Way::In, Traffic::default());
    send(&mut client, "soon").await;
    expect(&mut server, "soon").await;
}

#[tokio::test]
async fn what_is_stalled_arrives_when_it_goes_on_and_the_other_way_is_open() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    bench.proxy.set(Way::Out, Traffic { stalled: true, ..Traffic::default() });
    send(&mut server, "late").await;
    send(&mut client, "through").await;
    expect(&mut server, "through").await;
    let mut early = [0; 4];
    let held = timeout(Duration::from_millis(50), client.read(&mut early)).await;
    assert!(held.is_err(), "{held:?}");
    bench.proxy.stall(false);
    expect(&mut client, "late").await;
    assert_eq!(bench.proxy.open(), 1);
}

#[tokio::test]
async fn a_cut_ends_all_connections_in_order_and_new_ones_work() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    let (mut other, _other_server) = bench.connect().await;
    bench.proxy.cut();
    assert_eq!((end(&mut client).await, end(&mut server).await, end(&mut other).await), (Ok(0), Ok(0), Ok(0)));
    let (mut client, mut server) = bench.connect().await;
    send(&mut client, "again").await;
    expect(&mut server, "again").await;
}

#[tokio::test]
async fn a_reset_is_one_at_both_ends_also_when_the_line_is_stalled() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    bench.proxy.stall(true);
    send(&mut client, "lost").await;
    bench.proxy.reset();
    let reset = Err(ErrorKind::ConnectionReset);
    assert_eq!((end(&mut client).await, end(&mut server).await), (reset, reset));
}

#[tokio::test]
async fn refused_connections_are_reset_and_open_ones_stay() {
    let bench = Bench::new().await;
    let (mut client, mut server) = bench.connect().await;
    bench.proxy.refuse(true);
    let refused = match TcpStream::connect(bench.proxy.address()).await {
        Ok(mut refused) => end(&mut refused).await,
        Err(error) => Err(error.kind()),
    };
    assert_eq!(refused, Err(ErrorKind::ConnectionReset));
    send(&mut client, "still here").await;
    expect(&mut server, "still here").await;
    bench.proxy.refuse(false);
    let (mut client, mut server) = bench.connect().await;
    send(&mut client, "again").await;
    expect(&mut server, "again").await;
}

#[tokio::test]
async fn a_client_is_reset_when_the_server_is_not_there() {
    let Bench { proxy, listener } = Bench::new().await;
    drop(listener);
    let mut client = TcpStream::connect(proxy.address()).await.expect("a connection");
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn with_several_servers_each_gets_its_turn_and_one_that_is_gone_is_left_out() {
    let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (one, gone, two) = (listen().await, listen().await, listen().await);
    let to = [&one, &gone, &two].map(|listener| listener.local_addr().expect("an address"));
    drop(gone);
    let proxy = Proxy::among(to.to_vec(), 7).await.expect("a proxy");
    let mut clients = vec![];
    for server in [&one, &two, &two] {
        clients.push(TcpStream::connect(proxy.address()).await.expect("a connection"));
        timeout(PATIENCE, server.accept()).await.expect("its turn").expect("a connection");
    }
}
