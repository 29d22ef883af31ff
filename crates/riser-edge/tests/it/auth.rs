//! Credentials as somebody who attacks them sees them: what is believed, what is not, and what a refusal tells.

mod forged;
mod mint;
mod public;
mod times;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use riser_core::frame::Credential;
use riser_core::tenant::{Algorithm, ApiKey, KeyHash, SigningKey, Status};
use riser_core::{Grant, Identity, Tenant, TenantId, TenantTable};
use riser_edge::auth::{AuthError, verify};
use riser_edge::problem::Problem;
use sha2::Sha256;

/// The cluster's time in these tests, in seconds and in milliseconds.
const NOW_S: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW_S * 1000;

const ACME_SECRET: &[u8] = b"acme's secret, which has 32 bytes";
const OTHER_SECRET: &[u8] = b"the other's secret, also 32 bytes";
const API_KEY: &str = "rk_0000000000000000000000000000000000000000000";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#;

fn id(text: &str) -> TenantId {
    text.parse().expect("a tenant")
}

fn key(kid: &str, secret: &[u8]) -> ((String, Algorithm), SigningKey) {
    SigningKey::hs256(kid, secret).entry()
}

fn tenant(secret: &[u8]) -> Tenant {
    Tenant { signing_kid: "k1".into(), signing_keys: BTreeMap::from([key("k1", secret)]), ..Tenant::default() }
}

/// Two tenants whose keys have the same name.
fn table() -> TenantTable {
    let mut acme = tenant(ACME_SECRET);
    let scope = vec![Grant::everything()];
    acme.api_keys.insert(KeyHash::of(API_KEY, None), ApiKey::new("backend", scope));
    [(id("acme"), acme), (id("other"), tenant(OTHER_SECRET))].into_iter().collect()
}

/// Signs what no tenant would.
fn forge(secret: &[u8], header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A client's claims, good for 15 minutes, each member as JSON text, with some replaced, added or (empty) left out.
fn claims(changes: &[(&str, &str)]) -> String {
    let mut members = vec![
        ("iss", r#""acme""#.to_owned()),
        ("aud", r#""riser""#.to_owned()),
        ("sub", r#""alice""#.to_owned()),
        ("peer", r#""client""#.to_owned()),
        ("grants", r#"[{"to":"b12/*","may":["read"]}]"#.to_owned()),
        ("iat", NOW_S.to_string()),
        ("exp", (NOW_S + 900).to_string()),
        ("jti", r#""j1""#.to_owned()),
    ];
    for &(name, value) in changes {
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some(member) => value.clone_into(&mut member.1),
            None => members.push((name, value.to_owned())),
        }
    }
    let kept = members.iter().filter(|(_, value)| !value.is_empty());
    let texts: Vec<String> = kept.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", texts.join(","))
}

/// A token of acme's with some claims changed.
fn token(changes: &[(&str, &str)]) -> String {
    forge(ACME_SECRET, HEADER, &claims(changes))
}

fn check(token: &str) -> Result<Identity, AuthError> {
    check_at(token, NOW_MS)
}

/// Verifies, and looks at every refusal for anything that came out of the token.
fn check_at(token: &str, now_ms: u64) -> Result<Identity, AuthError> {
    let result = verify(&table(), &Credential::new(token), now_ms);
    if let Err(error) = result {
        assert_tells_nothing(error, token);
    }
    result
}

fn assert_tells_nothing(error: AuthError, token: &str) {
    let problem = Problem::from(error);
    let texts = format!("{error} {error:?} {} {problem:?}", error.reason());
    let mut secrets = vec![token.as_bytes().to_vec()];
    secrets.extend(token.split('.').filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok()));
    for window in texts.as_bytes().windows(8) {
        assert!(
            !secrets.iter().any(|secret| secret.windows(8).any(|part| part == window)),
            "{error:?} repeats the token"
        );
    }
}
