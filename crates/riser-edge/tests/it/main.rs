//! Integration tests of riser-edge.

#![allow(clippy::disallowed_methods, reason = "tests own their tasks by their runtime")]

mod auth;
mod commands;
mod cors;
mod door;
mod edge;
mod events;
mod harness;
mod hostile;
mod http;
mod live;
mod names;
mod strain;
mod tenants;
mod tls;
mod token_ends;
mod ws;
