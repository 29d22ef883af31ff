//! What the bucket holds of a tenant: its document, or the stone that stands where one was deleted.
//!
//! Only a stone takes a tenant away from an edge. An entry that is missing may have been lost, and a text that cannot be read
//! may be a newer release's or a mistake: neither is a reason to close a provider's flats.

use riser_core::TenantId;
use riser_core::tenant::{DocError, TenantDoc, Writer};
use serde::{Deserialize, Serialize};

/// For how long a stone stands, in seconds. An edge that was away for longer has started anew, and begins with what is
/// there.
pub const STONE_S: u64 = 30 * 86_400;

/// What is kept of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is there.
    Tenant(Box<TenantDoc>),
    /// It was deleted.
    Deleted(Stone),
}

/// What is left of a tenant that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stone {
    /// The name that it had.
    pub tenant: TenantId,
    /// Always true. A release that knew no stones would take it for a tenant that nobody has a key of.
    pub deleted: bool,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// As in a document.
    pub version: u64,
}

impl Stone {
    /// A stone for a tenant.
    pub fn new(tenant: TenantId, at_ms: u64) -> Self {
        Self { tenant, deleted: true, at_ms, version: riser_core::tenant::doc::DOC_VERSION }
    }
}

impl Kept {
    /// Reads what the bucket has under a tenant's name. The name in the text must be that one: else whoever could write one
    /// entry could speak for another tenant.
    pub fn read(of: &TenantId, bytes: &[u8]) -> Result<Self, DocError> {
        let whole = |why: &str| DocError { field: ".".into(), why: why.into() };
        let text = std::str::from_utf8(bytes).map_err(|_| whole("not UTF-8"))?;
        let kept = match serde_json::from_str::<Stone>(text) {
            Ok(stone) if stone.deleted => Self::Deleted(stone),
            _ => Self::Tenant(Box::new(TenantDoc::read(text, Writer::Release)?)),
        };
        if kept.id() != of {
            return Err(DocError { field: "tenant".into(), why: "not the name under which it is kept".into() });
        }
        Ok(kept)
    }

    /// As it is kept.
    pub fn to_json(&self) -> String {
        match self {
            Self::Tenant(doc) => doc.to_json(),
            Self::Deleted(stone) => serde_json::to_string(stone).expect("texts, a flag and numbers"),
        }
    }

    /// Whose.
    pub fn id(&self) -> &TenantId {
        match self {
            Self::Tenant(doc) => &doc.id,
            Self::Deleted(stone) => &stone.tenant,
        }
    }
}

#[cfg(test)]
mod tests {
    use riser_core::Tenant;

    use super::*;

    fn id(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    #[test]
    fn a_document_and_a_stone_are_read_as_they_were_written() {
        let doc = Kept::Tenant(Box::new(TenantDoc { id: id("acme"), tenant: Tenant::default() }));
        let stone = Kept::Deleted(Stone::new(id("acme"), 7));
        for kept in [doc, stone] {
            assert_eq!(Kept::read(&id("acme"), kept.to_json().as_bytes()), Ok(kept));
        }
    }

    #[test]
    fn what_is_neither_takes_no_tenant_away_and_speaks_for_no_other() {
        let other = Kept::Deleted(Stone::new(id("acme"), 7)).to_json();
        let not_deleted = other.replace("true", "false");
        for text in ["", "{}", "[]", "\u{0}", r#"{"deleted":true}"#, &other] {
            assert!(Kept::read(&id("acme2"), text.as_bytes()).is_err(), "{text}");
        }
        // What does not say that it is deleted is no stone.
        assert!(!matches!(Kept::read(&id("acme"), not_deleted.as_bytes()), Ok(Kept::Deleted(_))));
        assert!(Kept::read(&id("acme"), &[0xff]).is_err());
    }
}
