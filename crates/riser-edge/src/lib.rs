//! Riser's data plane: one edge terminates the WebSockets of gateways and clients and routes between them.
//!
//! [`Edge`] puts the parts together. An edge holds sockets and nothing that must survive them: what must is behind
//! the [`Ports`]. Start reading at `session.rs` (what a peer's frames do), `gateway.rs` (how state is stored), `hub`
//! (how listeners are told) and `presence.rs` (how presence stays true).

mod admission;
mod api;
pub mod auth;
mod clock;
mod commands;
mod config;
mod cors;
mod echo;
mod edge;
mod events;
mod forwarded;
mod gateway;
mod heartbeat;
mod http;
mod hub;
mod live;
mod metrics;
mod open;
mod presence;
mod quota;
mod session;
mod shared;
mod standing;
mod tasks;
pub mod tls;
mod token_ends;
pub mod ws;

pub use api::routes::openapi;
pub use config::EdgeConfig;
pub use edge::{Edge, listen};
pub use metrics::Metrics;
pub use riser_ops::problem;
pub use shared::Ports;
pub use tls::ServerTls;
