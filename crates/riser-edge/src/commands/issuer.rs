//! A session that issues commands: recorded one after the other, in the order in which it sent them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use riser_bus::Subject;
use riser_core::command::{Body, CommandId, CommandKey, Record, Refusal, Step, Took};
use riser_core::frame::{N, NewCommand, outbound};
use riser_core::routed::{self, ToEdge};
use riser_core::tenant::Quota;
use riser_core::{Address, ErrorCode, GatewayKey, Identity, Pattern, Peer, TenantId, Verb};
use riser_registry::{Created, RegistryError, Stepped};
use tokio::time::{Duration, Instant, sleep};

use super::{count, digest, dispatch, step};
use crate::events::audit::{self, Deed};
use crate::session::{answer_error, answer_ok};
use crate::shared::{Busy, Shared};
use crate::ws::Conn;

/// Commands and cancels of one session that wait to be recorded.
const WAITING: usize = 512;
/// Bytes of arguments that wait to be recorded: several messages of the largest size.
const WAITING_BYTES: usize = 256 * 1024;
/// Commands of one session that are not decided.
pub(crate) const OPEN: usize = 256;
/// Commands of one session that are remembered, with those whose gateway may still say something late.
const REMEMBERED: usize = 512;
/// How soon a call that nobody answered is repeated.
const REPEAT: Duration = Duration::from_millis(250);

/// Why a command was not recorded, or not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
}

const UNAVAILABLE: Refused = Refused {
    code: ErrorCode::Unavailable,
    message: "the command store does not answer; sending it again under the same key is safe",
};
const FORBIDDEN: Refused =
    Refused { code: ErrorCode::Forbidden, message: "no grant of this credential covers the address and the path" };

enum Op {
    Command { n: N, identity: Arc<Identity>, to: Address, command: Box<NewCommand> },
    Cancel { n: N, identity: Arc<Identity>, cmd: Box<CommandId> },
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Command { command, .. } => command.args.as_ref().map_or(0, |args| args.as_str().len()),
            Self::Cancel { .. } => 0,
        }
    }
}

/// One session's commands.
pub(crate) struct Issuer {
    pub(super) conn: Arc<Conn>,
    /// Where its session comes from, for the audit.
    from: Option<IpAddr>,
    waiting: Mutex<Waiting>,
    /// What it is told of, in the order in which it was issued.
    names: Mutex<VecDeque<(GatewayKey, CommandId)>>,
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    bytes: usize,
    working: bool,
}

