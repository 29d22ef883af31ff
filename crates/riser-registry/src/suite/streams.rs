//! Live streams: how they are opened, held and forgotten, and who is told that they are open.

use std::time::Duration;

use riser_core::live::{Stream, StreamId, StreamKind};
use riser_core::{BuildingId, GatewayKey, Json, Reason, TenantId};
use tokio::time::Instant;

use super::commands::holder;
use super::{Bench, LONG, LOOK_EVERY, PATIENCE, SHORT, building, path};
use crate::streams::STREAMS;
use crate::{Opened, Registry, StateStore, StreamStore};

impl<S: Registry + StateStore + StreamStore> Bench<S> {
    fn stream(&self, number: u32, at: &str) -> Stream {
        Stream {
            id: StreamId(number),
            of: at.parse().expect("an address"),
            path: path("door/1"),
            kind: StreamKind::Opus,
            params: Some(Json::parse(r#"{"rate":48000}"#).expect("JSON")),
            from: "client:anna".into(),
            edge: self.lease("opener", 1).edge,
        }
    }

    async fn open_for(&self, tenant: &TenantId, stream: &Stream, ttl: Duration) -> Opened {
        self.one.open_stream(tenant, stream, ttl).await.expect("an answer")
    }

    async fn opened(&self, tenant: &TenantId, stream: &Stream) {
        let opened = self.open_for(tenant, stream, LONG).await;
        assert!(matches!(opened, Opened::Open(_)), "{opened:?}");
    }

    async fn close(&self, tenant: &TenantId, stream: &Stream) {
        self.two.close_stream(tenant, &stream.of, stream.id).await.expect("an answer");
    }

    async fn streams(&self, tenant: &TenantId, building: Option<&BuildingId>) -> Vec<Stream> {
        self.two.streams(tenant, building).await.expect("an answer")
    }

    /// Waits until a stream has ended.
    async fn stream_ends(&self, tenant: &TenantId, stream: &Stream) {
        let give_up = Instant::now() + PATIENCE;
        while self.streams(tenant, None).await.contains(stream) {
            assert!(Instant::now() < give_up, "{stream:?} did not end within {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// An open stream is listed with all that its opener said, until it is closed. "One that is not known is forgotten
/// already."
pub async fn an_open_stream_is_listed_until_it_is_closed<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let tenant = bench.tenant("t");
    assert_eq!(bench.streams(&tenant, None).await, []);
    let plain = Stream { params: None, from: "gateway:b/g".into(), ..bench.stream(u32::MAX, "b/g") };
    let streams = [bench.stream(0, "b/g"), plain];
    for stream in &streams {
        bench.opened(&tenant, stream).await;
    }
    assert_eq!(bench.streams(&tenant, None).await, streams);
    for _ in 0..2 {
        bench.close(&tenant, &streams[0]).await;
        assert_eq!(bench.streams(&tenant, None).await, streams[1..]);
    }
    bench.close(&bench.tenant("nobody"), &streams[1]).await;
    bench.close(&tenant, &bench.stream(u32::MAX, "b/other")).await;
    assert_eq!(bench.streams(&tenant, None).await, streams[1..], "neither of another tenant nor of another address");
}

/// Opening tells "who holds the gateway of its address"; nobody holds a whole building.
pub async fn opening_a_stream_tells_who_holds_its_gateway<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let (stream, whole) = (bench.stream(1, "b/g"), bench.stream(2, "b/_"));
    assert_eq!(bench.open_for(&key.tenant, &stream, LONG).await, Opened::Open(None));
    let acquired = bench.acquire(&lease, &key).await;
    let held = Opened::Open(Some(holder(&lease.edge, &acquired)));
    for _ in 0..2 {
        assert_eq!(bench.open_for(&key.tenant, &stream, LONG).await, held);
    }
    assert_eq!(bench.open_for(&key.tenant, &whole, LONG).await, Opened::Open(None));
    bench.one.release(&key, acquired.epoch, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.open_for(&key.tenant, &stream, LONG).await, Opened::Open(None));
}

/// A stream is open "for `ttl` from now", and "a repeated call with the same stream holds it for longer".
pub async fn a_stream_ends_unless_it_is_opened_again<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let tenant = bench.tenant("t");
    let streams = [bench.stream(1, "b/g"), bench.stream(2, "b/g")];
    for stream in &streams {
        assert_eq!(bench.open_for(&tenant, stream, SHORT).await, Opened::Open(None));
    }
    bench.opened(&tenant, &streams[0]).await;
    bench.stream_ends(&tenant, &streams[1]).await;
    assert_eq!(bench.streams(&tenant, None).await, streams[..1]);
    bench.opened(&tenant, &streams[1]).await;
    assert_eq!(bench.streams(&tenant, None).await, streams, "what the store has lost comes back");
}

/// "Another open stream of the tenant has this number": nothing changes. It is free when that one is over.
pub async fn a_number_belongs_to_one_open_stream<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let tenant = bench.tenant("t");
    let stream = bench.stream(7, "b/g");
    bench.opened(&tenant, &stream).await;
    let others = [
        bench.stream(7, "b/other"),
        Stream { path: path("door/2"), ..stream.clone() },
        Stream { kind: StreamKind::Pcm16, ..stream.clone() },
        Stream { params: None, ..stream.clone() },
        Stream { from: "client:bert".into(), ..stream.clone() },
        Stream { edge: bench.lease("another", 1).edge, ..stream.clone() },
    ];
    for other in &others {
        assert_eq!(bench.open_for(&tenant, other, LONG).await, Opened::Taken);
    }
    assert_eq!(bench.streams(&tenant, None).await, std::slice::from_ref(&stream));
    assert_eq!(
        bench.open_for(&bench.tenant("u"), &others[0], LONG).await,
        Opened::Open(None),
        "each tenant has its own"
    );
    bench.close(&tenant, &stream).await;
    assert_eq!(bench.open_for(&tenant, &others[0], SHORT).await, Opened::Open(None));
    bench.stream_ends(&tenant, &others[0]).await;
    assert_eq!(bench.open_for(&tenant, &others[1], LONG).await, Opened::Open(None));
    assert_eq!(bench.streams(&tenant, None).await, others[1..2]);
}

/// Of two streams that take a number at once, one has it.
pub async fn of_streams_that_take_a_number_at_once_one_has_it<S: Registry + StateStore + StreamStore>(
    bench: &Bench<S>,
) {
    let tenant = bench.tenant("t");
    for number in 0..10 {
        let streams = [bench.stream(number, "b/g"), bench.stream(number, "c/g")];
        let (a, b) = tokio::join!(
            bench.one.open_stream(&tenant, &streams[0], LONG),
            bench.two.open_stream(&tenant, &streams[1], LONG),
        );
        let open = match (a.expect("an answer"), b.expect("an answer")) {
            (Opened::Open(None), Opened::Taken) => &streams[0],
            (Opened::Taken, Opened::Open(None)) => &streams[1],
            other => panic!("{other:?}"),
        };
        assert_eq!(bench.streams(&tenant, None).await, std::slice::from_ref(open));
        bench.close(&tenant, open).await;
    }
}

/// "The open streams of a building in the order of their numbers; of the whole tenant when none is named."
pub async fn streams_come_in_the_order_of_their_numbers<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let (tenant, other) = (bench.tenant("t"), bench.tenant("u"));
    let streams = [(3, "b/g"), (20, "c/g"), (100, "b/_"), (1_000, "b/h"), (70_000, "bb/g")];
    let streams = streams.map(|(number, at)| bench.stream(number, at));
    for stream in streams.iter().rev() {
        bench.opened(&tenant, stream).await;
    }
    bench.opened(&other, &bench.stream(5, "b/g")).await;
    assert_eq!(bench.streams(&tenant, None).await, streams);
    let of = |name: &str| streams.iter().filter(|s| *s.of.building() == building(name)).cloned().collect::<Vec<_>>();
    for (name, count) in [("b", 3), ("c", 1), ("bb", 1), ("none", 0)] {
        let listed = bench.streams(&tenant, Some(&building(name))).await;
        assert_eq!((listed.len(), listed), (count, of(name)));
    }
}

/// "As many streams of the tenant are open as may be."
pub async fn open_streams_of_a_tenant_are_bounded<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let tenant = bench.tenant("t");
    let stream = |number: usize| bench.stream(u32::try_from(number).expect("a small number"), "b/g");
    for number in 0..STREAMS {
        bench.opened(&tenant, &stream(number)).await;
    }
    assert_eq!(bench.open_for(&tenant, &stream(STREAMS), LONG).await, Opened::TooMany);
    assert_eq!(bench.open_for(&tenant, &stream(7), LONG).await, Opened::Open(None), "an open one is no more");
    bench.opened(&bench.tenant("u"), &stream(STREAMS)).await;
    assert_eq!(bench.streams(&tenant, None).await.len(), STREAMS);
    bench.close(&tenant, &stream(7)).await;
    bench.opened(&tenant, &stream(STREAMS)).await;
    assert_eq!(bench.open_for(&tenant, &stream(7), LONG).await, Opened::TooMany);
}

/// A session is told at its beginning "whether live streams are open at its address".
pub async fn a_session_is_told_whether_streams_are_open<S: Registry + StateStore + StreamStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let elsewhere = [bench.key("b/other"), bench.key("c/g"), bench.key_of("u", "b/g")];
    let streams = [bench.stream(1, "b/g"), bench.stream(2, "b/g")];
    let told = async |lease, key: &GatewayKey| bench.acquire(lease, key).await.has_streams;
    assert!(!told(&one, &key).await);
    for stream in &streams {
        bench.opened(&key.tenant, stream).await;
    }
    for key in &elsewhere {
        assert!(!told(&one, key).await);
    }
    assert!(told(&two, &key).await, "a takeover is told too");
    bench.close(&key.tenant, &streams[0]).await;
    assert!(told(&one, &key).await);
    bench.open_for(&key.tenant, &streams[1], SHORT).await;
    bench.stream_ends(&key.tenant, &streams[1]).await;
    assert!(!told(&one, &key).await);
}
