//! The WebSocket layer, from the request's head to the end of the connection.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod client;
mod codec;
mod differential;
mod ending;
mod frames;
mod handshake;
mod idle;
mod peer;
mod properties;
mod reading;
mod tcp;
mod threads;
mod writing;