impl Issuer {
    pub(crate) fn new(conn: &Arc<Conn>, from: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self { conn: conn.clone(), from, waiting: Mutex::default(), names: Mutex::default() })
    }

    /// Takes a command.
    pub(crate) fn command(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        n: N,
        identity: &Arc<Identity>,
        to: Address,
        command: NewCommand,
    ) {
        self.enqueue(shared, n, Op::Command { n, identity: identity.clone(), to, command: Box::new(command) });
    }

    /// Takes the wish that a command be not done.
    pub(crate) fn cancel(self: &Arc<Self>, shared: &Arc<Shared>, n: N, identity: &Arc<Identity>, cmd: CommandId) {
        self.enqueue(shared, n, Op::Cancel { n, identity: identity.clone(), cmd: Box::new(cmd) });
    }

    /// The session ended.
    pub(crate) fn leave(self: &Arc<Self>, shared: &Shared) {
        *self.waiting.lock() = Waiting { working: true, ..Waiting::default() };
        shared.waiters.leave(self);
    }

    pub(super) fn names(&self) -> Vec<(GatewayKey, CommandId)> {
        self.names.lock().iter().cloned().collect()
    }

    fn enqueue(self: &Arc<Self>, shared: &Arc<Shared>, n: N, op: Op) {
        let mut waiting = self.waiting.lock();
        if waiting.ops.len() >= WAITING || waiting.bytes + op.bytes() > WAITING_BYTES {
            drop(waiting);
            let text = "more commands wait to be recorded than may; send it again later";
            return answer_error(shared, &self.conn, Some(n), ErrorCode::RateLimited, text);
        }
        waiting.bytes += op.bytes();
        waiting.ops.push_back(op);
        if !std::mem::replace(&mut waiting.working, true) {
            drop(waiting);
            let (shared, issuer, busy) = (shared.clone(), self.clone(), shared.busy());
            shared.clone().tasks.spawn(async move { issuer.work(&shared, busy).await });
        }
    }

    async fn work(self: &Arc<Self>, shared: &Arc<Shared>, _busy: Busy) {
        loop {
            let op = {
                let mut waiting = self.waiting.lock();
                let Some(op) = waiting.ops.pop_front() else {
                    waiting.working = self.conn.is_gone();
                    return;
                };
                waiting.bytes -= op.bytes();
                op
            };
            let (n, done) = match op {
                Op::Command { n, identity, to, command } => (n, self.issue(shared, n, &identity, to, *command).await),
                Op::Cancel { n, identity, cmd } => {
                    let cancelled = cancel(shared, &identity, self.from, &cmd).await;
                    if cancelled.is_ok() {
                        answer_ok(&self.conn, Some(n));
                    }
                    (n, cancelled)
                }
            };
            if let Err(refused) = done {
                answer_error(shared, &self.conn, Some(n), refused.code, refused.message);
            }
            self.conn.flush();
        }
    }

    async fn issue(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        n: N,
        identity: &Identity,
        to: Address,
        command: NewCommand,
    ) -> Result<(), Refused> {
        let key = GatewayKey::new(identity.tenant.clone(), to);
        self.make_room(shared)?;
        let stepped = record(shared, identity, self.from, &key, command).await?;
        let cmd = &stepped.record.cmd;
        let name = (key.clone(), cmd.clone());
        {
            let mut names = self.names.lock();
            names.retain(|other| *other != name);
            names.push_back(name);
        }
        if self.conn.is_ending() {
            // Its session may have forgotten everything already.
            shared.waiters.leave(self);
        } else {
            let answer = outbound::ok_cmd(n, cmd);
            shared.waiters.listen(shared, self, &key, &stepped, &answer);
        }
        set_going(shared, &key, stepped).await;
        Ok(())
    }

    /// Forgets what is decided when there is much of it.
    fn make_room(self: &Arc<Self>, shared: &Shared) -> Result<(), Refused> {
        let names = self.names();
        if names.len() < OPEN {
            return Ok(());
        }
        let decided = shared.waiters.decided(&names);
        if names.len() - decided.len() >= OPEN {
            let message = "this session has as many commands open as it may";
            return Err(Refused { code: ErrorCode::TooMany, message });
        }
        let surplus = (names.len() + 1).saturating_sub(REMEMBERED);
        for name in decided.into_iter().take(surplus) {
            shared.waiters.forget(self, &name);
            self.names.lock().retain(|other| *other != name);
        }
        Ok(())
    }
}

/// Records a command for who may issue it.
pub(crate) async fn record(
    shared: &Arc<Shared>,
    identity: &Identity,
    from: Option<IpAddr>,
    key: &GatewayKey,
    command: NewCommand,
) -> Result<Stepped, Refused> {
    if !identity.allows_path(Verb::Command, &key.address, &command.path) {
        shared.metrics.commands.issued("forbidden");
        return Err(FORBIDDEN);
    }
    let name = command.key.map_or_else(|| own_key(shared), Ok)?;
    let mut new = riser_registry::NewCommand {
        digest: digest(key, &name),
        body: Body { path: command.path, action: command.action, args: command.args, hold: command.hold },
        by: who(identity),
        deadline_ms: command.deadline_ms,
        edge: shared.config.id.clone(),
        no_room: false,
    };
    let (result, created): (_, Result<Stepped, _>) = match create(shared, key, &mut new).await {
        Ok(Created::Recorded(stepped)) if stepped.took == Took::Yes => ("new", Ok(*stepped)),
        Ok(Created::Recorded(stepped)) => ("repeated", Ok(*stepped)),
        Ok(Created::Conflict) => {
            let message = "`key`: it was used for another command at this address";
            ("conflict", Err(Refused { code: ErrorCode::Conflict, message }))
        }
        Ok(Created::QueueFull) => {
            if new.no_room {
                shared.quota_refused(&shared.usage(&key.tenant), Quota::HeldCommands);
            }
            let message = "as many commands are held for this gateway, or for all of its tenant, as may be";
            ("queue_full", Err(Refused { code: ErrorCode::QueueFull, message }))
        }
        Ok(Created::TooMany) => {
            let message = "as many commands of this gateway, or of its tenant, are open as may be";
            ("too_many", Err(Refused { code: ErrorCode::TooMany, message }))
        }
        Err(_) => ("unavailable", Err(UNAVAILABLE)),
    };
    shared.metrics.commands.issued(result);
    if let Ok(Stepped { record, .. }) = &created {
        note(shared, identity, from, "command.issue", record);
    }
    created
}

