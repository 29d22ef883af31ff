//! A file that holds the tenant table: read whole, and refused whole when anything in it is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use riser_core::limits::Limits;
use riser_core::tenant::{Algorithm, ApiKey, SigningKey};
use riser_core::{Grant, Tenant, TenantId, TenantTable};
use riser_edge::auth::{self, SECRET_BYTES};
use serde::Deserialize;

use crate::cli;
use crate::edge::config::{ConfigError, read_file, read_secret, size};
use crate::edge::reload::Loaded;

/// Largest tenants file, in bytes: room for tens of thousands of tenants.
const FILE_BYTES: u64 = 64 << 20;
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenants: BTreeMap<TenantId, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    suspended: bool,
    origins: Option<Vec<String>>,
    #[serde(default = "yes")]
    renewal: bool,
    /// Needed when there are several signing keys.
    signing_kid: Option<String>,
    #[serde(default)]
    signing_keys: Vec<SigningEntry>,
    #[serde(default)]
    api_keys: Vec<KeyEntry>,
    #[serde(default)]
    limits: LimitsEntry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningEntry {
    kid: String,
    secret_file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    sha256: String,
    scope: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    subscriptions: Option<usize>,
    paths: Option<usize>,
    state: Option<String>,
    event_dedup: Option<String>,
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
        let tenant = entry.tenant(&at, folder, files)?;
        for key in &tenant.api_keys {
            if !hashes.insert(key.hash) {
                return Err(ConfigError::bad(format!("{at}: API key {:?}: another key has the same sha256", key.name)));
            }
        }
        table.tenants.insert(id, tenant);
    }
    Ok(table)
}

impl Entry {
    fn tenant(self, at: &str, folder: &Path, files: &mut Vec<PathBuf>) -> Result<Tenant, ConfigError> {
        let bad = |why: String| ConfigError::bad(format!("{at}: {why}"));
        let mut signing_keys = BTreeMap::new();
        for key in self.signing_keys {
            let SigningEntry { kid, secret_file } = key;
            let file = folder.join(secret_file);
            let secret = read_secret(&format!("{at}: signing key {kid:?}"), &file)?.into_bytes();
            files.push(file);
            if secret.len() < SECRET_BYTES {
                return Err(bad(format!("signing key {kid:?}: its secret is under {SECRET_BYTES} bytes")));
            }
            if !auth::is_kid(&kid) {
                return Err(bad(format!("signing key {kid:?}: a kid has 1 to 64 of A-Z, a-z, 0-9, ., _ and -")));
            }
            let entry = SigningKey { kid: kid.clone(), algorithm: Algorithm::Hs256, secret };
            if signing_keys.insert((kid.clone(), Algorithm::Hs256), entry).is_some() {
                return Err(bad(format!("signing key {kid:?} is there twice")));
            }
        }
        let signing_kid = match self.signing_kid {
            Some(kid) if signing_keys.keys().any(|(known, _)| *known == kid) => kid,
            Some(kid) => return Err(bad(format!("signing_kid {kid:?} is none of its signing keys"))),
            None if signing_keys.len() <= 1 => {
                signing_keys.keys().next().map(|(kid, _)| kid.clone()).unwrap_or_default()
            }
            None => return Err(bad("signing_kid must say which signing key new tokens are made with".into())),
        };
        for origin in self.origins.iter().flatten() {
            check_origin(origin).map_err(|why| bad(format!("origin {origin:?}: {why}")))?;
        }
        let api_keys = self.api_keys.into_iter().map(KeyEntry::key).collect::<Result<_, _>>().map_err(bad)?;
        Ok(Tenant {
            suspended: self.suspended,
            origins: self.origins,
            renewal: self.renewal,
            signing_kid,
            signing_keys,
            api_keys,
            limits: self.limits.limits().map_err(|why| bad(format!("limits.{why}")))?,
        })
    }
}

impl KeyEntry {
    fn key(self) -> Result<ApiKey, String> {
        let Self { name, sha256, scope } = self;
        if name.is_empty() || name.len() > riser_core::grant::SUBJECT_BYTES || name.chars().any(char::is_control) {
            return Err("an API key's name has 1 to 128 bytes without control characters".into());
        }
        // The text stays out of the error, for it may be the key itself.
        let hash = unhex(&sha256).ok_or_else(|| {
            format!("API key {name:?}: sha256 is not 64 hexadecimal digits, as `riser tenants new-key` shows them")
        })?;
        let grant = |text: &String| cli::grant(text).map_err(|why| format!("API key {name:?}: scope {text:?}: {why}"));
        let scope: Vec<Grant> = scope.iter().map(grant).collect::<Result<_, _>>()?;
        if !(1..=riser_core::grant::GRANTS).contains(&scope.len()) {
            return Err(format!("API key {name:?}: its scope must have 1 to {} rights", riser_core::grant::GRANTS));
        }
        Ok(ApiKey { name, hash, scope })
    }
}

