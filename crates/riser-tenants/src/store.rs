//! The tenants as they are kept: one document each, changed by compare and set alone, so that of two who change the same
//! tenant none undoes what the other did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use riser_bus::kv::{Kv, KvError, Written};
use riser_bus::{Bucket, Entry};
use riser_core::tenant::{DocError, TenantDoc};
use riser_core::{Address, TenantId};

use crate::flats::Flats;
use crate::kept::{Kept, STONE_S, Stone};

/// Tenants of one cluster. Their documents are read whole to be listed.
pub const TENANTS: usize = 10_000;
/// How often a change is made again because somebody else's came in between.
const TRIES: usize = 16;

/// Why a tenant was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bucket does not answer.
    #[error("the bucket of tenants does not answer")]
    Unavailable,
    /// It has no room.
    #[error("the bucket of tenants is full")]
    Full,
    /// There is no such tenant.
    #[error("there is no tenant of this name")]
    Unknown,
    /// There is one already.
    #[error("there is a tenant of this name")]
    Exists,
    /// It has changed since the revision that the caller knows.
    #[error("the tenant has changed since: read it again")]
    Changed,
    /// Others change it all the time.
    #[error("others change this tenant at the same time: try again")]
    Busy,
    /// What is kept cannot be read, and is not overwritten.
    #[error("the tenant's document cannot be read: {0}")]
    Unreadable(DocError),
    /// The document would be larger than an entry may be.
    #[error("the tenant's document would be too large: take out what is not needed, as old keys and revocations")]
    TooLarge,
    /// As many tenants as may be.
    #[error("{TENANTS} tenants are as many as may be")]
    TooMany,
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Unavailable => Self::Unavailable,
            KvError::Full => Self::Full,
            KvError::Size => Self::TooLarge,
        }
    }
}

/// A tenant and the revision that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The document.
    pub doc: TenantDoc,
    /// The change that made it so.
    pub revision: u64,
}

/// The bucket of tenants. Clones are the same.
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
}

impl Store {
    /// The tenants of this cluster.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    /// The flats of the same cluster.
    pub fn flats(&self) -> Flats {
        Flats::new(self.kv.clone())
    }

    async fn kept(&self, id: &TenantId) -> Result<Option<(Kept, u64)>, StoreError> {
        let Some(value) = self.kv.get(&Entry::Tenant(id.clone())).await? else { return Ok(None) };
        let kept = Kept::read(id, &value.bytes).map_err(StoreError::Unreadable)?;
        Ok(Some((kept, value.revision)))
    }

    /// A tenant as it is now.
    pub async fn get(&self, id: &TenantId) -> Result<Read, StoreError> {
        match self.kept(id).await? {
            Some((Kept::Tenant(doc), revision)) => Ok(Read { doc: *doc, revision }),
            Some((Kept::Deleted(_), _)) | None => Err(StoreError::Unknown),
        }
    }

    /// All tenants, by name. A document that cannot be read is left out, and counted in the second.
    pub async fn all(&self) -> Result<(BTreeMap<TenantId, Read>, usize), StoreError> {
        let (mut tenants, mut unreadable, mut after) = (BTreeMap::new(), 0, 0);
        loop {
            let page = self.kv.list(Bucket::Tenants, after).await?;
            for (entry, value) in page.entries {
                let Entry::Tenant(id) = entry else { continue };
                match Kept::read(&id, &value.bytes) {
                    Ok(Kept::Tenant(doc)) => {
                        tenants.insert(id, Read { doc: *doc, revision: value.revision });
                    }
                    // One that was deleted while the pages were read.
                    Ok(Kept::Deleted(_)) => drop(tenants.remove(&id)),
                    Err(_) => unreadable += 1,
                }
            }
            match page.next {
                Some(next) if tenants.len() <= TENANTS => after = next,
                _ => return Ok((tenants, unreadable)),
            }
        }
    }

    /// Makes a tenant. The name of one that was deleted is free.
    pub async fn create(&self, doc: &TenantDoc) -> Result<Read, StoreError> {
        let expected = match self.kept(&doc.id).await? {
            Some((Kept::Tenant(_), _)) => return Err(StoreError::Exists),
            Some((Kept::Deleted(_), revision)) => revision,
            None => 0,
        };
        if self.all().await?.0.len() >= TENANTS {
            return Err(StoreError::TooMany);
        }
        match self.put(doc, expected).await? {
            Written::Yes(revision) => Ok(Read { doc: doc.clone(), revision }),
            // An unanswered try of our own may have made it.
            Written::Conflict => match self.get(&doc.id).await {
                Ok(read) if read.doc == *doc => Ok(read),
                Ok(_) => Err(StoreError::Exists),
                Err(error) => Err(error),
            },
        }
    }

    async fn put(&self, doc: &TenantDoc, expected: u64) -> Result<Written, StoreError> {
        Ok(self.kv.put(&Entry::Tenant(doc.id.clone()), doc.to_json().into(), expected, None).await?)
    }

    /// Changes a tenant. With a revision, only if it still has that; without, on whatever it has, as often as others come in
    /// between. `change` may refuse with an error of its own.
    pub async fn change<T, E: From<StoreError>>(
        &self,
        id: &TenantId,
        expected: Option<u64>,
        change: impl Fn(&mut TenantDoc) -> Result<T, E> + Send + Sync,
    ) -> Result<(T, Read), E> {
        for _ in 0..TRIES {
            let Read { mut doc, revision } = self.get(id).await?;
            if expected.is_some_and(|expected| expected != revision) {
                return Err(StoreError::Changed.into());
            }
            let before = doc.clone();
            let answer = change(&mut doc)?;
            if doc == before {
                return Ok((answer, Read { doc, revision }));
            }
            match self.put(&doc, revision).await? {
                Written::Yes(revision) => return Ok((answer, Read { doc, revision })),
                Written::Conflict if expected.is_some() => return Err(StoreError::Changed.into()),
                Written::Conflict => {}
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Puts a stone in a tenant's place. Says whether there was one, or its stone.
    pub async fn bury(&self, id: &TenantId, expected: Option<u64>, now_ms: u64) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let entry = Entry::Tenant(id.clone());
            // Also one that cannot be read can be deleted.
            let Some(value) = self.kv.get(&entry).await? else { return Err(StoreError::Unknown) };
            if let Ok(Kept::Deleted(_)) = Kept::read(id, &value.bytes) {
                return Ok(());
            }
            if expected.is_some_and(|expected| expected != value.revision) {
                return Err(StoreError::Changed);
            }
            let stone = Kept::Deleted(Stone::new(id.clone(), now_ms)).to_json();
            let put = self.kv.put(&entry, stone.into(), value.revision, Some(Duration::from_secs(STONE_S)));
            if let Written::Yes(_) = put.await? {
                return Ok(());
            }
        }
        Err(StoreError::Busy)
    }

    /// Forgets the copies of held commands of a tenant, or of one of its gateways: a registry that lost its data would be
    /// given them back. One that changes meanwhile stays, for the next call.
    pub async fn forget_held(&self, tenant: &TenantId, only: Option<&Address>) -> Result<u64, StoreError> {
        let (mut gone, mut after) = (0, 0);
        loop {
            let page = self.kv.list(Bucket::Held, after).await?;
            for (entry, value) in page.entries {
                let Entry::Held(key, _) = &entry else { continue };
                if key.tenant == *tenant && only.is_none_or(|only| key.address == *only) {
                    gone += u64::from(self.kv.delete(&entry, value.revision).await? != Written::Conflict);
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(gone),
            }
        }
    }
}
