//! Who gets in, and what is refused.

use std::path::Path;

use riser_bus::Bus;
use riser_bus::nats::{NatsAuth, NatsClient, NatsConfig, NatsError};
use riser_testkit::real::folder::Folder;
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::{PATIENCE, program};

async fn start_with(extra: &str) -> NatsServers {
    let options = NatsOptions { extra: extra.into(), ..NatsOptions::default() };
    NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server that starts")
}

async fn try_with(servers: &NatsServers, auth: NatsAuth) -> Result<NatsClient, NatsError> {
    let config = NatsConfig { auth, ..NatsConfig::new(servers.urls(), "test") };
    timeout(PATIENCE, NatsClient::connect(&config)).await.expect("an answer in time")
}

#[tokio::test]
async fn a_user_is_let_in_with_the_right_password_only() {
    let servers = start_with("authorization { user: edge, password: right }").await;
    let user = |password: &str| NatsAuth::User { user: "edge".into(), password: password.into() };
    let client = try_with(&servers, user("right")).await.expect("a client");
    assert!(client.bus().health().borrow().connected);
    for auth in [user("wrong"), NatsAuth::Nobody, NatsAuth::Token("right".into())] {
        let error = try_with(&servers, auth).await.err().expect("a refusal");
        assert!(matches!(error, NatsError::Refused), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_is_let_in_when_it_is_the_right_one() {
    let servers = start_with("authorization { token: right }").await;
    try_with(&servers, NatsAuth::Token("right".into())).await.expect("a client");
    let error = try_with(&servers, NatsAuth::Token("wrong".into())).await.err().expect("a refusal");
    assert!(matches!(error, NatsError::Refused), "{error:?}");
}

/// Makes a certificate for this machine that only it itself has signed, and its key.
fn self_signed(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
}

#[tokio::test]
async fn a_server_is_trusted_by_the_configured_root_only() {
    let (folder, other) = (Folder::new("tls").expect("a folder"), Folder::new("tls").expect("a folder"));
    self_signed(folder.path());
    self_signed(other.path());
    let path = folder.path().display();
    let servers = start_with(&format!("tls {{ cert_file: \"{path}/cert.pem\", key_file: \"{path}/key.pem\" }}")).await;
    let config = |root: Option<&Folder>| NatsConfig {
        tls_root: root.map(|folder| folder.path().join("cert.pem")),
        ..NatsConfig::new(servers.urls(), "test")
    };
    let client = NatsClient::connect(&config(Some(&folder))).await.expect("a client");
    assert!(client.flush().await);
    for root in [None, Some(&other)] {
        let error = NatsClient::connect(&config(root)).await.err().expect("a refusal");
        assert!(matches!(error, NatsError::Unreachable(_) | NatsError::Tls(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_a_root_is_configured() {
    let folder = Folder::new("tls").expect("a folder");
    self_signed(folder.path());
    let servers = start_with("").await;
    let root = Some(folder.path().join("cert.pem"));
    let config = NatsConfig { tls_root: root, ..NatsConfig::new(servers.urls(), "test") };
    timeout(PATIENCE, NatsClient::connect(&config)).await.expect("an answer in time").err().expect("a refusal");
}

/// A server that the cluster tells of has no scheme: what one URL asks for holds for all.
#[tokio::test]
async fn a_server_without_tls_is_refused_when_another_url_asks_for_it() {
    let servers = start_with("").await;
    let urls = vec!["tls://127.0.0.1:1".to_owned(), servers.url(0)];
    let refused = timeout(PATIENCE, NatsClient::connect(&NatsConfig::new(urls, "test"))).await;
    refused.expect("an answer in time").err().expect("a refusal");
}

#[tokio::test]
async fn a_credentials_file_that_is_none_is_refused() {
    let servers = start_with("").await;
    let folder = Folder::new("creds").expect("a folder");
    let missing = folder.path().join("missing.creds");
    let garbled = folder.path().join("garbled.creds");
    std::fs::write(&garbled, "-----BEGIN NATS USER JWT-----\nsecret\n").expect("a file");
    for path in [missing, garbled] {
        let error = try_with(&servers, NatsAuth::CredsFile(path)).await.err().expect("a refusal");
        assert!(matches!(error, NatsError::Credentials(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_server_of_an_old_version_is_refused_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
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
    let config = NatsConfig::new(vec![url], "test");
    let connect = NatsClient::connect(&config);
    let (_stream, refused) = timeout(PATIENCE, async { tokio::join!(old_server, connect) }).await.expect("an end");
    let error = refused.err().expect("a refusal");
    assert!(matches!(error, NatsError::TooOld { .. }), "{error:?}");
    assert!(error.to_string().contains("grandmother") && error.to_string().contains("2.11.10"), "{error}");
}

#[tokio::test]
async fn when_nobody_answers_it_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("nats://{}", listener.local_addr().expect("an address"));
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("nats://{}", listener.local_addr().expect("an address"))
    };
    let config = NatsConfig::new(vec![silent, gone], "test");
    let refused = timeout(PATIENCE, NatsClient::connect(&config)).await.expect("an answer in time");
    assert!(matches!(refused.err().expect("a refusal"), NatsError::Unreachable(_)));
}
