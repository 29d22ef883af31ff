//! The flats of a provider's first city: registered from a list, enrolled by their codes, connected, renewed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use riser_client::{Api, End, Link, enrol};
use riser_core::Address;
use riser_core::frame::Credential;
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;

use super::{SECRET, end, plane};
use crate::{PATIENCE, program};

/// Buildings, and flats in each.
const BUILDINGS: usize = 50;
const IN_EACH: usize = 100;
/// How many are enrolled and connected at once.
const AT_ONCE: usize = 40;
/// How long all of that may take, on a machine that is busy.
const ALL: Duration = Duration::from_secs(180);

/// Runs `riser gateway import`; the codes by address.
async fn import(url: &str, list: &std::path::Path) -> BTreeMap<Address, String> {
    let mut command = Command::new(program("RISER_BIN"));
    command.env_clear().args(["gateway", "import", "acme"]).arg(list);
    command.env("RISER_CONTROL_URL", url).env("RISER_CONTROL_CREDENTIAL", SECRET);
    let ended = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("a program");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).expect("text");
    let rows = text.lines().filter_map(|line| {
        let (address, code) = (line.split(',').next()?, line.rsplit(',').next()?);
        Some((address.parse().ok()?, code.to_owned()))
    });
    rows.collect()
}

/// One frame is answered with this.
async fn asked(link: &mut Link, frame: &Value) -> Value {
    link.send(&frame.to_string()).expect("sent");
    loop {
        let text = timeout(PATIENCE, link.next()).await.expect("an answer in time").expect("an answer");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        if answer["n"] == frame["n"] {
            return answer;
        }
    }
}

/// A flat's gateway for the first time: it has a code, gets a token, connects with it, and renews it.
async fn begin(edges: &Edges, number: usize, address: &Address, code: &str) -> (Link, Credential) {
    let endpoint = edges.url(number).parse().expect("a URL");
    let enrolled = enrol(&endpoint, code).await.expect("a token");
    assert_eq!((enrolled.tenant.as_str(), &enrolled.address), ("acme", address));
    let (mut link, _) = edges.link(number, enrolled.token.expose()).await.expect("a session");
    let renewed = asked(&mut link, &json!({"t":"renew","n":1})).await;
    let token = renewed["token"].as_str().unwrap_or_else(|| panic!("{renewed}")).to_owned();
    let answer = asked(&mut link, &json!({"t":"auth","n":2,"token":token})).await;
    assert_eq!(answer["t"], "ok", "{answer}");
    (link, Credential::new(token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_flats_are_registered_enrolled_connected_and_renewed_and_one_moves_out() {
    let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &NatsOptions::default()).await.expect("NATS");
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await.expect("Redis");
    // Whose pings nobody answers while it waits for its turn is not to end of that.
    let set = vec!["tenants.source=kv".to_owned(), "edge.heartbeat=120s".to_owned()];
    let options = EdgesOptions { nats: nats.urls(), redis: redis.port(0), set, ..EdgesOptions::default() };
    let edges = Edges::start(&program("RISER_BIN"), 3, &options).await.expect("edges");
    let plane = plane(&nats, &redis).await;
    plane.ask(Method::POST, "/tenants", &json!({ "tenant": "acme" })).await;
    let (_, key) = plane.key("backend").await;
    for edge in 0..3 {
        drop(super::link(&edges, edge, &key).await);
    }

    let mut list = "address,name,floor,note\n".to_owned();
    for number in 0..BUILDINGS * IN_EACH {
        let (building, flat) = (number / IN_EACH, number % IN_EACH);
        writeln!(list, "b{building}/f{flat},\"Flat {flat}, {building}\",{},", flat / 4).expect("text");
    }
    edges.write("flats.csv", &list).expect("a list");
    let list = edges.path("flats.csv");
    let codes = timeout(ALL, import(&plane.url, &list)).await.expect("an end in time");
    assert_eq!(codes.len(), BUILDINGS * IN_EACH);
    assert_eq!(import(&plane.url, &list).await.len(), 0, "the same list again makes no other codes");

    let beginning = codes.iter().enumerate().map(|(number, (address, code))| {
        let edges = &edges;
        async move { (address.clone(), begin(edges, number % 3, address, code).await) }
    });
    let beginning = futures_util::stream::iter(beginning).buffer_unordered(AT_ONCE).collect::<BTreeMap<_, _>>();
    let mut flats = timeout(ALL, beginning).await.expect("all in time");
    let used = enrol(&edges.url(0).parse().expect("a URL"), codes.values().next().expect("a code")).await;
    assert!(matches!(used, Err(End::Refused { status: 403, .. })), "a code works once: {used:?}");
    for building in [0, BUILDINGS - 1] {
        let page = plane.ask(Method::GET, &format!("/tenants/acme/gateways?building=b{building}"), &Value::Null).await;
        let rows = page["gateways"].as_array().expect("rows");
        assert!(rows.len() == IN_EACH && rows.iter().all(|row| row["online"] == true), "{page}");
    }

    let leaving: Address = "b7/f7".parse().expect("an address");
    let (mut link, token) = flats.remove(&leaving).expect("a flat");
    let api = Api::new(edges.url(2).parse().expect("a URL"), Credential::new(key.as_str()));
    let erased = api.erase_gateway(&leaving).await.expect("an answer");
    assert!(erased.revoked, "{erased:?}");
    let end = end(&mut link).await;
    assert!(matches!(end, End::Closed { code: 4504 | 4000, .. }), "{end:?}");
    let refused = edges.link(0, token.expose()).await.expect_err("a refusal").downcast::<End>().expect("an end");
    assert!(matches!(refused, End::Refused { status: 401, .. } | End::Closed { code: 4501 | 4504, .. }), "{refused:?}");
    let page = plane.ask(Method::GET, "/tenants/acme/flats?building=b7", &Value::Null).await;
    let rows = page["flats"].as_array().expect("rows");
    assert!(rows.len() == IN_EACH - 1 && rows.iter().all(|row| row["address"] != "b7/f7"), "{page}");

    assert_eq!(flats.len(), BUILDINGS * IN_EACH - 1);
    let going_on = flats.values_mut().map(async |(link, _)| asked(link, &json!({"t":"ping","n":3})).await);
    let answers: Vec<_> = futures_util::stream::iter(going_on).buffer_unordered(AT_ONCE).collect().await;
    let wrong = answers.iter().find(|answer| answer["t"] != "ok");
    assert!(wrong.is_none(), "one of the others does not go on: {wrong:?}");
}
