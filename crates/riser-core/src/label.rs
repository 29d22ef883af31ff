//! What people call a flat.

/// A flat's name and floor, as they were registered: what snapshots say beside its address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    /// What people call it.
    pub name: Option<String>,
    /// On which floor it is.
    pub floor: Option<String>,
}
