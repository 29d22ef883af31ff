//! Who gets in, and what is refused.

use std::path::Path;

use riser_registry::redis::{ConnectError, Identity, Password, RedisConfig, RedisRegistry, Servers, Tls};
use riser_registry::{Registry, StateStore, StreamStore};
use riser_testkit::real::folder::Folder;
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{address, by_sentinels, config, connect, key, lease, start, start_with};
use crate::{PATIENCE, program};

/// The least that an edge's user needs, as OPERATIONS.md is to say it.
const EDGE: &str = "user edge on >right ~riser:* resetchannels -@all +@hash +@set +@sortedset +@string +@scripting \
                    +@connection +time +type +unlink +exists +persist +pexpire +pexpireat +info";

async fn refused(config: RedisConfig) -> ConnectError {
    let connected = timeout(PATIENCE, RedisRegistry::connect(config)).await.expect("an answer in time");
    connected.err().expect("a refusal")
}

fn with_user(servers: &RedisServers, user: Option<&str>, password: Option<&str>) -> RedisConfig {
    let password = password.map(|password| Password(password.into()));
    RedisConfig { user: user.map(str::to_owned), password, ..config(servers) }
}

#[tokio::test]
async fn a_user_of_the_access_list_is_let_in_with_the_right_password_and_can_do_all_an_edge_does() {
    let extra = vec!["user default off".into(), EDGE.into()];
    let login = Some(("edge".into(), "right".into()));
    let servers = start_with(&RedisOptions { extra, login, ..RedisOptions::default() }).await;
    let registry = connect(with_user(&servers, Some("edge"), Some("right"))).await;
    registry.ping().await.expect("an answer");
    let info = registry.server_info().await.expect("an answer");
    assert_eq!((info.is_master, info.append_only, info.snapshots), (true, false, None), "CONFIG is not its business");
    super::trouble::use_everything(&registry).await;
    assert_eq!((registry.counts().errors, registry.counts().script_errors), (1, 0), "but for CONFIG");

    for (user, password) in [(Some("edge"), Some("wrong")), (Some("other"), Some("right")), (None, Some("right"))] {
        let error = refused(with_user(&servers, user, password)).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        let (text, port) = (error.to_string(), servers.port(0).to_string());
        assert!(text.contains(&port) && !text.contains("right") && !text.contains('\n'), "{text}");
    }
    let error = refused(with_user(&servers, None, None)).await;
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    let error = refused(with_user(&servers, Some("edge"), None)).await;
    assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
}

#[tokio::test]
async fn a_password_alone_is_that_of_the_default_user() {
    let extra = vec!["requirepass right".into()];
    let login = Some(("default".into(), "right".into()));
    let servers = start_with(&RedisOptions { extra, login, ..RedisOptions::default() }).await;
    connect(with_user(&servers, None, Some("right"))).await.ping().await.expect("an answer");
    let error = refused(with_user(&servers, None, Some("wrong"))).await;
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}

/// Makes a certificate for this machine that only it itself has signed, and its key.
fn self_signed(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
}

async fn start_tls(folder: &Path, clients: &str) -> RedisServers {
    let path = folder.display();
    let extra = vec![
        format!("tls-cert-file {path}/cert.pem"),
        format!("tls-key-file {path}/key.pem"),
        format!("tls-ca-cert-file {path}/cert.pem"),
        format!("tls-auth-clients {clients}"),
    ];
    start_with(&RedisOptions { extra, tls: true, ..RedisOptions::default() }).await
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect("a file")
}

