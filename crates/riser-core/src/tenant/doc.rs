//! One tenant as a text: what the control plane keeps, what edges follow, what backups hold.
//!
//! The same tenant is always written in the same way, so that two texts are equal when the tenants are. It is read by two
//! rules. What people write must be understood to the last field, so that a mistake shows where it is made. What a newer
//! release publishes may say more than an older edge knows: that is left alone, unless the text says by `needs` that it
//! must not be, as for a new restriction. A right that is not understood is void in either case.

mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use self::reader::Reader;
use super::api_key::{API_KEY_RANGES, is_key_name};
use super::quota::{QUOTA_MAX, QUOTAS};
use super::revoked::{JTI_BYTES, REVOKED_GATEWAYS, REVOKED_SUBJECTS, REVOKED_TOKENS};
use super::signing::{SECRET_BYTES, SECRET_BYTES_MAX, is_kid};
use super::{
    Algorithm, ApiKey, KeyHash, Material, PublicKey, Quotas, Retention, Revocations, SigningKey, Status, Tenant,
};
use crate::frame::MAX_N;
use crate::grant::{GRANTS, Grant, SUBJECT_BYTES};
use crate::id::{Address, TenantId};
use crate::json::Json;
use crate::limits::Limits;
use crate::range::AddressRange;

/// The version that this release writes.
pub const DOC_VERSION: u64 = 1;
/// Largest document, in bytes: what NATS takes in one message by default, and some room for its headers.
pub const DOC_BYTES: usize = 1_000_000;
/// Most API keys of a tenant: one for each of a provider's programs, many times over.
pub const API_KEYS: usize = 1_024;
/// Most signing keys of a tenant.
pub const SIGNING_KEYS: usize = 64;
/// Most origins of a tenant.
pub const ORIGINS: usize = 1_024;
/// How long an event's `id` may be remembered, in milliseconds.
pub const EVENT_DEDUP_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// For how long and how much of a tenant's events may be kept: an hour to ten years, 1 MiB to 1 PiB.
pub const RETENTION: [std::ops::RangeInclusive<u64>; 2] = [3_600_000..=315_360_000_000, (1 << 20)..=(1 << 50)];

/// Who wrote a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Somebody who may have mistyped: a field that is not known is refused.
    Person,
    /// A release, perhaps a newer one: a field that is not known is left alone.
    Release,
}

/// Why a text is no tenant: which field, and what is wrong with it. It repeats no key and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {why}")]
pub struct DocError {
    /// The field as a path: `api_keys[0].from[1]`; `.` for the whole text.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// A tenant and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantDoc {
    /// Its name.
    pub id: TenantId,
    /// All else.
    pub tenant: Tenant,
}

impl TenantDoc {
    /// Reads and checks a text.
    pub fn read(text: &str, writer: Writer) -> Result<Self, DocError> {
        let whole = |why: String| DocError { field: ".".into(), why };
        if text.len() > DOC_BYTES {
            return Err(whole(format!("larger than {DOC_BYTES} bytes")));
        }
        // Neither deeper than any document is, nor with a field that is there twice.
        Json::parse(text).map_err(|error| whole(error.to_string()))?;
        Self::of(serde_json::from_str(text).map_err(|_| whole("not JSON".into()))?, writer)
    }

    /// The same for a text that was read already.
    pub fn of(value: Value, writer: Writer) -> Result<Self, DocError> {
        let mut doc = Reader::new(value, String::new(), writer)?;
        let version = doc.number("version", 1..=MAX_N)?.ok_or_else(|| doc.error("version", "is missing"))?;
        let needs = doc.number("needs", 1..=version)?.unwrap_or(1);
        if needs > DOC_VERSION || (writer == Writer::Person && version > DOC_VERSION) {
            return Err(doc.error("version", "written for a newer release"));
        }
        let id = doc.text("tenant")?.ok_or_else(|| doc.error("tenant", "is missing"))?;
        let id = id.parse().map_err(|error| doc.error("tenant", error))?;
        let tenant = read_tenant(&mut doc)?;
        doc.end()?;
        let doc = Self { id, tenant };
        // What reads well and could not be published.
        if doc.to_json().len() > DOC_BYTES {
            return Err(DocError {
                field: ".".into(),
                why: format!("larger than {DOC_BYTES} bytes when it is written"),
            });
        }
        Ok(doc)
    }

