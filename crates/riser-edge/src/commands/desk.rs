//! A gateway's desk: what is written to its socket, in which order, and what it says of it.
//!
//! Commands reach a gateway in the order in which they were recorded, whoever issued them, and each is won in its record
//! before it is written. A dispatch is a hint that names the command before its own; when that one was not handled here,
//! the desk reads all that is open. So a lost hint costs nothing but time, and nothing overtakes what was held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use riser_core::command::{CommandId, Record, Refusal, Step, Took, Word};
use riser_core::frame::{N, outbound};
use riser_core::{ErrorCode, GatewayKey};
use riser_registry::commands::RECORDS_PAGE;
use tokio::time::{Duration, Instant, sleep};

use super::take_step;
use crate::gateway::Gateway;
use crate::session::{answer_error, answer_ok};
use crate::shared::Shared;
use crate::ws::frame;

/// Jobs of one gateway that wait. Hints beyond it become one look at everything; words are refused.
const WAITING: usize = 512;
/// Bytes of words and commands that wait for the store: two messages of the largest size and many small ones.
const WAITING_BYTES: usize = 256 * 1024;
/// How soon a call that nobody answered is repeated.
const REPEAT: Duration = Duration::from_millis(250);

enum Job {
    /// Sends all that is open.
    Everything,
    /// Sends what another edge says is there.
    Dispatched(Box<Record>),
    /// Asks the gateway to cancel.
    Cancel(Box<CommandId>),
    /// Records what the gateway said.
    Word { n: Option<N>, cmd: CommandId, word: Box<Word>, since: Instant },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Everything | Self::Cancel(_) => 0,
            Self::Dispatched(record) => record.body.args.as_ref().map_or(0, |args| args.as_str().len()),
            Self::Word { word, .. } => word.data.as_ref().map_or(0, |data| data.as_str().len()),
        }
    }
}

/// There only while something waits, or once something came: most gateways have no command most of the time.
#[derive(Default)]
pub(crate) struct Desk(Mutex<Option<Box<Side>>>);

#[derive(Default)]
struct Side {
    jobs: VecDeque<Job>,
    bytes: usize,
    working: bool,
    /// All commands up to this place were handled in this session.
    done: u64,
    /// How many commands wait for the gateway, as far as is known here.
    held: usize,
}

impl Desk {
    /// How many commands wait for the gateway.
    pub(crate) fn held(&self) -> usize {
        self.0.lock().as_ref().map_or(0, |side| side.held)
    }

    /// Whether nothing is being done.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().as_ref().is_none_or(|side| !side.working)
    }
}

/// A session of a gateway began and was welcomed. So many of its commands are open: they go before anything new.
pub(crate) fn opened(shared: &Arc<Shared>, gateway: &Arc<Gateway>, open: usize) {
    gateway.welcomed.store(true, Ordering::Release);
    if open > 0 {
        gateway.desk.0.lock().get_or_insert_default().held = open;
        everything(shared, gateway);
    }
}

/// Has all that is open sent. Before its `welcome` a gateway is sent nothing.
pub(crate) fn everything(shared: &Arc<Shared>, gateway: &Arc<Gateway>) {
    if gateway.is_welcomed() {
        enqueue(shared, gateway, Job::Everything);
    }
}

/// Asks the gateway, when it is here, to cancel a command that it was sent.
pub(super) fn cancel(shared: &Arc<Shared>, key: &GatewayKey, cmd: &CommandId) {
    let gateway = shared.gateways.lock().held.get(key).cloned();
    if let Some(gateway) = gateway.filter(|gateway| gateway.is_welcomed()) {
        // Behind the command itself, which may be won and not written yet. One that finds no room is asked for again.
        enqueue(shared, &gateway, Job::Cancel(Box::new(cmd.clone())));
    }
}

/// Takes the hint that there is a command. False when the gateway is not here, or not welcomed yet.
pub(super) fn dispatched(shared: &Arc<Shared>, key: &GatewayKey, record: Record, whole: bool) -> bool {
    let gateway = shared.gateways.lock().held.get(key).cloned();
    let here = |gateway: &Arc<Gateway>| gateway.is_welcomed() && !gateway.conn.is_ending();
    let Some(gateway) = gateway.filter(here) else { return false };
    if !whole || !enqueue(shared, &gateway, Job::Dispatched(Box::new(record))) {
        everything(shared, &gateway);
    }
    true
}

/// Takes a gateway's word.
pub(crate) fn said(shared: &Arc<Shared>, gateway: &Arc<Gateway>, n: Option<N>, cmd: CommandId, word: Word) {
    if cmd.of != gateway.key.address {
        let text = "`cmd`: it belongs to another gateway";
        return answer_error(shared, &gateway.conn, n, ErrorCode::Forbidden, text);
    }
    let job = Job::Word { n, cmd, word: Box::new(word), since: Instant::now() };
    if !enqueue(shared, gateway, job) {
        let text = "more results wait for the command store than may; send it again later";
        answer_error(shared, &gateway.conn, n, ErrorCode::RateLimited, text);
    }
}

/// Puts a job behind the others; false when too much waits.
fn enqueue(shared: &Arc<Shared>, gateway: &Arc<Gateway>, job: Job) -> bool {
    let mut guard = gateway.desk.0.lock();
    let side = guard.get_or_insert_default();
    match &job {
        // One look at everything serves all who ask for one while it waits.
        Job::Everything if side.jobs.iter().any(|job| matches!(job, Job::Everything)) => return true,
        Job::Everything => {}
        _ if side.jobs.len() >= WAITING || side.bytes + job.bytes() > WAITING_BYTES => return false,
        _ => {}
    }
    side.bytes += job.bytes();
    side.jobs.push_back(job);
    if !std::mem::replace(&mut side.working, true) {
        drop(guard);
        let (shared, gateway) = (shared.clone(), gateway.clone());
        shared.clone().tasks.spawn(async move { work(&shared, &gateway).await });
    }
    true
}

