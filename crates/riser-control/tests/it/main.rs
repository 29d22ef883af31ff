//! The control plane over real sockets and the memory twins.

mod audit;
mod bad;
mod edge;
mod follow;
mod harness;
mod keys;
mod schema;
mod tenants;
