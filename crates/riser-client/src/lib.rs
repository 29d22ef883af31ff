//! Riser's client: one session that comes back by itself, whoever uses it.
//!
//! [`Client`] watches and commands: it subscribes, subscribes again after each reconnect, keeps a [`View`] of the
//! gateways it hears of, and asks after its commands until they have their outcomes. [`Gateway`] reports for one flat: it
//! keeps what the flat's values should be and makes the broker know them, across reconnects and after losses, and gives
//! each command to its application once. Both tell events and speak on live streams. [`Link`] is one connection without
//! any of that. [`Api`] makes the HTTP calls of a tenant's back end. All of them speak plain `http` and `ws`.

mod admin;
pub mod api;
pub mod backoff;
pub mod client;
pub mod end;
pub mod endpoint;
pub mod frame;
pub mod gateway;
pub mod link;
pub mod live;
pub mod notice;
pub mod order;
pub mod view;

mod calls;
mod clock;
mod refused;
mod subs;
mod task;
mod wire;

pub use admin::{Admin, Said};
pub use api::{Api, Enrolled, Erased, Minted, enrol};
pub use backoff::Backoff;
pub use client::{Client, Event};
pub use end::End;
pub use endpoint::{Endpoint, EndpointError};
pub use frame::{Outcome, Received, Step, Welcome};
pub use gateway::{Commands, Gateway, Live, Memory, Request, Status};
pub use link::{Link, Message};
pub use live::{LiveFrame, Open, Stream};
pub use notice::Notice;
pub use order::{Command, Order};
pub use refused::Refused;
pub use subs::Subscription;
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
    /// For how long a gateway recognises a command that it has seen, in milliseconds; [`Gateway::serve`] says what its
    /// [`Memory`] does.
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
