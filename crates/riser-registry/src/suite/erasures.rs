//! Erasures: of one gateway, and of all that a tenant has.

use std::time::Duration;

use riser_core::live::{Stream, StreamId, StreamKind};
use riser_core::{Epoch, GatewayKey, Reason, TenantId, Version};

use super::{Bench, LONG, building, path, set};
use crate::{Applied, CommandStore, Erased, Registry, StateStore, StreamStore};

impl<S: Registry + StateStore + CommandStore + StreamStore> Bench<S> {
    /// Gives a gateway a session, two values, a command and a stream.
    async fn furnish(&self, key: &GatewayKey) -> Version {
        let lease = self.held("one").await;
        let start = Version::start(self.acquire(&lease, key).await.epoch);
        let version = self.store(key, start, &set(&[("k/light", "true"), ("k/t", "21")])).await;
        self.issue_many(key, 2, false).await;
        let stream = Stream {
            id: StreamId(u32::from(key.address.to_string().as_bytes()[2])),
            of: key.address.clone(),
            path: path("door/1"),
            kind: StreamKind::Opus,
            params: None,
            from: "client:anna".into(),
            edge: lease.edge,
        };
        self.one.open_stream(&key.tenant, &stream, LONG).await.expect("an answer");
        version
    }

    async fn nothing_is_known_of(&self, key: &GatewayKey) {
        assert_eq!(self.two.read(key).await, Ok(None));
        let latest = self.two.latest(key, None, 8).await.expect("an answer");
        assert_eq!((latest.len(), self.two.open(key, 0, 8).await.expect("an answer").len()), (0, 0));
        let audit = self.two.audit(&key.tenant, key.address.building()).await.expect("an answer");
        assert!(audit.iter().all(|held| held.gateway != *key.address.gateway()), "{audit:?}");
        assert!(self.streams_at(key).await.is_empty());
    }

    async fn streams_at(&self, key: &GatewayKey) -> Vec<Stream> {
        let streams = self.two.streams(&key.tenant, None).await.expect("an answer");
        streams.into_iter().filter(|stream| stream.of == key.address).collect()
    }

    async fn erase_all(&self, tenant: &TenantId) -> Erased {
        self.one.erase(tenant).await.expect("an answer")
    }
}

/// "Erases all that is known of one gateway", and nothing of those beside it. "A repeated call finds nothing."
pub async fn an_erased_gateway_is_gone_and_its_neighbours_stay<S>(bench: &Bench<S>)
where
    S: Registry + StateStore + CommandStore + StreamStore,
{
    let (gone, beside, elsewhere) = (bench.key("b/g"), bench.key("b/h"), bench.key_of("u", "b/g"));
    for key in [&gone, &beside, &elsewhere] {
        bench.furnish(key).await;
    }
    let erased = bench.one.erase_gateway(&gone).await.expect("an answer");
    assert_eq!(erased, Erased { gateways: 1, values: 2, commands: 2 });
    bench.nothing_is_known_of(&gone).await;
    for key in [&beside, &elsewhere] {
        assert_eq!(bench.snapshot(key).await.state.values.len(), 2);
        assert_eq!(bench.two.latest(key, None, 8).await.expect("an answer").len(), 2);
        assert_eq!(bench.streams_at(key).await.len(), 1);
    }
    assert_eq!(bench.two.erase_gateway(&gone).await, Ok(Erased::default()));
}

/// A session that was not ended is fenced, and one that comes after has a greater epoch all the same.
pub async fn the_session_of_an_erased_gateway_stores_nothing_more<S>(bench: &Bench<S>)
where
    S: Registry + StateStore + CommandStore + StreamStore,
{
    let key = bench.key("b/g");
    let version = bench.furnish(&key).await;
    bench.one.erase_gateway(&key).await.expect("an answer");
    let applied = bench.apply(&key, version.next(), &set(&[("k/t", "22")])).await;
    assert!(matches!(applied, Applied::Gap(None) | Applied::Fenced(None)), "{applied:?}");
    assert_eq!(bench.one.release(&key, version.epoch, Reason::Kicked).await, Ok(None));
    bench.nothing_is_known_of(&key).await;
    bench.tick().await;
    let again = bench.acquire(&bench.held("two").await, &key).await;
    assert!(again.epoch > version.epoch && again.before.is_none() && !again.has_state, "{again:?}");
}

/// "Erases all that is known of a tenant", also of gateways that never connected; nothing of a tenant of a similar name.
pub async fn an_erased_tenant_is_gone_and_others_stay<S>(bench: &Bench<S>)
where
    S: Registry + StateStore + CommandStore + StreamStore,
{
    let (one, two, other) = (bench.key("b/g"), bench.key("c/h"), bench.key_of("tt", "b/g"));
    for key in [&one, &two, &other] {
        bench.furnish(key).await;
    }
    let never = bench.key("d/i");
    bench.issue_many(&never, 1, true).await;
    let erased = bench.erase_all(&one.tenant).await;
    assert_eq!(erased, Erased { gateways: 2, values: 4, commands: 5 });
    for key in [&one, &two, &never] {
        bench.nothing_is_known_of(key).await;
    }
    assert_eq!(bench.two.buildings(&one.tenant).await, Ok(vec![]));
    assert_eq!(bench.snapshot(&other).await.state.values.len(), 2);
    assert_eq!(bench.two.buildings(&other.tenant).await, Ok(vec![building("b")]));
    assert_eq!(bench.erase_all(&one.tenant).await, Erased::default());
    // What began before knows nothing of it, and ends as it should.
    let lease = bench.held("one").await;
    let swept = bench.one.sweep(&lease, Reason::EdgeLost, &one.tenant, &building("b")).await;
    assert_eq!(swept, Ok(vec![]));
    let renewed = bench.one.renew(&lease, Duration::from_secs(60)).await.expect("an answer");
    assert!(renewed.held && Epoch(renewed.now_ms) > Epoch(0));
}
