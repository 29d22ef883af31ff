//! The HTTP calls of a tenant's back end (protocol.md §9) that tools need.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use riser_core::frame::Credential;
use riser_core::{Address, Grant};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::end::End;
use crate::endpoint::Endpoint;
use crate::wire;

/// A cluster's HTTP API, spoken to with an API key.
#[derive(Debug, Clone)]
pub struct Api {
    endpoint: Endpoint,
    key: Credential,
}

/// A token that was made.
#[derive(Debug, Clone, Deserialize)]
pub struct Minted {
    /// The token itself.
    #[serde(deserialize_with = "secret")]
    pub token: Credential,
    /// When it runs out, Unix milliseconds.
    pub expires_at_ms: u64,
}

fn secret<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Credential, D::Error> {
    String::deserialize(d).map(Credential::new)
}

impl Api {
    /// Speaks to this cluster with this key. Nothing is sent yet.
    pub fn new(endpoint: Endpoint, key: Credential) -> Self {
        Self { endpoint, key }
    }

    /// Makes a token for the gateway of an address. `ttl_s` is in seconds; the cluster's own default without it.
    pub async fn gateway_token(&self, address: &Address, ttl_s: Option<u64>) -> Result<Minted, End> {
        let mut body = json!({"peer": "gateway", "address": address});
        with_ttl(&mut body, ttl_s);
        self.post("/v1/tokens", &body).await
    }

    /// Makes a token for a client with these rights. `ttl_s` is in seconds; the cluster's own default without it.
    pub async fn client_token(&self, subject: &str, grants: &[Grant], ttl_s: Option<u64>) -> Result<Minted, End> {
        let mut body = json!({"peer": "client", "subject": subject, "grants": grants});
        with_ttl(&mut body, ttl_s);
        self.post("/v1/tokens", &body).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T, End> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.endpoint.authority())
            .header(AUTHORIZATION, bearer(&self.key)?)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| End::Broken(error.to_string()))?;
        let answer = wire::call(&self.endpoint, request).await?;
        if !answer.status.is_success() {
            return Err(answer.refusal());
        }
        serde_json::from_slice(&answer.body).map_err(|_| End::Broken(format!("the answer to {path} is not as agreed")))
    }
}

fn with_ttl(body: &mut serde_json::Value, ttl_s: Option<u64>) {
    if let Some(ttl_s) = ttl_s {
        body["ttl_s"] = ttl_s.into();
    }
}

/// The `Authorization` header of a credential.
pub(crate) fn bearer(credential: &Credential) -> Result<HeaderValue, End> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", credential.expose())).map_err(|_| End::Refused {
        status: 401,
        code: None,
        detail: "the credential holds characters that no credential has".into(),
        retry_after_ms: None,
    })?;
    value.set_sensitive(true);
    Ok(value)
}
