//! Open live streams.

use std::time::Duration;

use async_trait::async_trait;
use riser_core::live::{Stream, StreamId};
use riser_core::{Address, BuildingId, Json, TenantId};

use super::head::Head;
use super::keys::{Building, Tenant};
use super::link::{Arguments, Call};
use super::replies::{Items, bytes, pairs, time_ms};
use super::sessions::score;
use super::{RedisRegistry, millis, scripts};
use crate::streams::STREAMS;
use crate::{Opened, RegistryError, StreamStore};

#[async_trait]
impl StreamStore for RedisRegistry {
    async fn open_stream(&self, tenant: &TenantId, stream: &Stream, ttl: Duration) -> Result<Opened, RegistryError> {
        let keys = Tenant::new(tenant);
        let keys = vec![keys.streams(), keys.stream_ends(), keys.streams_at(&stream.of)];
        let text = format!("{}{}", prefix(&stream.of), Json::of(stream).as_str());
        let arguments = Arguments::new().number(u64::from(stream.id.0)).add(text);
        let arguments = arguments.number(millis(ttl)).number(STREAMS as u64);
        // After it is open: a session that begins meanwhile is seen here, or sees the stream.
        let heads = Some(Building::new(tenant, stream.of.building()).heads());
        let call = Call::new().script(&scripts::OPEN_STREAM, keys, &arguments).command(
            "HGET",
            heads,
            &[stream.of.gateway().as_str().as_bytes()],
        );
        let mut replies = self.link.run(call).await?.into_iter();
        let mut opened = replies.next().and_then(Items::of);
        let mut what = || opened.as_mut().and_then(|opened| opened.number().and_then(|_| opened.number()));
        match what() {
            Some(0) => {}
            Some(1) => return Ok(Opened::Taken),
            Some(2) => return Ok(Opened::TooMany),
            _ => return Err(self.link.strange("opening a stream")),
        }
        let Some(head) = replies.next().and_then(bytes) else { return Ok(Opened::Open(None)) };
        let head = Head::parse(&head);
        self.link.bad("the head of a gateway", u64::from(head.is_none()));
        Ok(Opened::Open(head.and_then(|head| head.holder())))
    }

    async fn close_stream(&self, tenant: &TenantId, of: &Address, id: StreamId) -> Result<(), RegistryError> {
        let keys = Tenant::new(tenant);
        let keys = vec![keys.streams(), keys.stream_ends(), keys.streams_at(of)];
        let arguments = Arguments::new().number(u64::from(id.0)).add(prefix(of));
        self.answer(&scripts::CLOSE_STREAM, keys, arguments).await.map(drop)
    }

    async fn streams(&self, tenant: &TenantId, building: Option<&BuildingId>) -> Result<Vec<Stream>, RegistryError> {
        let keys = Tenant::new(tenant);
        let call = Call::new()
            .command("TIME", None, &[])
            .command("ZRANGE", Some(keys.stream_ends()), &[b"0", b"-1", b"WITHSCORES"])
            .command("HGETALL", Some(keys.streams()), &[]);
        let mut replies = self.link.run(call).await?.into_iter();
        let mut read = || Some((time_ms(replies.next()?)?, pairs(replies.next()?)?, pairs(replies.next()?)?));
        let (now_ms, ends, streams) = read().ok_or_else(|| self.link.strange("the streams of a tenant"))?;
        let ends: std::collections::HashMap<_, _> = ends.into_iter().collect();
        let mut open = vec![];
        for (number, text) in streams {
            if ends.get(&number).is_none_or(|ends| score(ends) <= now_ms) {
                continue;
            }
            let stream = text.split(|byte| *byte == b' ').next().map(<[u8]>::len);
            let stream = stream.and_then(|at| serde_json::from_slice::<Stream>(text.get(at + 1..)?).ok());
            self.link.bad("a stream", u64::from(stream.is_none()));
            open.extend(stream.filter(|stream| building.is_none_or(|building| building == stream.of.building())));
        }
        open.sort_by_key(|stream| stream.id);
        Ok(open)
    }
}

/// What the text of a stream begins with, for the script that closes it.
fn prefix(of: &Address) -> String {
    format!("{of} ")
}