async fn work(shared: &Arc<Shared>, gateway: &Arc<Gateway>) {
    let _busy = shared.busy();
    loop {
        let job = {
            let mut guard = gateway.desk.0.lock();
            let Some(side) = guard.as_mut() else { return };
            let Some(job) = side.jobs.pop_front() else {
                side.working = false;
                return;
            };
            side.bytes -= job.bytes();
            job
        };
        match job {
            Job::Everything => send_open(shared, gateway).await,
            Job::Dispatched(record) => {
                let done = gateway.desk.0.lock().as_ref().map_or(0, |side| side.done);
                if record.seq <= done {
                    continue;
                }
                // The one before it was handled here: nothing is missing between.
                if record.prev <= done && done > 0 {
                    if send(shared, gateway, &record).await {
                        handled(gateway, record.seq);
                    }
                } else {
                    send_open(shared, gateway).await;
                }
            }
            Job::Cancel(cmd) => {
                gateway.conn.send(frame::text(&outbound::cancel(&cmd)));
            }
            Job::Word { n, cmd, word, since } => record_word(shared, gateway, n, &cmd, *word, since).await,
        }
    }
}

fn handled(gateway: &Gateway, seq: u64) {
    if let Some(side) = gateway.desk.0.lock().as_mut() {
        side.done = side.done.max(seq);
        side.held = side.held.saturating_sub(1);
    }
}

/// Sends all that is open and was not handled in this session.
async fn send_open(shared: &Arc<Shared>, gateway: &Arc<Gateway>) {
    loop {
        let done = gateway.desk.0.lock().as_ref().map_or(0, |side| side.done);
        let call = shared.ports.commands.open(&gateway.key, done, RECORDS_PAGE);
        let Ok(page) = shared.call(call).await else {
            if gateway.conn.is_ending() {
                return;
            }
            sleep(REPEAT).await;
            continue;
        };
        for record in &page {
            if !send(shared, gateway, record).await {
                return;
            }
            handled(gateway, record.seq);
        }
        if page.len() < RECORDS_PAGE {
            if let Some(side) = gateway.desk.0.lock().as_mut() {
                side.held = 0;
            }
            return;
        }
    }
}

/// Wins a command for this session and writes it. False when the session can send nothing more.
async fn send(shared: &Arc<Shared>, gateway: &Arc<Gateway>, record: &Record) -> bool {
    let won = Step::Send { epoch: gateway.epoch, remembers_ms: gateway.remembers_ms };
    loop {
        if gateway.conn.is_ending() {
            return false;
        }
        let call = shared.ports.commands.step(&gateway.key, &record.cmd, &won);
        let Ok(stepped) = shared.call(call).await else {
            sleep(REPEAT).await;
            continue;
        };
        // A record that is gone was decided long ago, or lost.
        let Some(stepped) = stepped else { return true };
        super::count(shared, &stepped);
        match stepped.took {
            Took::Yes => {
                shared.metrics.commands.sent(stepped.record.sends > 1);
                gateway.conn.send(frame::text(&outbound::command(&stepped.record, stepped.now_ms)));
            }
            Took::No(Refusal::Fenced) => {
                let newer = stepped.holder.map(|holder| holder.epoch).filter(|epoch| *epoch > gateway.epoch);
                if newer.is_some() {
                    gateway.fenced(shared, newer);
                    return false;
                }
                // The registry lost the session, or ended it: registering it again says which.
                gateway.restore_soon(shared).await;
                sleep(REPEAT).await;
                continue;
            }
            _ => {}
        }
        if stepped.record.outcomes.len() > stepped.before || stepped.took == Took::Yes {
            super::tell(shared, &gateway.key, &stepped.record).await;
        }
        return true;
    }
}

/// Records what the gateway said, repeating the call until it is answered, and answers it.
async fn record_word(
    shared: &Arc<Shared>,
    gateway: &Arc<Gateway>,
    mut n: Option<N>,
    cmd: &CommandId,
    word: Word,
    since: Instant,
) {
    let said = Step::Word(word);
    let mut again = false;
    let stepped = loop {
        if let Ok(stepped) = take_step(shared, &gateway.key, cmd, &said, again).await {
            break stepped;
        }
        again = true;
        let late = since.elapsed() >= shared.config.answer;
        if late && n.is_some() {
            let text = "the command store does not answer; sending it again is safe";
            answer_error(shared, &gateway.conn, n.take(), ErrorCode::Unavailable, text);
            gateway.conn.flush();
        }
        if late && gateway.conn.is_ending() {
            return;
        }
        sleep(REPEAT).await;
    };
    let refusal = match stepped.as_ref().map(|stepped| stepped.took) {
        Some(Took::Yes | Took::Nothing) => None,
        None => Some((ErrorCode::NotFound, "`cmd`: there is no such command, or it is long forgotten")),
        Some(Took::No(Refusal::TooMany)) => {
            Some((ErrorCode::TooMany, "as many words of this command are kept as may be"))
        }
        Some(Took::No(_)) => Some((ErrorCode::Conflict, "`cmd`: it was never sent")),
    };
    match refusal {
        None => answer_ok(&gateway.conn, n),
        Some((code, text)) => answer_error(shared, &gateway.conn, n, code, text),
    }
    gateway.conn.flush();
}
