//! The WebSocket layer: RFC 6455's server side, whoever the peer is.
//!
//! [`handshake`] decides whether a request becomes a WebSocket, [`codec`] turns bytes into messages and refuses what
//! the RFC forbids, [`frame`] makes the frames that go out, and [`Conn`] with [`serve`] is one connection: one small
//! task, no buffer while it is idle, and a write half that whoever has a frame may use directly. Nothing in here knows
//! what Riser's messages mean. Why the codec is the project's own is in `docs/adr/0001-own-websocket-codec.md`.

pub mod codec;
mod conn;
pub mod frame;
pub mod handshake;
mod out;
mod pace;
mod pushed;
mod serve;
mod transport;
mod violation;

pub use codec::{Decoder, Limits, Message};
pub use conn::{CLOSE_WAIT, Conn, Settings};
pub(crate) use pushed::Pushed;
pub use serve::{End, Handler, Serve, serve};
pub use transport::{WriteHalf, tune};
pub(crate) use transport::{reset_at_end, settle_at_end};
pub use violation::Violation;