    /// The text: always the same for the same tenant.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Out::of(self)).expect("maps with texts as keys, and numbers")
    }
}

fn read_tenant(doc: &mut Reader) -> Result<Tenant, DocError> {
    let status = match doc.text("status")?.as_deref() {
        None | Some("active") => Status::Active,
        Some("suspended") => Status::Suspended,
        Some(_) => return Err(doc.error("status", "neither `active` nor `suspended`")),
    };
    let origins = doc.list("origins", ORIGINS, |at, value| {
        let origin = value.as_str().ok_or_else(|| at.error("not a text"))?;
        check_origin(origin).map_err(|why| at.error(why)).map(|()| origin.to_owned())
    })?;
    let renewal = doc.flag("renewal")?.unwrap_or(true);
    let audit_commands = doc.flag("audit_commands")?.unwrap_or(false);
    let signing_kid = doc.text("signing_kid")?.unwrap_or_default();
    let mut signing_keys = BTreeMap::new();
    for (at, key) in doc.objects("signing_keys", SIGNING_KEYS, read_signing_key)?.into_iter().enumerate() {
        if signing_keys.contains_key(&(key.kid.clone(), key.algorithm())) {
            return Err(doc.error(&format!("signing_keys[{at}].kid"), "another key has the same name and algorithm"));
        }
        signing_keys.extend([key.entry()]);
    }
    let mut api_keys = BTreeMap::new();
    for (at, (hash, key)) in doc.objects("api_keys", API_KEYS, read_api_key)?.into_iter().enumerate() {
        if api_keys.insert(hash, key).is_some() {
            return Err(doc.error(&format!("api_keys[{at}].hash"), "another key has the same"));
        }
    }
    let tenant = Tenant {
        status,
        origins,
        renewal,
        audit_commands,
        signing_kid,
        signing_keys,
        api_keys,
        limits: doc.object("limits", read_limits)?.unwrap_or_default(),
        quotas: doc.object("quotas", read_quotas)?.unwrap_or_default(),
        retention: doc.object("retention", read_retention)?.unwrap_or_default(),
        revoked: doc.object("revoked", read_revocations)?.unwrap_or_default(),
    };
    if !tenant.signing_kid.is_empty() && tenant.minting_key().is_none() {
        return Err(doc.error("signing_kid", "names none of its keys for HS256, which are what tokens are made with"));
    }
    Ok(tenant)
}

fn read_signing_key(key: &mut Reader) -> Result<SigningKey, DocError> {
    let kid = key.text("kid")?.unwrap_or_default();
    if !is_kid(&kid) {
        return Err(key.error("kid", "not 1 to 64 of A-Z, a-z, 0-9, ., _ and -"));
    }
    let named = key.text("alg")?.and_then(|name| Algorithm::named(&name));
    let algorithm = named.ok_or_else(|| key.error("alg", "none of HS256, EdDSA, ES256 and RS256"))?;
    let secret = key.text("secret")?;
    let public = key.take("public_key");
    let material = match (algorithm, secret, public) {
        (Algorithm::Hs256, Some(secret), None) => {
            let bytes = URL_SAFE_NO_PAD.decode(secret).map_err(|_| key.error("secret", "not base64url"))?;
            if !(SECRET_BYTES..=SECRET_BYTES_MAX).contains(&bytes.len()) {
                return Err(key.error("secret", "not 32 to 1024 bytes"));
            }
            Material::Secret(bytes)
        }
        (Algorithm::Hs256, ..) => return Err(key.error("secret", "HS256 needs this and no public key")),
        (_, None, Some(value)) => {
            let public = PublicKey::read(&value).map_err(|error| key.error("public_key", error))?;
            if public.algorithm() != algorithm {
                return Err(key.error("alg", "not the algorithm of this kind of key"));
            }
            Material::Public(public)
        }
        _ => return Err(key.error("public_key", "this algorithm needs one, as a JWK or PEM, and no secret")),
    };
    Ok(SigningKey { kid, material })
}

/// Reads what is said of an API key beside what it hashes to: `name`, `scope`, `created_at_ms`, `expires_at_ms`, `from`.
fn read_api_key(key: &mut Reader) -> Result<(KeyHash, ApiKey), DocError> {
    let hash = key.text("hash")?.and_then(|text| KeyHash::read(&text));
    // The text stays out of the error, for it may be the key itself.
    let hash = hash.ok_or_else(|| key.error("hash", "not sha256: or hmac-sha256: and 64 hexadecimal digits"))?;
    Ok((hash, read_key_terms(key)?))
}

