//! What an edge refuses to start with: one line, and an exit code that says what kind of trouble it is.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use riser_testkit::real::folder::Folder;
use riser_testkit::real::nats::NatsOptions;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::{PATIENCE, riser, servers};

/// Runs an edge with this configuration until it ends.
async fn run(folder: &Path, config: &str, set: &[String]) -> Output {
    let file = folder.join("riser.toml");
    std::fs::write(&file, config).expect("a file");
    let mut command = Command::new(riser());
    command.env_clear().arg("edge").arg("--config").arg(&file).stdin(Stdio::null());
    for set in set {
        command.arg("--set").arg(set);
    }
    let ran = tokio::task::spawn_blocking(move || command.output());
    timeout(PATIENCE, ran).await.expect("an end in time").expect("it ran").expect("it started")
}

/// Says that an edge ended so, with one line.
fn ended(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("riser: ")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(code), 1), "{text}");
    for part in parts {
        assert!(lines[0].contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_refused_before_anything_is_connected_to() {
    let folder = Folder::new("config").expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("broken"), "no certificate").expect("a file");
    std::fs::write(path.join("tenants.toml"), "").expect("a file");
    std::fs::write(path.join("bad.toml"), "[tenants.acme]\nx = 1\n").expect("a file");
    for (config, code, parts) in [
        (
            "[edge]\nhello = \"1s\"\nheartbeet = \"1s\"\n",
            64,
            ["line 3: there is no option", "the nearest is edge.heartbeat"],
        ),
        ("[edge]\nhandshakes = \"many\"\n", 64, ["line 2: edge.handshakes: a whole number", "not a string"]),
        ("[nats]\nservers = [\"nats://me:hunter2@a:1\"]\n", 64, ["line 2: nats.servers", "no credentials in a URL"]),
        ("[nats]\ntoken_file = \"missing\"\n", 69, ["nats.token_file: cannot read", "missing"]),
        ("[tls]\ncert_file = \"missing\"\nkey_file = \"broken\"\n", 69, ["cannot read the certificate", "missing"]),
        (
            "[tls]\ncert_file = \"broken\"\nkey_file = \"broken\"\n",
            69,
            ["broken", "there is no good certificate in it"],
        ),
        ("[tenants]\nfile = \"missing\"\n", 69, ["cannot read the tenants file", "missing"]),
        ("[tenants]\nfile = \"bad.toml\"\n", 64, ["bad.toml line 2", "unknown field `x`"]),
    ] {
        let output = run(path, config, &[]).await;
        ended(&output, code, &parts);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
}

#[tokio::test]
async fn servers_that_cannot_be_had_are_named_and_no_port_is_bound() {
    let folder = Folder::new("config").expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("tenants.toml"), "").expect("a file");
    let (nats, redis) = servers(&NatsOptions::default()).await;
    // Whoever binds it first finds it taken: an edge that complains of something else did not come so far.
    let holding = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holding.local_addr().expect("an address");
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let set = |nats: &str, redis: &str| {
        vec![format!("edge.listen={taken}"), format!("nats.servers={nats}"), format!("redis.server={redis}")]
    };
    let (good_nats, good_redis) = (nats.url(0), format!("redis://127.0.0.1:{}", redis.port(0)));
    let bad_nats = format!("nats://127.0.0.1:{nobody}");
    let output = run(path, "", &set(&bad_nats, &good_redis)).await;
    ended(&output, 69, &[&format!("nats ({bad_nats})"), "no NATS server answered"]);
    let output = run(path, "", &set(&good_nats, &format!("redis://127.0.0.1:{nobody}"))).await;
    ended(&output, 69, &["redis: ", &format!("127.0.0.1:{nobody}"), "cannot be reached"]);
    let output = run(path, "", &set(&good_nats, &good_redis)).await;
    ended(&output, 69, &[&format!("cannot listen on {taken}: the port is in use")]);
    drop(holding);
}

#[tokio::test]
async fn a_nats_server_that_is_too_old_is_refused_by_its_name() {
    let folder = Folder::new("config").expect("a folder");
    std::fs::write(folder.path().join("tenants.toml"), "").expect("a file");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let old_server = async {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut stream = BufReader::new(stream);
        let info = r#"INFO {"server_name":"grandmother","version":"2.11.10","max_payload":1048576,"headers":true}"#;
        stream.get_mut().write_all(format!("{info}\r\n").as_bytes()).await.expect("a client that reads");
        let mut line = String::new();
        while line != "PING\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).await.expect("a client that writes"), 0, "the client left");
        }
        stream.get_mut().write_all(b"PONG\r\n").await.expect("a client that reads");
        stream
    };
    let set = [format!("nats.servers={url}")];
    let (_stream, output) = tokio::join!(old_server, run(folder.path(), "", &set));
    ended(&output, 69, &["grandmother", "2.11.10", "2.12.0 is the oldest"]);
}
