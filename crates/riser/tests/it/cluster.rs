//! `riser dev`: its ready file, its switches, its end.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use riser_client::{Client, Config, Event, Gateway, Link, Subscription, Update};
use riser_core::frame::Credential;
use riser_core::{Devices, Json, Path};
use tokio::time::timeout;

use super::{Dev, Riser, WAIT, riser};

fn config(url: &str, credential: &str) -> Config {
    Config::new(url.parse().expect("an endpoint"), Credential::new(credential))
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn json(text: &str) -> Json {
    Json::parse(text).expect("JSON")
}

/// A token of a gateway, made by the tool that users have.
fn token(dev: &Dev, address: &str) -> String {
    let tool = Riser::start(dev.tool(&["token", "gateway", address]));
    let token = tool.line().expect("a token");
    assert!(tool.ended().status.success());
    token
}

/// Takes events up to the first update that this is true of.
async fn seen(client: &mut Client, wanted: impl Fn(&Client, &Update) -> bool) {
    let seeing = async {
        loop {
            if let Event::Frame { update: Some(update), .. } = client.next().await.expect("an event")
                && wanted(client, &update)
            {
                return;
            }
        }
    };
    timeout(WAIT, seeing).await.expect("it is seen in time");
}

#[test]
fn the_ready_file_says_where_and_how() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    for (name, scheme, end) in
        [("ws", "ws://127.0.0.1:", "/v1/ws"), ("http", "http://127.0.0.1:", ""), ("admin", "http://127.0.0.1:", "")]
    {
        let urls = dev.ready[name].as_array().expect("a list");
        assert_eq!(urls.len(), 2, "{name}");
        for url in urls {
            let url = url.as_str().expect("a text");
            let port = url.strip_prefix(scheme).and_then(|rest| rest.strip_suffix(end)).expect(url);
            assert_ne!(port.parse::<u16>().expect(url), 0);
        }
    }
    assert_eq!(dev.text("tenant"), "dev");
    assert!(dev.text("api_key").starts_with("rk_"));
    assert_eq!(dev.text("client_token").split('.').count(), 3);
    assert!(dev.text("signing_key").len() >= 32);
    let mode = std::fs::metadata(&dev.file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(dev.admin(1, "GET /readyz").0, 200);
    assert!(dev.admin(0, "GET /metrics").1.contains("riser_"));
}

#[test]
fn a_signal_ends_it_and_its_ready_file() {
    for name in ["TERM", "INT"] {
        let dev = Dev::start(&["--flats", "2"]);
        dev.riser.signal(name);
        let Dev { riser, file, _folder, .. } = dev;
        assert_eq!(riser.ended().status.code(), Some(0), "{name}");
        assert!(!file.exists(), "{name}");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_drain() {
    let dev = Dev::start(&["--flats", "0", "--drain-window", "10m"]);
    let opened = timeout(WAIT, Link::open(&config(&dev.url("http", 0), &dev.text("api_key")))).await;
    let (mut link, _) = opened.expect("in time").expect("a session");
    dev.riser.signal("TERM");
    let frame = timeout(WAIT, link.next()).await.expect("in time").expect("a frame");
    assert!(frame.starts_with(r#"{"t":"goaway""#), "{frame}");
    dev.riser.signal("TERM");
    let Dev { riser, _folder, .. } = dev;
    assert_eq!(riser.ended().status.code(), Some(130));
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    for args in [["--listen", &at, "--admin", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--admin", &at]] {
        let ended = Riser::start(riser(&[&["dev"], &args[..]].concat())).ended();
        assert_eq!(ended.status.code(), Some(69));
        assert_eq!(ended.stderr, format!("riser: cannot listen on {at}: the port is in use\n"));
    }
}

#[test]
fn an_edge_is_killed_and_brought_back_by_any_admin_port() {
    let dev = Dev::start(&["--edges", "2", "--flats", "0"]);
    let down = (200, r#"{"edge":1,"running":false}"#.to_owned());
    let up = (200, r#"{"edge":1,"running":true}"#.to_owned());
    assert_eq!(dev.admin(0, "POST /dev/edges/1/start").0, 409);
    assert_eq!(dev.admin(0, "POST /dev/edges/1/kill"), down);
    assert_eq!(dev.admin(1, "POST /dev/edges/1/kill").0, 409);
    assert_eq!(dev.admin(1, "GET /healthz").0, 200);
    assert_eq!(dev.admin(1, "GET /readyz").0, 503);
    assert_eq!(dev.admin(0, "GET /readyz").0, 200);
    let at = dev.url("http", 1);
    let at = at.strip_prefix("http://").expect("a URL");
    assert!(std::net::TcpStream::connect(at).is_err(), "a killed edge does not listen");
    assert_eq!(dev.admin(1, "POST /dev/edges/1/start"), up);
    assert!(std::net::TcpStream::connect(at).is_ok(), "it listens again");
    assert_eq!(dev.admin(0, "POST /dev/edges/2/kill").0, 404);
    assert_eq!(dev.admin(0, "GET /dev/edges/1/kill").0, 405);
}

#[tokio::test]
async fn a_gateway_and_a_client_live_through_the_death_of_their_edge() {
    let dev = Dev::start(&["--flats", "0"]);
    let url = dev.url("http", 0);
    let gateway = Gateway::connect(config(&url, &token(&dev, "b9/g"))).await.expect("a session");
    let mut client = Client::connect(config(&url, &dev.text("client_token"))).await.expect("a session");
    client.subscribe(Subscription::all("b9/*".parse().expect("a pattern"))).await.expect("few");
    let devices: Devices = serde_json::from_str(r#"{"k":{"kind":"dimmer","name":"Kitchen"}}"#).expect("devices");
    let of = "b9/g".parse().expect("an address");
    let value = |client: &Client, at: &str| {
        let seen = client.view().get(&of)?;
        seen.values.get(&path(at)).map(|value| (value.value.as_str().to_owned(), value.stale))
    };
    gateway.describe(devices.clone()).await.expect("stored");
    gateway.set(BTreeMap::from([(path("k"), Some(json("1"))), (path("m"), Some(json("2")))])).await.expect("stored");
    gateway.device(path("m"), false).await.expect("stored");
    seen(&mut client, |client, _| value(client, "m") == Some(("2".into(), true))).await;
    assert_eq!(value(&client, "k"), Some(("1".into(), false)));

    assert_eq!(dev.admin(0, "POST /dev/edges/0/kill").0, 200);
    assert_eq!(dev.admin(0, "POST /dev/edges/0/start").0, 200);
    // Set while there may be no session: it is stored once there is one again.
    timeout(WAIT, gateway.set(BTreeMap::from([(path("k"), Some(json("3")))]))).await.expect("in time").expect("stored");
    seen(&mut client, |client, _| value(client, "k") == Some(("3".into(), false))).await;
    if value(&client, "m") != Some(("2".into(), true)) {
        seen(&mut client, |client, _| value(client, "m") == Some(("2".into(), true))).await;
    }
    assert_eq!(client.view().get(&of).and_then(|seen| seen.devices.clone()), Some(devices));
    gateway.close().await;
    seen(&mut client, |client, _| client.view().get(&of).is_some_and(|seen| !seen.online)).await;
    let seen = client.view().get(&of).expect("a gateway");
    assert_eq!(seen.reason, Some(riser_core::Reason::Closed));
}