fn read_key_terms(key: &mut Reader) -> Result<ApiKey, DocError> {
    let name = key.text("name")?.unwrap_or_default();
    if !is_key_name(&name) {
        return Err(key.error("name", "not 1 to 128 bytes without control characters"));
    }
    let strict = key.writer() == Writer::Person;
    let scope = key.list("scope", GRANTS, |at, value| match serde_json::from_value::<Grant>(value.clone()) {
        Ok(grant) => Ok(Some(grant)),
        Err(_) if !strict => Ok(None),
        Err(_) => Err(at.error("not a right: an object of `to`, `may` and perhaps `path`, and nothing else")),
    })?;
    let scope: Vec<_> = scope.unwrap_or_default().into_iter().flatten().collect();
    if strict && scope.is_empty() {
        return Err(key.error("scope", "at least one right is needed"));
    }
    let from = key.list("from", API_KEY_RANGES, |at, value| {
        let text = value.as_str().ok_or_else(|| at.error("not a text"))?;
        text.parse::<AddressRange>().map_err(|error| at.error(error))
    })?;
    // An empty list may be meant as from nowhere, and is never taken for from anywhere.
    if from.as_ref().is_some_and(Vec::is_empty) {
        return Err(key.error("from", "an empty list; leave it out to allow every address"));
    }
    Ok(ApiKey {
        name,
        scope,
        created_at_ms: key.number("created_at_ms", 0..=MAX_N)?.unwrap_or_default(),
        expires_at_ms: key.number("expires_at_ms", 0..=MAX_N)?,
        from: from.unwrap_or_default(),
    })
}

impl ApiKey {
    /// Reads what somebody wants of a new key: `name`, `scope`, and perhaps `expires_at_ms` and `from`. Who makes the key
    /// says when that was.
    pub fn wanted(value: Value) -> Result<Self, DocError> {
        let mut reader = Reader::new(value, String::new(), Writer::Person)?;
        let key = read_key_terms(&mut reader)?;
        reader.end()?;
        Ok(key)
    }
}

impl SigningKey {
    /// Reads what somebody wants to register: `kid`, `alg`, and `public_key` or `secret`.
    pub fn wanted(value: Value) -> Result<Self, DocError> {
        let mut reader = Reader::new(value, String::new(), Writer::Person)?;
        let key = read_signing_key(&mut reader)?;
        reader.end()?;
        Ok(key)
    }
}

/// The limits of every tenant, lowered where the text says so: what edges set aside is for these at most.
fn read_limits(limits: &mut Reader) -> Result<Limits, DocError> {
    let most = Limits::default();
    let mut lowered = |name: &str, most: usize| -> Result<usize, DocError> {
        let given = limits.number(name, 1..=most as u64)?;
        Ok(given.and_then(|given| usize::try_from(given).ok()).unwrap_or(most))
    };
    let subscriptions = lowered("subscriptions", most.subscriptions)?;
    let paths = lowered("paths", most.paths)?;
    let state_bytes = lowered("state_bytes", most.state_bytes)?;
    let event_dedup_ms = limits.number("event_dedup_ms", EVENT_DEDUP_MS)?.unwrap_or(most.event_dedup_ms);
    Ok(Limits { subscriptions, paths, state_bytes, event_dedup_ms, ..most })
}

fn read_quotas(doc: &mut Reader) -> Result<Quotas, DocError> {
    let mut quotas = Quotas::NONE;
    for about in &QUOTAS {
        quotas.set(about.quota, doc.number(about.name, 1..=QUOTA_MAX)?);
    }
    Ok(quotas)
}

impl Quotas {
    /// Reads an object of quotas by name.
    pub fn wanted(value: Value) -> Result<Self, DocError> {
        let mut reader = Reader::new(value, String::new(), Writer::Person)?;
        let quotas = read_quotas(&mut reader)?;
        reader.end()?;
        Ok(quotas)
    }
}

fn read_retention(doc: &mut Reader) -> Result<Retention, DocError> {
    let [ages, sizes] = RETENTION;
    Ok(Retention { age_ms: doc.number("age_ms", ages)?, bytes: doc.number("bytes", sizes)? })
}

