//! What every Riser process has: logs that peers cannot forge, an admin port with health and metrics, and signals.

pub mod admin;
pub mod logs;
pub mod signals;
pub mod visible;

pub use admin::Admin;
pub use signals::Signals;
pub use visible::visible;
