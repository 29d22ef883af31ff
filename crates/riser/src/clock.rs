//! The machine's clock: read here, and nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use riser_core::time::rfc3339;

/// Unix milliseconds by the machine's clock; 0 when it stands before 1970.
#[expect(clippy::disallowed_methods, reason = "a binary: the memory twins and the simulated building start with it")]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