#[tokio::test]
async fn a_server_is_trusted_by_the_configured_root_only() {
    let (folder, other) = (Folder::new("tls").expect("a folder"), Folder::new("tls").expect("a folder"));
    self_signed(folder.path());
    self_signed(other.path());
    let servers = start_tls(folder.path(), "no").await;
    let with_root = |root: Option<&Folder>| {
        let ca_pem = root.map(|folder| read(folder.path(), "cert.pem"));
        RedisConfig { tls: Some(Tls { ca_pem, identity: None }), ..config(&servers) }
    };
    connect(with_root(Some(&folder))).await.ping().await.expect("an answer");
    for root in [None, Some(&other)] {
        let error = refused(with_root(root)).await;
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    }
    let error = refused(config(&servers)).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    let plain = start().await;
    let tls = with_root(Some(&folder)).tls;
    let error = refused(RedisConfig { tls, ..config(&plain) }).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_ours() {
    let folder = Folder::new("tls").expect("a folder");
    self_signed(folder.path());
    let servers = start_tls(folder.path(), "yes").await;
    let with_identity = |identity| {
        let ca_pem = Some(read(folder.path(), "cert.pem"));
        RedisConfig { tls: Some(Tls { ca_pem, identity }), ..config(&servers) }
    };
    let (certificate_pem, key_pem) = (read(folder.path(), "cert.pem"), read(folder.path(), "key.pem"));
    let identity = Identity { certificate_pem, key_pem };
    connect(with_identity(Some(identity.clone()))).await.ping().await.expect("an answer");
    let error = refused(with_identity(None)).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    let garbled = Identity { key_pem: b"secret".to_vec(), ..identity };
    let error = refused(with_identity(Some(garbled))).await;
    assert!(matches!(&error, ConnectError::Config(text) if !text.contains("secret")), "{error:?}");
}

#[tokio::test]
async fn certificates_that_are_none_are_refused() {
    let tls = Some(Tls { ca_pem: Some(b"secret".to_vec()), identity: None });
    let error = refused(RedisConfig { tls, ..RedisConfig::new(Servers::Single(address(1))) }).await;
    assert!(matches!(&error, ConnectError::Config(text) if !text.contains("secret")), "{error:?}");
}

/// A server that answers everything with the same.
async fn says(listener: &TcpListener, answers: &[&str]) {
    let (mut stream, _) = listener.accept().await.expect("a client");
    for answer in answers {
        let mut bytes = [0; 1_024];
        assert_ne!(stream.read(&mut bytes).await.expect("a client that writes"), 0, "the client left");
        stream.write_all(answer.as_bytes()).await.expect("a client that reads");
    }
    // Until the client leaves.
    while stream.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {}
}

async fn refused_by(answers: &[&str]) -> (ConnectError, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let config = RedisConfig::new(Servers::Single(address(port)));
    let both = async { tokio::join!(says(&listener, answers), refused(config)).1 };
    (timeout(PATIENCE, both).await.expect("an end"), port)
}

#[tokio::test]
async fn a_server_of_an_old_version_is_refused_by_name() {
    let hello = "*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    let unknown = "-ERR unknown command `HELLO`, with args beginning with: \r\n";
    let info = "# Server\r\nredis_version:5.0.14\r\nos:Linux\r\n";
    let info = &format!("${}\r\n{info}\r\n", info.len())[..];
    for (answers, version) in [(&[hello][..], "6.2.14"), (&[unknown, info], "5.0.14")] {
        let (error, port) = refused_by(answers).await;
        assert!(matches!(error, ConnectError::TooOld { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(version) && text.contains(&port.to_string()), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_redis_is_refused() {
    let (error, port) = refused_by(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn when_nobody_answers_it_says_so() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let gone_port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    for port in [silent_port, gone_port] {
        let error = refused(RedisConfig::new(Servers::Single(address(port)))).await;
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&port.to_string()) && !text.contains('\n'), "{text}");
        let servers =
            Servers::Sentinel { addresses: vec![address(port)], master: "riser".into(), user: None, password: None };
        let error = refused(RedisConfig::new(servers)).await;
        assert!(matches!(&error, ConnectError::NoMaster { .. }), "{error:?}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_replica_a_sentinel_and_a_node_of_a_cluster_are_not_taken_for_a_master() {
    let program = program("RISER_REDIS_SERVER");
    let servers = RedisServers::start_with_sentinels(&program, &RedisOptions::default()).await.expect("servers");
    let single = |port| RedisConfig::new(Servers::Single(address(port)));
    let error = refused(single(servers.port(1))).await;
    assert!(matches!(error, ConnectError::Replica { .. }), "{error:?}");
    let error = refused(single(servers.sentinels()[0])).await;
    assert!(error.to_string().contains("Sentinel"), "{error}");
    let mut unknown = by_sentinels(&servers);
    if let Servers::Sentinel { master, .. } = &mut unknown.servers {
        "other".clone_into(master);
    }
    let error = refused(unknown).await;
    assert!(matches!(&error, ConnectError::NoMaster { master, .. } if master == "other"), "{error:?}");

    let extra = vec!["cluster-enabled yes".into()];
    let cluster = start_with(&RedisOptions { extra, ..RedisOptions::default() }).await;
    let error = refused(single(cluster.port(0))).await;
    assert!(matches!(error, ConnectError::Cluster { .. }), "{error:?}");
}

#[tokio::test]
async fn databases_of_one_server_know_nothing_of_each_other() {
    let servers = start().await;
    let (zero, three) =
        (connect(config(&servers)).await, connect(RedisConfig { database: 3, ..config(&servers) }).await);
    zero.acquire(&lease("one", 1), &key("t", "b/g"), None).await.expect("an answer");
    assert!(zero.read(&key("t", "b/g")).await.expect("an answer").is_some());
    assert_eq!(three.read(&key("t", "b/g")).await, Ok(None));
    assert_eq!(three.streams(&key("t", "b/g").tenant, None).await, Ok(vec![]));
}
