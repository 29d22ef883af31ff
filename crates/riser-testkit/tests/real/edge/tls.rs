//! TLS on the listener, and a certificate that changes.

use std::sync::Arc;

use riser_testkit::real::edges::Edges;
use riser_testkit::real::folder::Folder;
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{Cluster, LOOK_EVERY, PATIENCE, options, program, riser, servers};

type Made = rcgen::CertifiedKey<rcgen::KeyPair>;

fn certificate() -> Made {
    rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate")
}

fn write(edges: &Edges, made: &Made) {
    edges.write("tls.key", &made.signing_key.serialize_pem()).expect("a file");
    edges.write("tls.crt", &made.cert.pem()).expect("a file");
}

async fn connect(cluster: &Cluster, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", cluster.edges.port(0))).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("in time")
}

/// Asks something, on a connection that is kept.
async fn ask(stream: &mut TlsStream<TcpStream>, key: &str) {
    let request =
        format!("GET /v1/presence?building=b1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    stream.flush().await.expect("written");
    let mut answer = [0; 4_096];
    let count = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..count]));
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let (nats, redis) = servers(&NatsOptions::default()).await;
    let mut edges = Edges::prepare(&riser(), 1, &options(&nats, &redis, &[])).expect("files");
    let config = std::fs::read_to_string(edges.path("riser.toml")).expect("the configuration");
    let files = "[tls]\ncert_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
    edges.write("riser.toml", &format!("{config}{files}")).expect("a file");
    let (old, new) = (certificate(), certificate());
    write(&edges, &old);
    edges.launch(0).expect("an edge");
    edges.ready(0).await.expect("a ready edge");
    let cluster = Cluster { edges, nats, redis };
    let key = &cluster.edges.key;
    let mut kept = connect(&cluster, old.cert.der()).await.expect("a handshake");
    ask(&mut kept, key).await;

    write(&cluster.edges, &new);
    let taken = async {
        while connect(&cluster, new.cert.der()).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("the new certificate in time");
    assert!(connect(&cluster, old.cert.der()).await.is_err());
    ask(&mut kept, key).await;

    cluster.edges.write("tls.crt", "no certificate").expect("a file");
    let note = cluster.edges.until_ready_says(0, 200, "tls: what was read before is used").await.expect("a note");
    assert!(note.contains("there is no good certificate in it"), "{note}");
    assert!(cluster.metric(0, r#"riser_reloads_total{outcome="refused",what="tls"}"#).await >= 1);
    let mut still = connect(&cluster, new.cert.der()).await.expect("the certificate of before");
    ask(&mut still, key).await;
}

/// Runs `riser` with the edges' configuration; its exit code and all that it says.
async fn run(edges: &Edges, words: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(riser());
    command.env_clear().args(words).arg("--config").arg(edges.path("riser.toml"));
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(PATIENCE, ran).await.expect("an end in time").expect("it ran").expect("it started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn nats_and_redis_that_ask_for_a_certificate_are_shown_one() {
    let folder = Folder::new("tls").expect("a folder");
    let path = folder.path().display().to_string();
    // The servers trust this one alone, which is their own as well.
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    for (name, text) in [("own.crt", made.cert.pem()), ("own.key", made.signing_key.serialize_pem())] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    let extra = format!(
        "tls {{ cert_file: \"{path}/own.crt\", key_file: \"{path}/own.key\", ca_file: \"{path}/own.crt\", verify: true }}"
    );
    let of_nats = NatsOptions { extra, ..NatsOptions::default() };
    let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &of_nats).await.expect("NATS");
    let files = [("tls-cert-file", "own.crt"), ("tls-key-file", "own.key"), ("tls-ca-cert-file", "own.crt")];
    let extra = files.map(|(option, file)| format!("{option} {path}/{file}")).to_vec();
    let of_redis = RedisOptions { extra, tls: true, ..RedisOptions::default() };
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &of_redis).await.expect("Redis");
    let mut edges = Edges::prepare(&riser(), 1, &options(&nats, &redis, &[])).expect("files");
    let plain = std::fs::read_to_string(edges.path("riser.toml")).expect("the configuration");
    let with = |own: &str| {
        let section = |name: &str| format!("[{name}]\nca_file = \"{path}/own.crt\"\n{own}");
        let text = plain.replace("nats://", "tls://").replace("redis://", "rediss://");
        text.replace("[nats]\n", &section("nats")).replace("[redis]\n", &section("redis"))
    };
    let own = format!("cert_file = \"{path}/own.crt\"\nkey_file = \"{path}/own.key\"\n");
    edges.write("riser.toml", &with(&own)).expect("a file");
    let (code, said) = run(&edges, &["edge", "check-config"]).await;
    assert_eq!(code, Some(0), "{said}");
    edges.launch(0).expect("an edge");
    edges.ready(0).await.expect("a ready edge");
    let (_, said) = run(&edges, &["doctor"]).await;
    for part in ["✓ tls: ", "✓ nats: n0", "✓ edges: edge-0", "✓ redis: 127.0.0.1:"] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }

    edges.write("riser.toml", &with("")).expect("a file");
    let (code, said) = run(&edges, &["doctor"]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["✗ nats (tls://127.0.0.1:", "✗ redis: "] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }

    // A key of another certificate is found before anything is connected to.
    std::fs::write(folder.path().join("other.key"), certificate().signing_key.serialize_pem()).expect("a file");
    edges.write("riser.toml", &with(&own.replace("own.key", "other.key"))).expect("a file");
    let (code, said) = run(&edges, &["edge", "check-config"]).await;
    assert!(code == Some(69) && said.contains("other.key"), "{code:?} {said}");
}
