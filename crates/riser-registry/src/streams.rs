//! Which live streams are open. What is said on them goes past the registry.

use std::time::Duration;

use async_trait::async_trait;
use riser_core::live::{Stream, StreamId};
use riser_core::{Address, BuildingId, TenantId};

use crate::RegistryError;
use crate::commands::Holder;

/// Open streams of one tenant. Each is somebody who speaks, or something that moves.
pub const STREAMS: usize = 4_096;

/// The answer to [`StreamStore::open_stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It is open; and who holds the gateway of its address.
    Open(Option<Holder>),
    /// Another open stream of the tenant has this number.
    Taken,
    /// As many streams of the tenant are open as may be.
    TooMany,
}

/// Open streams.
#[async_trait]
pub trait StreamStore: Send + Sync + 'static {
    /// Opens a stream for `ttl` from now. A repeated call with the same stream holds it for longer, and so an opener's edge
    /// repeats it as long as the stream is open: what the store has lost comes back that way.
    async fn open_stream(&self, tenant: &TenantId, stream: &Stream, ttl: Duration) -> Result<Opened, RegistryError>;

    /// Forgets a stream. One that is not known is forgotten already.
    async fn close_stream(&self, tenant: &TenantId, of: &Address, id: StreamId) -> Result<(), RegistryError>;

    /// The open streams of a building in the order of their numbers; of the whole tenant when none is named.
    async fn streams(&self, tenant: &TenantId, building: Option<&BuildingId>) -> Result<Vec<Stream>, RegistryError>;
}
