//! Tenants as they are kept: one document each in a bucket, written by the control plane and followed by every edge.
//!
//! [`kept`] is what an entry holds, [`store`] changes entries, [`flats`] are the flats of buildings and how their gateways are enrolled, [`follow`] makes the table that edges verify credentials with.
//! This is all that crosses between control plane and edges: with the control plane stopped, edges serve and restart with
//! what the bucket holds.

pub mod flats;
pub mod follow;
pub mod kept;
pub mod store;

pub use flats::{Flats, FlatsError};
pub use follow::{FollowMetrics, Followed, NotRead};
pub use kept::Kept;
pub use store::{Read, Store, StoreError};
