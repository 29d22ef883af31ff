//! Erasing: one gateway, and all of a tenant.
//!
//! Nothing looks through the names of keys: a tenant's gateways are those in the heads of its buildings, and those for which
//! commands are noted, which need not ever have connected.

use riser_core::{Address, GatewayKey, TenantId};

use super::keys::{Building, Tenant};
use super::link::{Arguments, Call};
use super::replies::Items;
use super::{RedisRegistry, scripts};
use crate::{Erased, RegistryError, StateStore, StreamStore};

/// Gateways that one call to Redis erases: their values are freed in the background, and others' calls come in between.
const AT_ONCE: usize = 64;

impl RedisRegistry {
    pub(super) async fn erase_one(&self, key: &GatewayKey) -> Result<Erased, RegistryError> {
        for stream in self.streams(&key.tenant, Some(key.address.building())).await? {
            if stream.of == key.address {
                self.close_stream(&key.tenant, &stream.of, stream.id).await?;
            }
        }
        self.erase_some(&key.tenant, std::slice::from_ref(&key.address)).await
    }

    pub(super) async fn erase_all(&self, tenant: &TenantId) -> Result<Erased, RegistryError> {
        let keys = Tenant::new(tenant);
        let buildings = self.buildings(tenant).await?;
        let mut all = self.commanded(tenant).await?;
        for building in &buildings {
            let gateways = self.gateways(tenant, building).await?.into_iter();
            all.extend(gateways.filter_map(|gateway| Address::new(building.clone(), gateway).ok()));
        }
        let mut erased = Erased::default();
        let all: Vec<Address> = all.into_iter().collect();
        for some in all.chunks(AT_ONCE) {
            erased += self.erase_some(tenant, some).await?;
        }
        let mut call = Call::new();
        for building in &buildings {
            let keys = Building::new(tenant, building);
            call = [keys.heads(), keys.open(), keys.swept()].into_iter().fold(call, unlink);
        }
        for stream in self.streams(tenant, None).await? {
            call = unlink(call, keys.streams_at(&stream.of));
        }
        // What names the rest goes last, so that a call that comes again finds it.
        let named = keys.room().into_iter().chain(keys.opened());
        call = named.chain([keys.key_uses(), keys.streams(), keys.stream_ends(), keys.buildings()]).fold(call, unlink);
        self.link.run(call).await?;
        self.full.lock().remove(tenant);
        Ok(erased)
    }

    async fn erase_some(&self, tenant: &TenantId, some: &[Address]) -> Result<Erased, RegistryError> {
        let mut call = Call::new();
        for of in some {
            let keys = Building::new(tenant, of.building());
            let keys =
                vec![keys.heads(), keys.open(), keys.state(of), keys.records(of), keys.decided(of), keys.expiry(of)];
            call = call.script(&scripts::ERASE, keys, &Arguments::new().add(of.gateway().as_str()));
        }
        let mut erased = Erased::default();
        for answer in self.link.run(call).await? {
            let read = || {
                let mut answer = Items::of(answer.clone())?;
                answer.number()?;
                Some(Erased { gateways: answer.number()?, values: answer.number()?, commands: answer.number()? })
            };
            erased += read().ok_or_else(|| self.link.strange("erasing a gateway"))?;
        }
        Ok(erased)
    }
}

fn unlink(call: Call, key: super::keys::Key) -> Call {
    call.command("UNLINK", Some(key), &[])
}
