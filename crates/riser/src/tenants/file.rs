//! A file that holds the tenant table: read whole, and refused whole when anything in it is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use riser_core::tenant::doc::{DOC_VERSION, TenantDoc, Writer};
use riser_core::tenant::signing::SECRET_BYTES;
use riser_core::tenant::{Algorithm, Tenant};
use riser_core::{TenantId, TenantTable};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli;
use crate::edge::reload::Loaded;
use riser_config::{ConfigError, read_file, read_secret, size};

/// Largest tenants file, in bytes: room for tens of thousands of tenants.
const FILE_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenants: BTreeMap<TenantId, Entry>,
}

/// A tenant as people write it. It becomes a [`TenantDoc`], which checks it by the rules that hold for every tenant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    suspended: bool,
    origins: Option<Vec<String>>,
    #[serde(default = "yes")]
    renewal: bool,
    #[serde(default)]
    audit_commands: bool,
    /// Needed when there are several keys that tokens can be made with.
    signing_kid: Option<String>,
    #[serde(default)]
    signing_keys: Vec<SigningEntry>,
    #[serde(default)]
    api_keys: Vec<KeyEntry>,
    #[serde(default)]
    limits: LimitsEntry,
    /// This and what follows by the names and with the rules of the document.
    #[serde(default)]
    quotas: BTreeMap<String, u64>,
    #[serde(default)]
    retention: RetentionEntry,
    revoked: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningEntry {
    kid: String,
    /// HS256 when nothing is said.
    alg: Option<String>,
    secret_file: Option<String>,
    public_key_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    sha256: Option<String>,
    hmac_sha256: Option<String>,
    scope: Vec<String>,
    created_at_ms: Option<u64>,
    expires_at_ms: Option<u64>,
    from: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    subscriptions: Option<usize>,
    paths: Option<usize>,
    state: Option<String>,
    event_dedup: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RetentionEntry {
    age: Option<String>,
    size: Option<String>,
}

fn yes() -> bool {
    true
}

/// Reads a tenants file and the secrets that it names.
pub(crate) fn read(path: &Path) -> Result<TenantTable, ConfigError> {
    load(path).map(|loaded| loaded.value)
}

/// The same, with the names of all files that were read.
pub(crate) fn load(path: &Path) -> Result<Loaded<TenantTable>, ConfigError> {
    let text = read_file("the tenants file", path, FILE_BYTES)?;
    let mut files = vec![path.to_owned()];
    let folder = path.parent().unwrap_or(Path::new(""));
    let value = parse(&path.display().to_string(), &text, folder, &mut files)?;
    Ok(Loaded { value, files })
}

/// Reads a file's text. The names of secrets' files are relative to `folder`, and added to `files`.
fn parse(name: &str, text: &str, folder: &Path, files: &mut Vec<PathBuf>) -> Result<TenantTable, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count() + 1;
        let why = error.message().replace('\n', "; ");
        ConfigError::bad(format!("{name} line {line}: {}", riser_ops::visible(&why)))
    })?;
    let mut table = TenantTable::default();
    let mut hashes = BTreeSet::new();
    for (id, entry) in file.tenants {
        let at = format!("{name}: tenant {id}");
        let tenant = entry.tenant(&id, &at, folder, files)?;
        for (hash, key) in &tenant.api_keys {
            if !hashes.insert(*hash) {
                return Err(ConfigError::bad(format!("{at}: API key {:?}: another key has the same hash", key.name)));
            }
        }
        table.insert(id, tenant);
    }
    Ok(table)
}

