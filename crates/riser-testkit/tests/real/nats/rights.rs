//! Users with a key of their own, and users with no more rights than an edge needs.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use nkeys::KeyPair;
use riser_bus::kv::{Kv, Seen, Written};
use riser_bus::log::Log;
use riser_bus::nats::{NatsAuth, NatsClient, NatsConfig, NatsError};
use riser_bus::{Bucket, Bus, Entry, Filter, Subject, inbox};
use riser_core::GatewayKey;
use riser_core::command::Digest;
use riser_testkit::real::folder::Folder;
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::kv::kv_config;
use super::{event, log_config, tenant};
use crate::{PATIENCE, program};

/// The window of repeats.
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

/// Says of a key's owner what `claims` say, signed by another.
fn jwt(of: &KeyPair, by: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let name = of.public_key();
    let body =
        part(&json!({ "jti": name, "iat": 1, "iss": by.public_key(), "sub": name, "name": name, "nats": claims }));
    let signed = format!("{head}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(by.sign(signed.as_bytes()).expect("a key that signs"));
    format!("{signed}.{signature}")
}

/// An operator with one account for edges, and the servers' configuration for them.
struct Operator {
    account: KeyPair,
    configuration: String,
}

fn operator() -> Operator {
    let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_operator = jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 }));
    let of_account = jwt(&account, &operator, &json!({ "type": "account", "version": 2, "limits": limits }));
    let without_streams = json!({ "subs": -1, "conn": -1, "data": -1, "payload": -1, "wildcards": true });
    let of_system = jwt(&system, &operator, &json!({ "type": "account", "version": 2, "limits": without_streams }));
    let configuration = format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {account}: {of_account}, {system}: {of_system} }}",
        account = account.public_key(),
        system = system.public_key(),
    );
    Operator { account, configuration }
}

/// Writes what a user logs in with: that an account knows it, and its own key.
fn credentials(folder: &Path, account: &KeyPair, user: &KeyPair) -> PathBuf {
    let claims = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let known = jwt(user, account, &claims);
    let seed = user.seed().expect("a key with a seed");
    let path = folder.join(format!("{}.creds", user.public_key()));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{known}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(&path, text).expect("a file");
    path
}

async fn start_with(extra: &str) -> NatsServers {
    let options = NatsOptions { extra: extra.into(), ..NatsOptions::default() };
    NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server that starts")
}

async fn try_with(servers: &NatsServers, auth: NatsAuth) -> Result<NatsClient, NatsError> {
    let config = NatsConfig { auth, ..NatsConfig::new(servers.urls(), "test") };
    timeout(PATIENCE, NatsClient::connect(&config)).await.expect("an answer in time")
}

/// Does all that an edge does once.
async fn works(client: &NatsClient) {
    let (bus, log, tenant) = (client.bus(), client.log(log_config(1)), tenant());
    let key = GatewayKey::new(tenant.clone(), "b1/g1".parse().expect("an address"));
    let subject = Subject::Up(key.clone());
    let (inbox, mut received) = inbox(4);
    let filter = Filter::Up(tenant.clone(), "b1/*".parse().expect("a pattern"));
    let _subscription = bus.subscribe(&filter, &inbox).await.expect("a subscription");
    bus.publish(&subject, Bytes::from_static(b"hello")).await.expect("a bus that can be reached");
    timeout(PATIENCE, received.recv()).await.expect("a message in time").expect("an open inbox");
    let mut tail = log.tail(&tenant).await.expect("a tail");
    log.append(&tenant, event("one"), LONG).await.expect("an answer");
    let ended = timeout(PATIENCE, tail.events.recv()).await.expect("the end of a tail without a stream");
    assert_eq!(ended, None);
    let mut tail = log.tail(&tenant).await.expect("a tail");
    log.append(&tenant, event("two"), LONG).await.expect("an answer");
    let heard = timeout(PATIENCE, tail.events.recv()).await.expect("an event in time").expect("an open tail");
    assert_eq!(heard.seq, 2);
    assert_eq!(log.read(&tenant, 1).await.expect("an answer").events.len(), 2);
    log.append(&tenant, event("three"), 2 * LONG).await.expect("a stream whose window grows");
    let (kv, held) = (client.kv(kv_config(1)), Entry::Held(key, Digest([1; 16])));
    let mut watch = kv.watch(Bucket::Held).await.expect("a watch");
    while timeout(PATIENCE, watch.recv()).await.expect("an entry in time").expect("an open watch") != Seen::All {}
    let put = kv.put(&held, Bytes::from_static(b"one"), 0, Some(LONG)).await.expect("an answer");
    let Written::Yes(revision) = put else { panic!("{put:?}") };
    let seen = timeout(PATIENCE, watch.recv()).await.expect("a change in time");
    assert!(matches!(seen, Some(Seen::Put(..))), "{seen:?}");
    assert_eq!(kv.list(Bucket::Held, 0).await.expect("an answer").entries.len(), 1);
    assert!(kv.get(&held).await.expect("an answer").is_some());
    kv.delete(&held, revision).await.expect("an answer");
    kv.watch(Bucket::Tenants).await.expect("a watch of what it may not write");
}

#[tokio::test]
async fn a_user_with_a_credentials_file_is_let_in_when_its_account_signed_it() {
    let folder = Folder::new("creds").expect("a folder");
    let Operator { account, configuration } = operator();
    let servers = start_with(&configuration).await;
    let good = credentials(folder.path(), &account, &KeyPair::new_user());
    works(&try_with(&servers, NatsAuth::CredsFile(good)).await.expect("a client")).await;
    let bad = credentials(folder.path(), &KeyPair::new_account(), &KeyPair::new_user());
    for auth in [NatsAuth::CredsFile(bad), NatsAuth::Nobody] {
        let error = try_with(&servers, auth).await.err().expect("a refusal");
        assert!(matches!(error, NatsError::Refused), "{error:?}");
    }
}

/// The rights that the documentation of the bus asks for.
const RIGHTS: &str = r#"
authorization { users: [
  { user: edge, password: right, permissions: {
    publish: ["riser.v1.>", "$KV.riser-held.>", "$JS.FC.>", "$JS.API.DIRECT.GET.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.STREAM.INFO.*",
      "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.PURGE.*", "$JS.API.CONSUMER.CREATE.>",
      "$JS.API.CONSUMER.DELETE.>"],
    subscribe: ["riser.v1.>", "_INBOX.>", "$JS.EVENT.ADVISORY.STREAM.>"] } },
  { user: blind, password: right, permissions: { publish: ["riser.v1.>"], subscribe: ["_INBOX.>"] } }
] }"#;

fn user(name: &str) -> NatsAuth {
    NatsAuth::User { user: name.into(), password: "right".into() }
}

#[tokio::test]
async fn an_edge_needs_no_more_rights_than_it_is_said_to_need() {
    let servers = start_with(RIGHTS).await;
    works(&try_with(&servers, user("edge")).await.expect("a client")).await;
}

#[tokio::test]
async fn a_user_without_rights_gets_nothing_and_does_not_wait_for_it() {
    let servers = start_with(RIGHTS).await;
    let client = try_with(&servers, user("blind")).await.expect("a client");
    let log = client.log(log_config(1));
    timeout(PATIENCE, log.append(&tenant(), event("one"), LONG))
        .await
        .expect("an answer in time")
        .expect_err("no right");
}
