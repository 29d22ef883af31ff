//! Commands: what is kept of one, and the rules by which its record decides what became of it.
//!
//! A command's truth is its [`Record`] in a store. Everything that happens to it is a [`Step`] that the store applies by
//! its own clock, one after the other; who wins a step tells everybody. So there is one final outcome, whoever asks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Address, EdgeId, text_serde};
use crate::json::Json;
use crate::path::Path;
use crate::text::short_text;
use crate::version::Epoch;

/// Longest `key` of a command, in bytes.
pub const KEY_BYTES: usize = 128;
/// Longest `action`, in bytes.
pub const ACTION_BYTES: usize = 64;
/// Longest `code` of a result, in bytes.
pub const CODE_BYTES: usize = 64;
/// The shortest and the longest deadline, in milliseconds from the command's acceptance.
pub const DEADLINE_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// The deadline of a command that names none, in milliseconds.
pub const DEFAULT_DEADLINE_MS: u64 = 10_000;
/// For how long after its deadline a record is kept, in milliseconds: a repeated key is known as long.
pub const KEPT_MS: u64 = 3_600_000;
/// How often a command is written to sockets at most. One that ends its gateway's session each time must not do so for ever.
pub const SENDS: u8 = 3;
/// Commands that are held for one gateway.
pub const HELD: usize = 32;
/// `running` words that are kept of one command; later ones are refused. A progress bar does not need more.
pub const RUNNING: usize = 32;
/// Words after the final outcome that are kept of one command; later ones are refused.
pub const LATE: usize = 8;
/// Bytes of `data` in the `running` and late words that are kept of one command, each counted apart; later ones are refused.
/// The word that decides is kept whatever its size, which a message bounds.
pub const WORDS_BYTES: usize = 64 * 1024;
/// Edges that are told of a command. Repeating it through yet another one makes the oldest forgotten.
pub const EDGES: usize = 8;

/// Why a short text of a command was refused. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandTextError {
    /// Not a key.
    #[error("not a key: 1 to 128 bytes without control characters")]
    Key,
    /// Not an action.
    #[error("not an action: 1 to 64 bytes without control characters")]
    Action,
    /// Not a code.
    #[error("not a code: 1 to 64 bytes without control characters")]
    Code,
}

short_text!(
    /// What makes a retry the same command.
    CommandKey, KEY_BYTES, CommandTextError, CommandTextError::Key
);
short_text!(
    /// What is to be done.
    Action, ACTION_BYTES, CommandTextError, CommandTextError::Action
);
short_text!(
    /// A gateway's own word for how it went.
    ResultCode, CODE_BYTES, CommandTextError, CommandTextError::Code
);

/// The half of a hash over tenant, address and key. Two commands of an address with the same one are the same command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a digest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: 32 hexadecimal digits in lower case")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(s: &str) -> Result<Self, DigestError> {
        let number = u128::from_str_radix(s, 16).map_err(|_| DigestError)?;
        let digest = Self(number.to_be_bytes());
        // One name for one digest.
        if digest.to_string() == s { Ok(digest) } else { Err(DigestError) }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `cmd`: the name of a command. It says where the command belongs, and when it was accepted, so that a key that is used
/// again after it was forgotten gives another name: a gateway must not take the new command for the old one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// The gateway.
    pub of: Address,
    /// The hash over the key.
    pub digest: Digest,
    /// When it was accepted, Unix milliseconds on the store's clock.
    pub at_ms: u64,
}

/// Why the name of a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a `cmd` that this cluster gave")]
pub struct CommandIdError;

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{:x}", self.of.building(), self.of.gateway(), self.digest, self.at_ms)
    }
}

impl FromStr for CommandId {
    type Err = CommandIdError;
    fn from_str(s: &str) -> Result<Self, CommandIdError> {
        let mut parts = s.split('.');
        let mut next = || parts.next().ok_or(CommandIdError);
        let (building, gateway, digest, at) = (next()?, next()?, next()?, next()?);
        let id = || {
            let of = Address::new(building.parse().ok()?, gateway.parse().ok()?).ok()?;
            Some(Self { of, digest: digest.parse().ok()?, at_ms: u64::from_str_radix(at, 16).ok()? })
        };
        // One name for one command: what reads well but would be written otherwise is none.
        id().filter(|id| parts.next().is_none() && id.to_string() == s).ok_or(CommandIdError)
    }
}

text_serde!(CommandId);

/// How a command stands, or stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Stored durably for a gateway that is offline.
    Held,
    /// Written to the gateway's socket, or about to be.
    Sent,
    /// The gateway has it.
    Received,
    /// The gateway does it.
    Running,
    /// The gateway did it.
    Succeeded,
    /// The gateway tried and failed.
    Failed,
    /// The gateway will not do it.
    Rejected,
    /// The gateway was not connected, and the command was not to be held: nothing was sent.
    Offline,
    /// The deadline passed and it was never sent.
    Expired,
    /// It was sent, and no outcome came by the deadline.
    Unknown,
    /// Cancelled before it was sent, or the gateway said so.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 11] = [
        Self::Held,
        Self::Sent,
        Self::Received,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::Offline,
        Self::Expired,
        Self::Unknown,
        Self::Cancelled,
    ];

    /// The word on the wire and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Offline => "offline",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can follow it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Sent | Self::Received | Self::Running)
    }
}