impl Entry {
    fn tenant(self, id: &TenantId, at: &str, folder: &Path, files: &mut Vec<PathBuf>) -> Result<Tenant, ConfigError> {
        let bad = |why: String| ConfigError::bad(format!("{at}: {why}"));
        let mut signing_keys = Vec::new();
        for key in self.signing_keys {
            signing_keys.push(key.document(at, folder, files)?);
        }
        let mut makers = signing_keys.iter().filter(|key| key["alg"] == Algorithm::Hs256.as_str());
        let signing_kid = match (self.signing_kid, makers.next(), makers.next()) {
            (Some(kid), ..) => Some(kid),
            (None, Some(_), Some(_)) => {
                return Err(bad("signing_kid must say which signing key new tokens are made with".into()));
            }
            (None, only, _) => only.and_then(|key| key["kid"].as_str()).map(str::to_owned),
        };
        let api_keys = self.api_keys.into_iter().map(KeyEntry::document).collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let doc = json!({
            "version": DOC_VERSION,
            "tenant": id,
            "status": if self.suspended { "suspended" } else { "active" },
            "origins": self.origins,
            "renewal": self.renewal,
            "audit_commands": self.audit_commands,
            "signing_kid": signing_kid,
            "signing_keys": signing_keys,
            "api_keys": api_keys,
            "limits": self.limits.document().map_err(|why| bad(format!("limits.{why}")))?,
            "quotas": self.quotas,
            "retention": self.retention.document().map_err(|why| bad(format!("retention.{why}")))?,
            "revoked": self.revoked,
        });
        Ok(TenantDoc::of(doc, Writer::Person).map_err(|error| bad(error.to_string()))?.tenant)
    }
}

impl SigningEntry {
    fn document(self, at: &str, folder: &Path, files: &mut Vec<PathBuf>) -> Result<Value, ConfigError> {
        let Self { kid, alg, secret_file, public_key_file } = self;
        let name = format!("{at}: signing key {kid:?}");
        let mut read = |file: Option<String>| {
            let Some(file) = file.map(|file| folder.join(file)) else { return Ok(None) };
            let text = read_secret(&name, &file)?;
            files.push(file);
            Ok::<_, ConfigError>(Some(text))
        };
        let (secret, public_key) = (read(secret_file)?, read(public_key_file)?);
        if secret.as_ref().is_some_and(|secret| secret.len() < SECRET_BYTES) {
            return Err(ConfigError::bad(format!("{name}: its secret is under {SECRET_BYTES} bytes")));
        }
        // A JWK is told from PEM by being JSON.
        let public_key = public_key.map(|text| serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text)));
        Ok(json!({
            "kid": kid,
            "alg": alg.as_deref().unwrap_or(Algorithm::Hs256.as_str()),
            // The text itself is the secret, whatever it may encode.
            "secret": secret.map(|secret| BASE64.encode(secret)),
            "public_key": public_key,
        }))
    }
}

impl KeyEntry {
    fn document(self) -> Result<Value, String> {
        let Self { name, sha256, hmac_sha256, scope, created_at_ms, expires_at_ms, from } = self;
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // The text stays out of the error, for it may be the key itself.
        let hash = match (sha256, hmac_sha256) {
            (Some(digits), None) if is_hash(&digits) => format!("sha256:{digits}"),
            (None, Some(digits)) if is_hash(&digits) => format!("hmac-sha256:{digits}"),
            (Some(_), Some(_)) => return Err(format!("API key {name:?}: sha256 and hmac_sha256: choose one")),
            (_, Some(_)) => return Err(format!("API key {name:?}: hmac_sha256 is not 64 hexadecimal digits")),
            _ => {
                return Err(format!(
                    "API key {name:?}: sha256 is not 64 hexadecimal digits, as `riser tenants new-key` shows them"
                ));
            }
        };
        let grant = |text: &String| cli::grant(text).map_err(|why| format!("API key {name:?}: scope {text:?}: {why}"));
        let scope = scope.iter().map(grant).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({
            "name": name,
            "hash": hash,
            "scope": scope,
            "created_at_ms": created_at_ms,
            "expires_at_ms": expires_at_ms,
            "from": from,
        }))
    }
}

