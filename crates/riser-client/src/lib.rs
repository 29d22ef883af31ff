//! Riser's client: one session that comes back by itself, whoever uses it.
//!
//! [`Client`] watches: it subscribes, subscribes again after each reconnect, and keeps a [`View`] of the gateways it
//! hears of. [`Gateway`] reports for one flat: it keeps what the flat's values should be and makes the broker know
//! them, across reconnects and after losses. [`Link`] is one connection without any of that. [`Api`] makes the HTTP
//! calls of a tenant's back end. All of them speak plain `http` and `ws`.

pub mod api;
pub mod backoff;
pub mod client;
pub mod end;
pub mod endpoint;
pub mod frame;
pub mod gateway;
pub mod link;
pub mod view;

mod task;
mod wire;

pub use api::{Api, Minted};
pub use backoff::Backoff;
pub use client::{Client, Event, Subscription};
pub use end::End;
pub use endpoint::{Endpoint, EndpointError};
pub use frame::{Received, Welcome};
pub use gateway::{Gateway, Refused, Status};
pub use link::Link;
pub use view::{Update, View};

use riser_core::frame::Credential;

/// Who connects, and where to.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster, or one edge of it.
    pub endpoint: Endpoint,
    /// A token or an API key; it is sent with the upgrade request, so that a bad one is refused before it.
    pub credential: Credential,
    /// What the peer calls itself, at most 256 bytes.
    pub agent: String,
    /// For how long a gateway recognises a command that it has seen, in milliseconds.
    pub remembers_ms: Option<u64>,
}

impl Config {
    /// A peer that calls itself by this crate's name and release.
    pub fn new(endpoint: Endpoint, credential: Credential) -> Self {
        let agent = concat!("riser-client/", env!("CARGO_PKG_VERSION")).to_owned();
        Self { endpoint, credential, agent, remembers_ms: None }
    }

    /// The same peer under another name.
    #[must_use]
    pub fn agent(self, agent: impl Into<String>) -> Self {
        Self { agent: agent.into(), ..self }
    }
}