fn read_revocations(doc: &mut Reader) -> Result<Revocations, DocError> {
    let within = |name: &str, most: usize| (1..=most).contains(&name.len());
    Ok(Revocations {
        tokens: doc.times("tokens", REVOKED_TOKENS, |jti| within(jti, JTI_BYTES).then(|| jti.to_owned()))?,
        subjects: doc.times("subjects", REVOKED_SUBJECTS, |of| within(of, SUBJECT_BYTES).then(|| of.to_owned()))?,
        gateways: doc.times("gateways", REVOKED_GATEWAYS, |of| of.parse().ok().filter(Address::is_gateway))?,
    })
}

/// An origin as browsers send it (RFC 6454 §6.2): nothing else is ever equal to one.
fn check_origin(origin: &str) -> Result<(), &'static str> {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let good = rest.is_some_and(|host| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b'/' && b != b'*')
    });
    if good { Ok(()) } else { Err("not as browsers send it: https://app.example, in lower case and without a path") }
}

/// A document as it is written: what says nothing is left out, and all else has one order.
#[derive(Serialize)]
struct Out<'a> {
    version: u64,
    needs: u64,
    tenant: &'a TenantId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<&'a [String]>,
    renewal: bool,
    audit_commands: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    signing_kid: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signing_keys: Vec<OutSigning<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    api_keys: Vec<OutKey<'a>>,
    limits: OutLimits,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    quotas: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    retention: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "OutRevoked::is_empty")]
    revoked: OutRevoked<'a>,
}

#[derive(Serialize)]
struct OutSigning<'a> {
    kid: &'a str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<&'a PublicKey>,
}

#[derive(Serialize)]
struct OutKey<'a> {
    name: &'a str,
    hash: String,
    scope: &'a [Grant],
    created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    from: &'a [AddressRange],
}

#[derive(Serialize)]
struct OutLimits {
    subscriptions: usize,
    paths: usize,
    state_bytes: usize,
    event_dedup_ms: u64,
}

#[derive(Serialize)]
struct OutRevoked<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tokens: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subjects: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gateways: &'a BTreeMap<Address, u64>,
}

impl OutRevoked<'_> {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.subjects.is_empty() && self.gateways.is_empty()
    }
}

impl<'a> Out<'a> {
    fn of(doc: &'a TenantDoc) -> Self {
        let tenant = &doc.tenant;
        let Retention { age_ms, bytes } = tenant.retention;
        let kept = [("age_ms", age_ms), ("bytes", bytes)];
        Self {
            version: DOC_VERSION,
            needs: 1,
            tenant: &doc.id,
            status: tenant.status.as_str(),
            origins: tenant.origins.as_deref(),
            renewal: tenant.renewal,
            audit_commands: tenant.audit_commands,
            signing_kid: &tenant.signing_kid,
            signing_keys: tenant.signing_keys.values().map(OutSigning::of).collect(),
            api_keys: tenant.api_keys.iter().map(OutKey::of).collect(),
            limits: OutLimits {
                subscriptions: tenant.limits.subscriptions,
                paths: tenant.limits.paths,
                state_bytes: tenant.limits.state_bytes,
                event_dedup_ms: tenant.limits.event_dedup_ms,
            },
            quotas: tenant.quotas.iter().map(|(quota, limit)| (quota.name(), limit)).collect(),
            retention: kept.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            revoked: OutRevoked {
                tokens: &tenant.revoked.tokens,
                subjects: &tenant.revoked.subjects,
                gateways: &tenant.revoked.gateways,
            },
        }
    }
}

impl<'a> OutSigning<'a> {
    fn of(key: &'a SigningKey) -> Self {
        let (secret, public_key) = match &key.material {
            Material::Secret(secret) => (Some(URL_SAFE_NO_PAD.encode(secret)), None),
            Material::Public(public) => (None, Some(public)),
        };
        Self { kid: &key.kid, alg: key.algorithm().as_str(), secret, public_key }
    }
}

impl<'a> OutKey<'a> {
    fn of((hash, key): (&'a KeyHash, &'a ApiKey)) -> Self {
        Self {
            name: &key.name,
            hash: hash.to_string(),
            scope: &key.scope,
            created_at_ms: key.created_at_ms,
            expires_at_ms: key.expires_at_ms,
            from: &key.from,
        }
    }
}