impl LimitsEntry {
    /// The limits of every tenant, lowered where the file says so: what edges set aside is for these at most.
    fn limits(&self) -> Result<Limits, String> {
        let defaults = Limits::default();
        let number = |name: &str, given: Option<usize>, most: usize| match given {
            None => Ok(most),
            Some(number) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(format!("{name}: a whole number from 1 to {most} is needed")),
        };
        let most_bytes = defaults.state_bytes;
        let state_bytes = match &self.state {
            None => defaults.state_bytes,
            Some(text) => {
                let bytes = size(text).map_err(|why| format!("state: {why}"))?;
                let bytes = usize::try_from(bytes).ok().filter(|bytes| (1..=most_bytes).contains(bytes));
                bytes.ok_or_else(|| format!("state: not between 1 and {most_bytes} bytes"))?
            }
        };
        let event_dedup_ms = match &self.event_dedup {
            None => defaults.event_dedup_ms,
            Some(text) => match cli::duration(text).map_err(|why| format!("event_dedup: {why}"))?.as_millis() {
                ms @ 1_000..=86_400_000 => u64::try_from(ms).unwrap_or(u64::MAX),
                _ => return Err("event_dedup: not between 1s and 1d".into()),
            },
        };
        Ok(Limits {
            subscriptions: number("subscriptions", self.subscriptions, defaults.subscriptions)?,
            paths: number("paths", self.paths, defaults.paths)?,
            state_bytes,
            event_dedup_ms,
            ..defaults
        })
    }
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

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
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
             [tenants.empty]\nsuspended = true\n"
        ))
        .expect("a good file");
        let acme = &table.tenants["acme"];
        assert!(!acme.renewal && !acme.suspended && acme.signing_kid == "b" && acme.signing_keys.len() == 2);
        assert_eq!(acme.signing_keys[&("a".into(), Algorithm::Hs256)].secret, "s".repeat(43).into_bytes());
        assert_eq!(acme.api_keys[0].hash[..2], [0x01, 0x23]);
        assert_eq!(acme.api_keys[0].scope.len(), 2);
        assert!(acme.allows_origin(Some("https://app.example")) && !acme.allows_origin(Some("https://other.example")));
        let limits = Limits { subscriptions: 8, state_bytes: 4_096, event_dedup_ms: 60_000, ..Limits::default() };
        assert_eq!(acme.limits, limits);
        let empty = &table.tenants["empty"];
        assert!(empty.suspended && empty.renewal && empty.origins.is_none());
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
            (key(&format!("sha256 = \"{KEY}\"\nscope = []")), "its scope must have 1 to 64 rights"),
            (key(&format!("sha256 = \"{KEY}\"\nscope = [\"*/*:fly\"]")), "scope \"*/*:fly\""),
            (key("key = \"rk_secret\""), "unknown field `key`"),
            (
                key(&format!("sha256 = \"{KEY}\"\nscope = [\"*/*:read\"]")).repeat(2),
                "another key has the same sha256",
            ),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"short\" }]\n".into(), "under 32 bytes"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"none\" }]\n".into(), "cannot read"),
            ("[tenants.t]\nsigning_keys = [{ kid = \"a b\", secret_file = \"good\" }]\n".into(), "a kid has"),
            ("[tenants.t]\nsigning_kid = \"b\"\nsigning_keys = [{ kid = \"a\", secret_file = \"good\" }]\n".into(), "none of its"),
            (
                "[tenants.t]\nsigning_keys = [{ kid = \"a\", secret_file = \"good\" }, { kid = \"b\", secret_file = \"good\" }]\n".into(),
                "signing_kid must say",
            ),
            ("[tenants.t]\norigins = [\"https://app.example/\"]\n".into(), "not as browsers send it"),
            ("[tenants.t.limits]\npaths = 0\n".into(), "limits.paths: a whole number from 1"),
            ("[tenants.t.limits]\nstate = \"1 GiB\"\n".into(), "limits.state: not between"),
            ("[tenants.t.limits]\nevent_dedup = \"2d\"\n".into(), "limits.event_dedup: not between 1s and 1d"),
        ] as [(String, &str); 18]
        {
            let error = read_text(&file).expect_err(&file);
            assert!(error.starts_with("tenants.toml") && error.contains(part), "{file}\n{error}");
            assert!(!error.contains("rk_secret"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