/// What a gateway may say of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It has it.
    Received,
    /// It does it.
    Running,
    /// It did it.
    Succeeded,
    /// It tried and failed.
    Failed,
    /// It will not do it.
    Rejected,
    /// It was asked to stop and did.
    Cancelled,
}

impl From<Said> for Status {
    fn from(said: Said) -> Self {
        match said {
            Said::Received => Self::Received,
            Said::Running => Self::Running,
            Said::Succeeded => Self::Succeeded,
            Said::Failed => Self::Failed,
            Said::Rejected => Self::Rejected,
            Said::Cancelled => Self::Cancelled,
        }
    }
}

/// A gateway's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// How it stands.
    pub status: Said,
    /// The gateway's own word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ResultCode>,
    /// What there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

/// Something that became of a command, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What.
    pub status: Status,
    /// The gateway's own word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ResultCode>,
    /// What the gateway had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// When, Unix milliseconds on the store's clock.
    pub at_ms: u64,
    /// Whether it is a word of the gateway that came after the final outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

impl Outcome {
    /// Whether it decided the command.
    pub fn is_final(&self) -> bool {
        self.status.is_final() && !self.late
    }

    fn says(&self, word: &Word) -> bool {
        self.status == Status::from(word.status) && self.code == word.code && self.data == word.data
    }
}

/// What is to be done, as its issuer said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// With which device or property.
    pub path: Path,
    /// What.
    pub action: Action,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Json>,
    /// Whether it waits for a gateway that is offline.
    pub hold: bool,
}

impl Body {
    /// Whether both ask for the same. White space and the order of members in `args` make no difference.
    pub fn is_same(&self, other: &Body) -> bool {
        let value = |args: &Option<Json>| {
            args.as_ref().map(|json| serde_json::from_str::<serde_json::Value>(json.as_str()).ok())
        };
        (&self.path, &self.action, self.hold) == (&other.path, &other.action, other.hold)
            && (self.args == other.args || value(&self.args) == value(&other.args))
    }
}

/// What a store keeps of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub cmd: CommandId,
    /// Its place among the commands of its gateway: greater than that of each that was accepted before.
    pub seq: u64,
    /// The place of the one that was accepted right before; 0 when it is the first that is known. Who has handled that one
    /// knows that nothing is missing between.
    pub prev: u64,
    /// What is to be done.
    pub body: Body,
    /// Who issued it first: `client:` and its subject.
    pub by: String,
    /// Until when an outcome is waited for, Unix milliseconds on the store's clock.
    pub deadline_at_ms: u64,
    /// How often it was won to be written to a socket.
    pub sends: u8,
    /// When that happened first; 0 when it never did.
    pub sent_at_ms: u64,
    /// The session that it was written to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<Epoch>,
    /// What became of it so far.
    pub outcomes: Vec<Outcome>,
    /// The edges whose sessions want to know.
    pub edges: Vec<EdgeId>,
}

/// Something that happens to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nothing; but if the deadline has passed, that becomes final.
    Look,
    /// An edge is about to write it to the socket of this session.
    Send {
        /// The session. It must be the one that holds the gateway.
        epoch: Epoch,
        /// For how long its gateway recognises a command that it has seen, in milliseconds.
        remembers_ms: u64,
    },
    /// The gateway says something.
    Word(Word),
    /// Somebody who may wants it not to be done.
    Cancel,
    /// The gateway was found to be offline.
    Offline,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Took {
    /// It happened, now or by an earlier call that nobody heard the answer of.
    Yes,
    /// It changed nothing, and is no mistake.
    Nothing,
    /// It cannot happen.
    No(Refusal),
}

/// Why a step cannot happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The final outcome was decided before.
    Final,
    /// The gateway speaks of a command that it was never sent.
    NotSent,
    /// It was sent already: cancelling it is the gateway's to do, and it is not `offline` any more.
    Sent,
    /// Another session holds the gateway.
    Fenced,
    /// It was sent in an earlier session, and must not be sent again: the gateway does not remember, or it was tried
    /// often enough.
    NotAgain,
    /// As many words are kept already as may be.
    TooMany,
}

impl Record {
    /// The outcome that decided it, when there is one.
    pub fn decided(&self) -> Option<&Outcome> {
        self.outcomes.iter().rev().find(|outcome| outcome.is_final())
    }

    /// Whether it waits to be sent for the first time.
    pub fn is_unsent(&self) -> bool {
        self.sends == 0 && self.decided().is_none()
    }

