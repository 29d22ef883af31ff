//! Riser's vocabulary and its pure rules: names, versions, state, frames, grants and close codes.
//!
//! Nothing here knows a runtime, a socket or a clock. What comes from outside is parsed once, at the door,
//! into the types of this crate; after that no function takes a bare string for an identity.

pub mod change;
pub mod close;
pub mod command;
pub mod devices;
pub mod event;
pub mod filter;
pub mod frame;
pub mod grant;
pub mod id;
pub mod json;
pub mod label;
pub mod limits;
pub mod live;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod path;
pub mod presence;
pub mod range;
pub mod routed;
pub mod server;
pub mod state;
pub mod tenant;
mod text;
pub use text::hex;
pub mod time;
pub mod version;

pub use change::Change;
pub use close::{CloseCode, ErrorCode};
pub use devices::Devices;
pub use filter::PathFilter;
pub use grant::{Grant, Identity, Peer, Verb};
pub use id::{Address, BuildingId, EdgeId, GatewayId, GatewayKey, Pattern, TenantId};
pub use json::Json;
pub use label::Label;
pub use path::Path;
pub use presence::{Presence, Reason};
pub use range::AddressRange;
pub use server::ServerVersion;
pub use state::Snapshot;
pub use tenant::{Tenant, TenantTable};
pub use version::{Epoch, Rev, Version};