/// Calls until somebody answers, for as long as an issuer waits. The key makes repeating safe.
async fn create(
    shared: &Arc<Shared>,
    key: &GatewayKey,
    new: &mut riser_registry::NewCommand,
) -> Result<Created, RegistryError> {
    let started = Instant::now();
    loop {
        let answer = match look_for_room(shared, &key.tenant, new).await {
            Ok(()) => shared.call(shared.ports.commands.create(key, new)).await,
            Err(error) => Err(error),
        };
        if answer.is_ok() || started.elapsed() >= shared.config.answer {
            return answer;
        }
        sleep(REPEAT).await;
    }
}

/// Asks whether the tenant may have another command wait, when there is a quota for that.
async fn look_for_room(
    shared: &Arc<Shared>,
    tenant: &TenantId,
    new: &mut riser_registry::NewCommand,
) -> Result<(), RegistryError> {
    let of = shared.usage(tenant);
    if let Some(most) = of.share(Quota::HeldCommands).filter(|_| new.body.hold) {
        let waiting = shared.call(shared.ports.commands.undecided(tenant)).await?;
        new.no_room = waiting >= most;
        // With this one, if it comes to wait.
        shared.note_use(&of, Quota::HeldCommands, most.min(waiting + 1));
    }
    Ok(())
}

/// Has a recorded command sent, and tells the edges that want to know.
pub(crate) async fn set_going(shared: &Arc<Shared>, key: &GatewayKey, stepped: Stepped) {
    count(shared, &stepped);
    if stepped.record.outcomes.len() > stepped.before {
        super::tell(shared, key, &stepped.record).await;
    }
    if stepped.record.is_unsent()
        && let Some(holder) = &stepped.holder
    {
        dispatch(shared, key, &stepped.record, holder).await;
    }
}

/// Cancels a command for who may issue it, or asks its gateway to.
pub(crate) async fn cancel(
    shared: &Arc<Shared>,
    identity: &Identity,
    from: Option<IpAddr>,
    cmd: &CommandId,
) -> Result<(), Refused> {
    let key = GatewayKey::new(identity.tenant.clone(), cmd.of.clone());
    if identity.paths(Verb::Command, &Pattern::One(cmd.of.clone())).is_none() {
        return Err(FORBIDDEN);
    }
    let not_found =
        Refused { code: ErrorCode::NotFound, message: "`cmd`: there is no such command, or it is forgotten" };
    let seen = step(shared, &key, cmd, &Step::Look).await.map_err(|_| UNAVAILABLE)?.ok_or(not_found)?;
    if !identity.allows_path(Verb::Command, &cmd.of, &seen.record.body.path) {
        return Err(FORBIDDEN);
    }
    let stepped = step(shared, &key, cmd, &Step::Cancel).await.map_err(|_| UNAVAILABLE)?.ok_or(not_found)?;
    match (stepped.took, stepped.holder) {
        (Took::Yes | Took::Nothing, _) => {}
        (Took::No(Refusal::Sent), Some(holder)) if holder.edge == shared.config.id => {
            super::desk::cancel(shared, &key, cmd);
        }
        (Took::No(Refusal::Sent), Some(holder)) => {
            let message = routed::encode(&ToEdge::Cancel { cmd: cmd.clone() });
            // Nothing looks for a wish that got lost on its way: who has it must know.
            if !shared.publish(&Subject::Edge(holder.edge, key), message).await {
                return Err(UNAVAILABLE);
            }
        }
        (Took::No(Refusal::Sent), None) => {
            let message = "it was sent, and its gateway is offline now: nobody can be asked to cancel it";
            return Err(Refused { code: ErrorCode::Conflict, message });
        }
        (Took::No(_), _) => {
            return Err(Refused { code: ErrorCode::Conflict, message: "its outcome is final" });
        }
    }
    note(shared, identity, from, "command.cancel", &seen.record);
    Ok(())
}

/// Tells the audit what was done with a command.
fn note(shared: &Arc<Shared>, identity: &Identity, from: Option<IpAddr>, what: &'static str, record: &Record) {
    let Record { cmd, body: Body { path, action, .. }, .. } = record;
    audit::note(shared, identity, from, &Deed { what, cmd, path, action });
}

/// Who issues or sends something, as others are told.
pub(crate) fn who(identity: &Identity) -> String {
    match &identity.peer {
        Peer::Gateway { address } => format!("gateway:{address}"),
        Peer::Client { subject } => format!("client:{subject}"),
    }
}

/// A key for a command that came without one. Nobody else can name it.
fn own_key(shared: &Shared) -> Result<CommandKey, Refused> {
    shared.next_key().parse().map_err(|_| Refused { code: ErrorCode::Internal, message: "no key could be made" })
}
