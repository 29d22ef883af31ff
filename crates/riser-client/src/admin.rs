//! The admin API of a cluster's control plane, for tools.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, IF_MATCH};
use http::{Method, Request};
use http_body_util::Full;
use riser_core::frame::Credential;
use serde_json::Value;

use crate::api::bearer;
use crate::end::End;
use crate::endpoint::Endpoint;
use crate::wire;

/// How long an answer may take: deleting a tenant waits for its sessions to end, and erases much.
const PATIENCE: Duration = Duration::from_secs(120);

/// A control plane, spoken to with an operator's credential.
#[derive(Debug, Clone)]
pub struct Admin {
    endpoint: Endpoint,
    credential: Credential,
}

/// What it answered.
#[derive(Debug, Clone)]
pub struct Said {
    /// The body.
    pub body: Value,
    /// The revision of the tenant, to be expected by a later call.
    pub tag: Option<String>,
}

impl Admin {
    /// Speaks to this control plane with this credential. Nothing is sent yet.
    pub fn new(endpoint: Endpoint, credential: Credential) -> Self {
        Self { endpoint, credential }
    }

    /// Makes one call of a path below `/admin/v1`. With a tag it changes something only if that is still what is there.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>, tag: Option<&str>) -> Result<Said, End> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/admin/v1{path}"))
            .header(HOST, self.endpoint.authority())
            .header(AUTHORIZATION, bearer(&self.credential)?);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(tag) = tag {
            request = request.header(IF_MATCH, tag);
        }
        let body = Full::new(Bytes::from(body.map(ToString::to_string).unwrap_or_default()));
        let request = request.body(body).map_err(|error| End::Broken(error.to_string()))?;
        let answer = wire::call(&self.endpoint, request, PATIENCE).await?;
        if !answer.status.is_success() {
            return Err(answer.refusal());
        }
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let broken = |_| End::Broken("the answer of the control plane is not JSON".into());
        Ok(Said { body: serde_json::from_slice(&answer.body).map_err(broken)?, tag })
    }
}
