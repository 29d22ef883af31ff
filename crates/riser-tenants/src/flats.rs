//! Flats that are registered, and the codes that their gateways are enrolled with.
//!
//! A building's flats are kept in [`FLAT_PARTS`] entries, so that five thousand flats are eight documents of some two hundred
//! kilobytes and not five thousand keys. A code is good once, for a time, and is kept as its hash: who reads the bucket cannot
//! enrol anything. It names its flat (`acme/b12/f0304/7K2M-9QXT-4WZR-HC3D`), so that nothing is looked for to find it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use riser_bus::kv::{Kv, KvError, Written};
use riser_bus::{Bucket, Entry, FLAT_PARTS};
use riser_core::path::is_hidden;
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, Label, TenantId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest name, floor and note of a flat, in bytes.
pub const NAME_BYTES: usize = 128;
/// Flats that one call registers.
pub const FLATS_AT_ONCE: usize = 200;
/// For how long a code may be good, in milliseconds: a year.
pub const CODE_MS_MAX: u64 = 365 * 86_400_000;
/// By how much later a token must end than what is noted of its flat, in milliseconds, to be noted as well: a day. Nobody plans
/// visits by the hour, and a gateway that renews all the time costs no writing.
pub const NOTED_LATER_MS: u64 = 86_400_000;
/// Longest code as somebody types it, in bytes.
pub const CODE_BYTES: usize = 256;
/// Letters of a code's random part: 80 bits, which nobody tries through.
const LETTERS: usize = 16;
/// Letters that are not taken for each other.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// How often a change is made again because somebody else's came in between.
const TRIES: usize = 16;

/// A flat as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flat {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On which floor it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Kept>,
    /// When a gateway was enrolled last, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at_ms: Option<u64>,
    /// The latest end of a token that was given for its gateway since it was enrolled last, Unix milliseconds, or up to
    /// [`NOTED_LATER_MS`] before; none when none was noted. A note may be lost: then this is earlier still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at_ms: Option<u64>,
}

/// The times of a token that a gateway got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// When it was issued, Unix milliseconds, to the second.
    pub issued_at_ms: u64,
    /// When it ends, Unix milliseconds.
    pub expires_at_ms: u64,
}

/// What is kept of a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    sha256: String,
    until_ms: u64,
}

/// An entry of the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Part {
    version: u32,
    flats: BTreeMap<GatewayId, Flat>,
}

/// A flat that somebody wants registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFlat {
    /// Its address.
    pub address: Address,
    /// Its name, floor and note.
    pub about: [Option<String>; 3],
}

/// What became of a flat that was to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its address.
    pub address: Address,
    /// Whether it was not known before.
    pub new: bool,
    /// The code, when one was made. It is kept nowhere.
    pub code: Option<String>,
}

/// Which flats get a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Those that have none yet and were never enrolled.
    Missing,
    /// All of them: what they had before is good no more.
    All,
}

/// Why flats were not read, registered or enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlatsError {
    /// The bucket does not answer, or has no room.
    #[error("the bucket of flats does not answer, or is full")]
    Unavailable,
    /// Others change it all the time.
    #[error("others change the flats of this building at the same time: try again")]
    Busy,
    /// More flats in one building than an entry can hold.
    #[error("the building has more flats than may be registered in one")]
    TooMany,
    /// What is kept cannot be read, and is not overwritten.
    #[error("the flats of this building cannot be read")]
    Unreadable,
    /// The operating system gave no random bytes.
    #[error("no random bytes could be had")]
    NoRandomness,
    /// No code, a wrong one, one that was used, or one that is too old: nobody is told which.
    #[error("the code is not valid: it may be mistyped, used already, or too old")]
    BadCode,
}

impl From<KvError> for FlatsError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Unavailable | KvError::Full => Self::Unavailable,
            KvError::Size => Self::TooMany,
        }
    }
}

