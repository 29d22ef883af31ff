//! What every Riser process has: logs that peers cannot forge, an admin port with health and metrics, signals, and
//! what HTTP APIs have in common.

pub mod admin;
pub mod bounded;
pub mod logs;
pub mod openapi;
pub mod problem;
pub mod request;
pub mod signals;
pub mod visible;

pub use admin::Admin;
pub use problem::Problem;
pub use request::Refused;
pub use signals::Signals;
pub use visible::visible;
