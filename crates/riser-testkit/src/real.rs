//! Launchers of real servers, for tests of what the twins in memory stand for.
//!
//! A launcher starts its servers in a temporary folder and on free ports of the loopback interface, waits until they are
//! ready, and ends what it started, and nothing else, when it is dropped.

pub mod edges;
pub mod folder;
pub mod http;
pub mod nats;
mod ports;
pub mod process;
pub mod proxy;
pub mod redis;
mod servers;