    /// Whether it was told to be held: its issuer counts on it.
    pub fn was_held(&self) -> bool {
        self.outcomes.first().is_some_and(|outcome| outcome.status == Status::Held)
    }

    /// Whether this is the same command, and what `earlier` says of it is the beginning of what this says. Of one store's
    /// records of a command, read at different times, the later follows the earlier; two of which neither does tell that
    /// the store lost data in between.
    pub fn follows(&self, earlier: &Record) -> bool {
        let sends = self.sends > earlier.sends || self.sends == earlier.sends && self.sent_to == earlier.sent_to;
        self.cmd == earlier.cmd && sends && self.outcomes.starts_with(&earlier.outcomes)
    }

    /// Notes that an edge wants to hear of it.
    pub fn tell(&mut self, edge: &EdgeId) {
        if self.edges.contains(edge) {
            return;
        }
        if self.edges.len() >= EDGES {
            self.edges.remove(0);
        }
        self.edges.push(edge.clone());
    }

    /// Applies a step. `holder` is the session that holds the gateway, none when it is offline.
    pub fn step(&mut self, step: &Step, holder: Option<Epoch>, now_ms: u64) -> Took {
        if self.decided().is_none() && now_ms >= self.deadline_at_ms {
            self.add(if self.sends == 0 { Status::Expired } else { Status::Unknown }, now_ms);
        }
        match step {
            Step::Look => Took::Nothing,
            Step::Send { epoch, remembers_ms } => self.send(*epoch, *remembers_ms, holder, now_ms),
            Step::Word(word) => self.word(word, now_ms),
            Step::Cancel => self.cancel(now_ms),
            Step::Offline => self.offline(now_ms),
        }
    }

    fn send(&mut self, epoch: Epoch, remembers_ms: u64, holder: Option<Epoch>, now_ms: u64) -> Took {
        if self.decided().is_some() {
            return Took::No(Refusal::Final);
        }
        if holder != Some(epoch) {
            return Took::No(Refusal::Fenced);
        }
        if self.sent_to == Some(epoch) {
            return Took::Yes;
        }
        if self.sends == 0 {
            self.sent_at_ms = now_ms;
            self.add(Status::Sent, now_ms);
        } else if self.sends >= SENDS || now_ms.saturating_sub(self.sent_at_ms) >= remembers_ms {
            return Took::No(Refusal::NotAgain);
        }
        self.sends += 1;
        self.sent_to = Some(epoch);
        Took::Yes
    }

    fn word(&mut self, word: &Word, now_ms: u64) -> Took {
        if self.sends == 0 {
            return Took::No(Refusal::NotSent);
        }
        let status = Status::from(word.status);
        let late = self.decided().is_some();
        let repeats = |outcome: &Outcome| outcome.says(word);
        let known = match status {
            _ if late => self.outcomes.iter().any(repeats),
            Status::Received => self.outcomes.iter().any(|o| matches!(o.status, Status::Received | Status::Running)),
            _ => self.outcomes.last().is_some_and(repeats),
        };
        if known {
            return Took::Nothing;
        }
        let alike = |o: &&Outcome| if late { o.late } else { o.status == Status::Running };
        let most = if late { LATE } else { RUNNING };
        if late || status == Status::Running {
            let size = |data: &Option<Json>| data.as_ref().map_or(0, |data| data.as_str().len());
            let bytes: usize = self.outcomes.iter().filter(alike).map(|o| size(&o.data)).sum();
            if self.outcomes.iter().filter(alike).count() >= most || bytes + size(&word.data) > WORDS_BYTES {
                return Took::No(Refusal::TooMany);
            }
        }
        let (code, data) = (word.code.clone(), word.data.clone());
        self.outcomes.push(Outcome { status, code, data, at_ms: now_ms, late });
        Took::Yes
    }

    fn cancel(&mut self, now_ms: u64) -> Took {
        match self.decided() {
            // Cancelling twice is no mistake; an answer may have been lost.
            Some(outcome) if outcome.status == Status::Cancelled => Took::Nothing,
            Some(_) => Took::No(Refusal::Final),
            None if self.sends > 0 => Took::No(Refusal::Sent),
            None => {
                self.add(Status::Cancelled, now_ms);
                Took::Yes
            }
        }
    }

    fn offline(&mut self, now_ms: u64) -> Took {
        if self.decided().is_some() {
            return Took::No(Refusal::Final);
        }
        if self.sends > 0 {
            return Took::No(Refusal::Sent);
        }
        if !self.body.hold {
            self.add(Status::Offline, now_ms);
        } else if self.outcomes.is_empty() {
            self.add(Status::Held, now_ms);
        } else {
            return Took::Nothing;
        }
        Took::Yes
    }

    fn add(&mut self, status: Status, at_ms: u64) {
        self.outcomes.push(Outcome { status, code: None, data: None, at_ms, late: false });
    }
}

#[cfg(test)]
mod tests;
