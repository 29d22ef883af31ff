//! Command stores that are wrong on purpose.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use riser_core::command::{CommandId, Digest, Record, Refusal, Step, Took};
use riser_core::{Address, EdgeId, GatewayKey, TenantId};
use riser_registry::{CommandStore, Created, NewCommand, RegistryError, Stepped};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Now and then it says that a command is recorded, and forgets it.
    Forgets,
    /// A command may be sent again to a gateway that does not remember it.
    SendsAgain,
    /// Now and then a key that comes again is another command.
    ForgetsKeys,
    /// Of the commands that wait it gives the second before the first.
    Reorders,
}

/// What all edges' stores share.
pub(super) struct Shared {
    pub(super) rng: Mutex<fastrand::Rng>,
    pub(super) seen: Mutex<BTreeSet<Digest>>,
}

/// Between an edge and its command store.
pub(super) struct Wrong {
    pub(super) inner: Arc<dyn CommandStore>,
    pub(super) fault: Fault,
    pub(super) shared: Arc<Shared>,
}

impl Wrong {
    fn now(&self, one_in: u8) -> bool {
        self.shared.rng.lock().u8(..one_in) == 0
    }

    /// Answers as if the command were recorded. Another gateway's shelf, at which nobody looks, gives what an answer needs.
    async fn forget(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError> {
        let nowhere: Address = "nowhere/g".parse().expect("an address");
        let created = self.inner.create(&GatewayKey::new(key.tenant.clone(), nowhere), command).await?;
        Ok(match created {
            Created::Recorded(mut stepped) => {
                stepped.record.cmd.of = key.address.clone();
                stepped.record.outcomes.clear();
                Created::Recorded(stepped)
            }
            other => other,
        })
    }
}

#[async_trait]
impl CommandStore for Wrong {
    async fn create(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError> {
        let again = !self.shared.seen.lock().insert(command.digest);
        match self.fault {
            Fault::Forgets if !again && self.now(12) => self.forget(key, command).await,
            Fault::ForgetsKeys if again && self.now(2) => {
                let mut command = command.clone();
                command.digest.0[0] ^= self.shared.rng.lock().u8(1..);
                self.inner.create(key, &command).await
            }
            _ => self.inner.create(key, command).await,
        }
    }

    async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Result<Option<Stepped>, RegistryError> {
        let mut stepped = self.inner.step(key, cmd, step).await?;
        if let Some(stepped) = stepped.as_mut().filter(|_| self.fault == Fault::SendsAgain)
            && stepped.took == Took::No(Refusal::NotAgain)
        {
            stepped.took = Took::Yes;
        }
        Ok(stepped)
    }

    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Result<Vec<Record>, RegistryError> {
        let mut open = self.inner.open(key, after, limit).await?;
        if self.fault == Fault::Reorders && open.len() > 1 {
            open.swap(0, 1);
        }
        Ok(open)
    }

    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Result<Vec<Record>, RegistryError> {
        self.inner.latest(key, before, limit).await
    }

    async fn undecided(&self, tenant: &TenantId) -> Result<u64, RegistryError> {
        self.inner.undecided(tenant).await
    }

    async fn overdue(&self, by: &EdgeId) -> Result<Vec<(TenantId, CommandId)>, RegistryError> {
        self.inner.overdue(by).await
    }

    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError> {
        self.inner.adopt(key, copy).await
    }

    async fn life(&self) -> Result<u64, RegistryError> {
        self.inner.life().await
    }
}