impl LimitsEntry {
    fn document(&self) -> Result<Value, String> {
        let state_bytes = self.state.as_deref().map(size).transpose().map_err(|why| format!("state: {why}"))?;
        let event_dedup = self.event_dedup.as_deref().map(cli::duration).transpose();
        let event_dedup = event_dedup.map_err(|why| format!("event_dedup: {why}"))?;
        Ok(json!({
            "subscriptions": self.subscriptions,
            "paths": self.paths,
            "state_bytes": state_bytes,
            "event_dedup_ms": event_dedup.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }))
    }
}

impl RetentionEntry {
    fn document(&self) -> Result<Value, String> {
        let age = self.age.as_deref().map(cli::duration).transpose().map_err(|why| format!("age: {why}"))?;
        let bytes = self.size.as_deref().map(size).transpose().map_err(|why| format!("size: {why}"))?;
        Ok(json!({ "age_ms": age.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), "bytes": bytes }))
    }
}

#[cfg(test)]
mod tests {
    use riser_core::limits::Limits;
    use riser_core::tenant::{KeyHash, Quota, Quotas, Retention};

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Reads a file beside which there are good secrets (`good`, `other`) and a short one (`short`).
    fn read_text(text: &str) -> Result<TenantTable, String> {
        let folder = std::env::temp_dir().join(format!("riser-tenants-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&folder).expect("a folder");
        for (name, secret) in [("good", "s".repeat(43)), ("other", "o".repeat(43)), ("short", "s".repeat(31))] {
            std::fs::write(folder.join(name), secret + "\n").expect("a file");
        }
        let table = parse("tenants.toml", text, &folder, &mut Vec::new()).map_err(|error| error.to_string());
        std::fs::remove_dir_all(&folder).expect("the folder");
        table
    }

    #[test]
    fn a_file_becomes_the_table() {
        let table = read_text(&format!(
            "[tenants.acme]\norigins = [\"https://app.example\"]\nrenewal = false\nsigning_kid = \"b\"\n\
             signing_keys = [{{ kid = \"a\", secret_file = \"good\" }}, {{ kid = \"b\", secret_file = \"other\" }}]\n\
             [[tenants.acme.api_keys]]\nname = \"back end\"\nsha256 = \"{KEY}\"\nscope = [\"b1/*:read,command:hall/#\", \"*/*:read\"]\n\
             [tenants.acme.limits]\nsubscriptions = 8\nstate = \"4 KiB\"\nevent_dedup = \"1m\"\n\
             [tenants.acme.quotas]\nclient_sessions = 100\n\
             [tenants.acme.retention]\nage = \"2d\"\nsize = \"64 MiB\"\n\
             [tenants.acme.revoked]\nsubjects = {{ alice = 1000 }}\n\
             [tenants.empty]\nsuspended = true\n"
        ))
        .expect("a good file");
        let of = |id: &str| table.get(&id.parse().expect("a tenant")).expect("the tenant").clone();
        let acme = of("acme");
        assert!(!acme.renewal && !acme.is_suspended() && acme.signing_kid == "b" && acme.signing_keys.len() == 2);
        assert_eq!(acme.signing_keys[&("a".into(), Algorithm::Hs256)].secret(), Some("s".repeat(43).as_bytes()));
        let hash = KeyHash::read(&format!("sha256:{KEY}")).expect("a hash");
        assert_eq!(acme.api_keys[&hash].scope.len(), 2);
        assert!(acme.allows_origin(Some("https://app.example")) && !acme.allows_origin(Some("https://other.example")));
        let limits = Limits { subscriptions: 8, state_bytes: 4_096, event_dedup_ms: 60_000, ..Limits::default() };
        assert_eq!(acme.limits, limits);
        assert_eq!(acme.quotas, Quotas::NONE.with(Quota::ClientSessions, 100));
        assert_eq!(acme.retention, Retention { age_ms: Some(172_800_000), bytes: Some(64 << 20) });
        assert_eq!(acme.revoked.subjects["alice"], 1_000);
        let empty = of("empty");
        assert!(empty.is_suspended() && empty.renewal && empty.origins.is_none());
        assert_eq!(empty.limits, Limits::default());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_repeated() {
        let key = |of: &str| format!("[[tenants.t.api_keys]]\nname = \"k\"\n{of}\n");
        for (file, part) in [
            ("[tenants.t]\nsuspendet = true\n".into(), "line 2: unknown field `suspendet`"),
            ("[tenants.T]\n".into(), "line 1: not a tenant name"),
            ("[tenants.t]\nsuspended = \"no\"\n".into(), "line 2: "),
            ("[tenants.t\n".into(), "line 1: "),
            (key("sha256 = \"rk_secret\"\nscope = [\"*/*:read\"]"), "tenant t: API key \"k\": sha256 is not 64"),
            (key(&format!("sha256 = \"{KEY}\"\nscope = []")), "`api_keys[0].scope`: at least one right"),
            (key(&format!("sha256 = \"{KEY}\"\nscope = [\"*/*:fly\"]")), "scope \"*/*:fly\""),
            (key("key = \"rk_secret\""), "unknown field `key`"),
            (
                key(&format!("sha256 = \"{KEY}\"\nscope = [\"*/*:read\"]")).repeat(2),
                "`api_keys[1].hash`: another key has the same",
            ),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"short\" }]\n".into(), "under 32 bytes"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"none\" }]\n".into(), "cannot read"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a b\", secret_file = \"good\" }]\n".into(), "`signing_keys[0].kid`: not 1 to 64"),
            ("[tenants.t]\nsigning_kid = \"b\"\nsigning_keys = [{ kid = \"a\", secret_file = \"good\" }]\n".into(), "`signing_kid`: names none of its"),
            (
                "[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"good\" }, { kid = \"b\", secret_file = \"good\" }]\n".into(),
                "signing_kid must say",
            ),
            ("[tenants.t]\norigins = [\"https://app.example/\"]\n".into(), "not as browsers send it"),
            ("[tenants.t.limits]\npaths = 0\n".into(), "`limits.paths`: not a whole number from 1"),
            ("[tenants.t.limits]\nstate = \"1 GiB\"\n".into(), "`limits.state_bytes`: not a whole number"),
            ("[tenants.t.limits]\nevent_dedup = \"2d\"\n".into(), "`limits.event_dedup_ms`: not a whole number"),
            ("[tenants.t.quotas]\nclient_sessions = 0\n".into(), "`quotas.client_sessions`: not a whole number from 1"),
            ("[tenants.t.quotas]\nsessions = 1\n".into(), "`quotas.sessions`: unknown"),
            ("[tenants.t.retention]\nage = \"1m\"\n".into(), "`retention.age_ms`: not a whole number"),
            ("[tenants.t.retention]\nsize = \"1 KiB\"\n".into(), "`retention.bytes`: not a whole number"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", alg = \"none\", secret_file = \"good\" }]\n".into(), "`signing_keys[0].alg`: none of"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", alg = \"RS256\", public_key_file = \"good\" }]\n".into(), "`signing_keys[0].public_key`: neither a JWK"),
            (key(&format!("hmac_sha256 = \"{KEY}\"\nsha256 = \"{KEY}\"\nscope = [\"*/*:read\"]")), "choose one"),
            (key(&format!("sha256 = \"{KEY}\"\nscope = [\"*/*:read\"]\nfrom = [\"10.0.0.1/8\"]")), "`api_keys[0].from[0]`: the address has bits"),
        ] as [(String, &str); 26]
        {
            let error = read_text(&file).expect_err(&file);
            assert!(error.starts_with("tenants.toml") && error.contains(part), "{file}\n{error}");
            assert!(!error.contains("rk_secret"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