/// A code as it was read: whose it says it is, and what it hashes to.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// The flat that it names.
    pub key: GatewayKey,
    sha256: String,
}

impl FromStr for Code {
    type Err = FlatsError;
    fn from_str(text: &str) -> Result<Self, FlatsError> {
        let bad = FlatsError::BadCode;
        if text.len() > CODE_BYTES {
            return Err(bad);
        }
        let (flat, letters) = text.trim().rsplit_once('/').ok_or(bad)?;
        let (tenant, address) = flat.split_once('/').ok_or(bad)?;
        let address: Address = address.parse().map_err(|_| bad)?;
        let key = GatewayKey::new(tenant.parse().map_err(|_| bad)?, address);
        let plain = |letter: char| match letter.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            letter => letter,
        };
        let letters: String = letters.chars().filter(|c| !matches!(c, '-' | ' ')).map(plain).collect();
        let good = letters.len() == LETTERS && letters.bytes().all(|letter| ALPHABET.contains(&letter));
        if good { Ok(Self { sha256: hash(&key, &letters), key }) } else { Err(bad) }
    }
}

fn hash(key: &GatewayKey, letters: &str) -> String {
    let hash = Sha256::digest(format!("{}/{}/{letters}", key.tenant, key.address));
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a code: the text, and what is kept of it.
fn make(key: &GatewayKey, until_ms: u64) -> Result<(String, Kept), FlatsError> {
    let mut bytes = [0; LETTERS];
    getrandom::fill(&mut bytes).map_err(|_| FlatsError::NoRandomness)?;
    let letters: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let groups = [&letters[..4], &letters[4..8], &letters[8..12], &letters[12..]].join("-");
    let kept = Kept { sha256: hash(key, &letters), until_ms };
    Ok((format!("{}/{}/{groups}", key.tenant, key.address), kept))
}

/// Whether a text may be a flat's name, floor or note.
pub fn is_about(text: &str) -> bool {
    text.len() <= NAME_BYTES && !text.chars().any(is_hidden)
}

/// Whether a token's end is noted where another is noted already, or none.
pub fn is_noted_after(noted_ms: Option<u64>, expires_at_ms: u64) -> bool {
    noted_ms.is_none_or(|noted_ms| expires_at_ms >= noted_ms.saturating_add(NOTED_LATER_MS))
}

/// The part of a building that a flat is in.
fn part_of(gateway: &GatewayId) -> u8 {
    Sha256::digest(gateway.as_str().as_bytes())[0] % FLAT_PARTS
}

/// What the part of a building that a flat is in is kept under.
fn entry_of(key: &GatewayKey) -> Entry {
    Entry::Flats(key.tenant.clone(), key.address.building().clone(), part_of(key.address.gateway()))
}

/// The bucket of flats. Clones are the same.
#[derive(Clone)]
pub struct Flats {
    kv: Arc<dyn Kv>,
}

impl Flats {
    /// The flats of this cluster.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    async fn part(&self, entry: &Entry) -> Result<(Part, u64), FlatsError> {
        let Some(value) = self.kv.get(entry).await? else { return Ok((Part::default(), 0)) };
        let part: Part = serde_json::from_slice(&value.bytes).map_err(|_| FlatsError::Unreadable)?;
        if part.version > 1 { Err(FlatsError::Unreadable) } else { Ok((part, value.revision)) }
    }

    /// Changes a part, as often as others come in between.
    async fn change<T>(
        &self,
        entry: &Entry,
        change: impl Fn(&mut Part) -> Result<T, FlatsError> + Send + Sync,
    ) -> Result<T, FlatsError> {
        for _ in 0..TRIES {
            let (mut part, revision) = self.part(entry).await?;
            let before = part.clone();
            let answer = change(&mut part)?;
            if part == before {
                return Ok(answer);
            }
            part.version = 1;
            let text = serde_json::to_vec(&part).map_err(|_| FlatsError::Unreadable)?;
            if let Written::Yes(_) = self.kv.put(entry, text.into(), revision, None).await? {
                return Ok(answer);
            }
        }
        Err(FlatsError::Busy)
    }

    /// Registers flats, and makes codes that are good until `until_ms`. The same flats again change nothing, but for what is
    /// said about them. Answers in the order of the parts of buildings.
    pub async fn register(
        &self,
        tenant: &TenantId,
        flats: &[NewFlat],
        codes: Codes,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<Vec<Registered>, FlatsError> {
        let mut parts: BTreeMap<Entry, Vec<&NewFlat>> = BTreeMap::new();
        for flat in flats {
            let (building, gateway) = (flat.address.building().clone(), flat.address.gateway());
            parts.entry(Entry::Flats(tenant.clone(), building, part_of(gateway))).or_default().push(flat);
        }
        let mut all = vec![];
        for (entry, flats) in parts {
            let change = |part: &mut Part| {
                flats.iter().map(|flat| register(part, tenant, flat, codes, now_ms, until_ms)).collect()
            };
            let some: Vec<Registered> = self.change(&entry, change).await?;
            all.extend(some);
        }
        Ok(all)
    }

    /// The flats of a building by their gateways' names.
    pub async fn building(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<BTreeMap<GatewayId, Flat>, FlatsError> {
        let entries: Vec<Entry> =
            (0..FLAT_PARTS).map(|part| Entry::Flats(tenant.clone(), building.clone(), part)).collect();
        let parts = futures_util::future::try_join_all(entries.iter().map(|entry| self.part(entry))).await?;
        Ok(parts.into_iter().flat_map(|(part, _)| part.flats).collect())
    }

    /// One flat, none when it is not registered. Reads the part of the building that it is in.
    pub async fn flat(&self, key: &GatewayKey) -> Result<Option<Flat>, FlatsError> {
        let (mut part, _) = self.part(&entry_of(key)).await?;
        Ok(part.flats.remove(key.address.gateway()))
    }

    /// Whether a code is good now. Says whether a gateway of the flat was enrolled before.
    pub async fn look(&self, code: &Code, now_ms: u64) -> Result<bool, FlatsError> {
        let (part, _) = self.part(&entry_of(&code.key)).await?;
        let flat = part.flats.get(code.key.address.gateway()).ok_or(FlatsError::BadCode)?;
        flat.accepts(code, now_ms).map(|()| flat.enrolled_at_ms.is_some())
    }

    /// Uses a code up, for a token that ends then. Of those who do so at once one succeeds.
    pub async fn enrol(&self, code: &Code, now_ms: u64, token_expires_at_ms: u64) -> Result<(), FlatsError> {
        let change = |part: &mut Part| {
            let flat = part.flats.get_mut(code.key.address.gateway()).ok_or(FlatsError::BadCode)?;
            flat.accepts(code, now_ms)?;
            flat.code = None;
            flat.enrolled_at_ms = Some(now_ms);
            // Also if what was noted is later: that token was another device's.
            flat.token_expires_at_ms = Some(token_expires_at_ms);
            Ok(())
        };
        self.change(&entry_of(&code.key), change).await
    }

    /// Notes when tokens end that gateways of a building got. What is not registered stays so. An error is of one part of the
    /// building; the others are noted, and the same notes again do no harm.
    pub async fn note_tokens(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        tokens: &BTreeMap<GatewayId, TokenTimes>,
    ) -> Result<(), FlatsError> {
        let mut parts: BTreeMap<u8, Vec<(&GatewayId, &TokenTimes)>> = BTreeMap::new();
        for token in tokens {
            parts.entry(part_of(token.0)).or_default().push(token);
        }
        let noting = parts.into_iter().map(|(part, tokens)| async move {
            let entry = Entry::Flats(tenant.clone(), building.clone(), part);
            let change = |part: &mut Part| {
                for (gateway, token) in &tokens {
                    if let Some(flat) = part.flats.get_mut(*gateway) {
                        flat.note_token(token);
                    }
                }
                Ok(())
            };
            self.change(&entry, change).await
        });
        let mut failed: Vec<FlatsError> =
            futures_util::future::join_all(noting).await.into_iter().filter_map(Result::err).collect();
        // One that may go away is worth another try, whatever else there is.
        failed.sort_by_key(|error| !matches!(error, FlatsError::Unavailable | FlatsError::Busy));
        failed.first().map_or(Ok(()), |error| Err(*error))
    }

    /// Forgets one flat.
    pub async fn forget(&self, key: &GatewayKey) -> Result<(), FlatsError> {
        let change = |part: &mut Part| {
            part.flats.remove(key.address.gateway());
            Ok(())
        };
        self.change(&entry_of(key), change).await
    }

    /// Forgets all flats of a tenant, and gives how many that were.
    pub async fn forget_all(&self, tenant: &TenantId) -> Result<u64, FlatsError> {
        let (mut gone, mut after) = (0, 0);
        loop {
            let page = self.kv.list(Bucket::Flats, after).await?;
            for (entry, value) in page.entries {
                if !matches!(&entry, Entry::Flats(of, ..) if of == tenant) {
                    continue;
                }
                if let Written::Yes(_) = self.kv.delete(&entry, value.revision).await? {
                    let part: Part = serde_json::from_slice(&value.bytes).unwrap_or_default();
                    gone += part.flats.len() as u64;
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(gone),
            }
        }
    }
}

impl Flat {
    fn accepts(&self, code: &Code, now_ms: u64) -> Result<(), FlatsError> {
        // Hashes of random codes are compared, so that how long it takes tells nothing of a code.
        let good = |kept: &Kept| kept.sha256 == code.sha256 && now_ms < kept.until_ms;
        if self.code.as_ref().is_some_and(good) { Ok(()) } else { Err(FlatsError::BadCode) }
    }

    /// Notes a later end. A token that was issued before the gateway was enrolled is another device's, and not counted.
    fn note_token(&mut self, token: &TokenTimes) {
        // Tokens say the second in which they were issued.
        let older = self.enrolled_at_ms.is_some_and(|at_ms| token.issued_at_ms / 1000 < at_ms / 1000);
        if !older && is_noted_after(self.token_expires_at_ms, token.expires_at_ms) {
            self.token_expires_at_ms = Some(token.expires_at_ms);
        }
    }

    /// Whether its gateway's token has ended then, as far as that is known.
    pub fn token_ends_until(&self, until_ms: u64) -> bool {
        self.token_expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= until_ms)
    }

    /// What it is called; none when it has neither a name nor a floor.
    pub fn into_label(self) -> Option<Label> {
        let label = Label { name: self.name, floor: self.floor };
        (label != Label::default()).then_some(label)
    }

    /// Whether a code of it is good now.
    pub fn has_code(&self, now_ms: u64) -> bool {
        self.code.as_ref().is_some_and(|kept| now_ms < kept.until_ms)
    }
}

fn register(
    part: &mut Part,
    tenant: &TenantId,
    new: &NewFlat,
    codes: Codes,
    now_ms: u64,
    until_ms: u64,
) -> Result<Registered, FlatsError> {
    let is_new = !part.flats.contains_key(new.address.gateway());
    let flat = part.flats.entry(new.address.gateway().clone()).or_default();
    let [name, floor, note] = new.about.clone();
    (flat.name, flat.floor, flat.note) = (name, floor, note);
    let wanted = codes == Codes::All || !flat.has_code(now_ms) && flat.enrolled_at_ms.is_none();
    let mut code = None;
    if wanted {
        let (text, kept) = make(&GatewayKey::new(tenant.clone(), new.address.clone()), until_ms)?;
        (code, flat.code) = (Some(text), Some(kept));
    }
    Ok(Registered { address: new.address.clone(), new: is_new, code })
}

#[cfg(test)]
mod tests;
