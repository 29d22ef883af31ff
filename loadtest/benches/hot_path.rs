//! The pure pieces that every frame passes: what one of them costs alone, so that a change of it shows before it drowns
//! in system calls. They stand here, and not beside the crates, so that building and testing the product needs no
//! benchmark library.
//!
//!     cargo bench -p riser-loadtest

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use riser_bus::{Filter, Subject};
use riser_core::frame::outbound::{self, Delta};
use riser_core::frame::{Credential, Inbound};
use riser_core::limits::Limits;
use riser_core::routed::{self, Up};
use riser_core::state::State;
use riser_core::tenant::{Algorithm, SigningKey};
use riser_core::{Address, Change, GatewayKey, Grant, Json, Path, PathFilter, Peer, Tenant, TenantTable, Version};
use riser_edge::auth::{self, TokenOrder};
use riser_edge::ws::{self, Decoder, frame};

/// What a gateway sends most.
const STATE: &str = r#"{"t":"state","n":1712345678901,"set":{"kitchen/light":{"on":true,"level":80}}}"#;
/// A moment, Unix milliseconds.
const NOW_MS: u64 = 1_763_812_345_678;

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn address() -> Address {
    "b12/f0304".parse().expect("an address")
}

fn value() -> Json {
    Json::parse(r#"{"on":true,"level":80}"#).expect("JSON")
}

fn change() -> Change {
    Change::values([(path("kitchen/light"), Some(value()))], false)
}

/// A client's frame, masked.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![0x81, 0x80 | u8::try_from(payload.len()).expect("a short frame")];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn websocket(c: &mut Criterion) {
    let bytes = masked(STATE.as_bytes());
    let mut decoder = Decoder::new(ws::Limits::default());
    c.bench_function("ws: decode a frame of state", |b| {
        b.iter_batched_ref(
            || bytes.clone(),
            |bytes| {
                decoder.feed(bytes, 1, &mut |message| {
                    black_box(message);
                    ControlFlow::Continue(())
                })
            },
            BatchSize::SmallInput,
        );
    });
    c.bench_function("ws: encode a frame of state", |b| b.iter(|| frame::text(black_box(STATE))));
}

fn frames(c: &mut Criterion) {
    c.bench_function("frame: parse state", |b| b.iter(|| Inbound::parse(black_box(STATE))));
    let (address, path, value) = (address(), path("kitchen/light"), value());
    c.bench_function("frame: write state for listeners", |b| {
        b.iter(|| {
            let delta = Delta {
                version: Version::new(NOW_MS, 42),
                set: vec![(&path, Some(&value))],
                fresh: Vec::new(),
                stale: Vec::new(),
                at_ms: NOW_MS,
                ts_ms: None,
            };
            outbound::state(black_box(&address), &delta)
        });
    });
}

fn between_edges(c: &mut Criterion) {
    let up = Up::State { version: Version::new(NOW_MS, 42), change: change(), at_ms: NOW_MS, ts_ms: None };
    let bytes = routed::encode(&up);
    c.bench_function("routed: encode a change", |b| b.iter(|| routed::encode(black_box(&up))));
    c.bench_function("routed: decode a change", |b| b.iter(|| routed::decode::<Up>(black_box(&bytes))));
    let subject = Subject::Up(GatewayKey::new("acme".parse().expect("a tenant"), address()));
    let text = subject.to_string();
    c.bench_function("subject: write", |b| b.iter(|| black_box(&subject).to_string()));
    c.bench_function("subject: parse", |b| b.iter(|| Subject::parse(black_box(&text))));
    let filter = Filter::Up("acme".parse().expect("a tenant"), "b12/*".parse().expect("a pattern"));
    c.bench_function("subject: match", |b| b.iter(|| filter.matches(black_box(&subject))));
}

fn state(c: &mut Criterion) {
    let filter = PathFilter::parse(&["kitchen/#", "+/lock", "hall/meter/power"]).expect("patterns");
    let path = path("kitchen/light");
    c.bench_function("filter: match a path against three patterns", |b| b.iter(|| filter.matches(black_box(&path))));
    let mut state = State::default();
    for i in 0..20 {
        state.apply(&Change::values([(self::path(&format!("d{i}/v")), Some(value()))], false));
    }
    let change = change();
    let limits = Limits::default();
    c.bench_function("state: admit and apply a change", |b| {
        b.iter(|| {
            let admitted = state.admits(black_box(&change), &limits);
            (admitted, state.apply(&change))
        });
    });
}

/// A tenant that signs tokens.
fn tenant() -> Tenant {
    let keys = [SigningKey::hs256("k1", vec![7; 32]).entry()];
    Tenant { signing_kid: "k1".into(), signing_keys: keys.into(), ..Tenant::default() }
}

fn tokens(c: &mut Criterion) {
    let id = "acme".parse().expect("a tenant");
    let order =
        TokenOrder { peer: Peer::Client { subject: "alice".into() }, grants: vec![Grant::everything()], ttl_s: 3_600 };
    let token = auth::mint(&id, &tenant(), &order, NOW_MS).expect("a good order").token;
    let table: TenantTable = [(id, tenant())].into_iter().collect();
    let credential = Credential::new(token);
    auth::verify(&table, &credential, NOW_MS).expect("a good token");
    c.bench_function("auth: verify a client's token", |b| {
        b.iter(|| auth::verify(&table, black_box(&credential), NOW_MS));
    });
}

criterion_group!(hot_path, websocket, frames, between_edges, state, tokens);
criterion_main!(hot_path);
