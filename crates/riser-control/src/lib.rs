//! Riser's control plane: it owns tenants, their keys, quotas and what is kept of them, and publishes each as one document in
//! a bucket that every edge follows (`riser-tenants`).
//!
//! [`Control`] is what is done to tenants; [`api`] serves it over HTTP, on a port and with a credential of its own. Nothing in
//! the data path asks the control plane: with it stopped, edges serve and restart with what the bucket holds.

pub mod api;
pub mod audit;
mod control;
pub mod credential;
mod erase;
pub mod server;

pub use control::{Caller, Control, Ports};
pub use credential::Credentials;
pub use server::Server;
