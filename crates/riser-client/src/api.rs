//! The HTTP calls of a tenant's back end (protocol.md §9) that tools need.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use riser_core::frame::Credential;
use riser_core::{Address, Grant, Path, Pattern, TenantId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::end::End;
use crate::endpoint::Endpoint;
use crate::frame::{Happened, Step};
use crate::notice::Notice;
use crate::order::{Order, PATIENCE};
use crate::wire::{self, ANSWER_WAIT};

/// How long erasing may take: it waits until the session has ended, and goes through all events of the tenant.
const ERASING_WAIT: Duration = Duration::from_secs(120);
/// The longest deadline that a server takes.
const LONGEST_DEADLINE: Duration = Duration::from_secs(86_400);

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

/// What a gateway was enrolled as.
#[derive(Debug, Clone, Deserialize)]
pub struct Enrolled {
    /// Whose flat it is.
    pub tenant: TenantId,
    /// The gateway's address.
    pub address: Address,
    /// Its credential.
    #[serde(deserialize_with = "secret")]
    pub token: Credential,
    /// When that runs out, Unix milliseconds.
    pub expires_at_ms: u64,
}

/// What was erased of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Erased {
    /// Values of its state.
    pub values: u64,
    /// Commands to it.
    pub commands: u64,
    /// Its events.
    pub events: u64,
    /// Whether its tokens were revoked: not where tenants come from a file.
    pub revoked: bool,
}

/// A command and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recorded {
    /// Its name.
    pub cmd: String,
    /// The gateway's address.
    pub of: Address,
    /// What became of it so far, in order.
    pub outcomes: Vec<Step>,
}

impl Recorded {
    /// The outcome that decided it, when there is one.
    pub fn decided(&self) -> Option<&Step> {
        self.outcomes.iter().find(|step| step.is_final)
    }
}

/// A page of commands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CommandPage {
    /// The commands, newest first.
    pub commands: Vec<ListedCommand>,
    /// Where the next page begins; none when this is the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// A command in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedCommand {
    /// Its name.
    pub cmd: String,
    /// The gateway's address.
    pub of: Address,
    /// With which device or property.
    pub path: Path,
    /// What was to be done.
    pub action: String,
    /// Who issued it.
    pub by: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Until when its outcome is waited for, Unix milliseconds.
    pub deadline_at_ms: u64,
    /// What became of it so far, in order.
    pub outcomes: Vec<Step>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Happened>,
    /// The position after the page, from which the next one follows.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Whether the cursor that was given is not known or no longer kept.
    #[serde(default)]
    pub gap: bool,
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

    /// Asks a gateway to do something, and gives the command's name once it is recorded. The same key again is the same
    /// command.
    pub async fn command(&self, order: &Order) -> Result<String, End> {
        #[derive(Deserialize)]
        struct Named {
            cmd: String,
        }
        let body = order.json(None, Order::deadline_ms(order.deadline), None);
        let named: Named = self.call(Method::POST, "/v1/commands", Some(body), ANSWER_WAIT).await?;
        Ok(named.cmd)
    }

    /// As [`Api::command`], and waits for the final outcome.
    pub async fn command_to_end(&self, order: &Order) -> Result<Recorded, End> {
        let body = order.json(None, Order::deadline_ms(order.deadline), Some("final"));
        let wait = order.deadline.min(LONGEST_DEADLINE) + PATIENCE;
        self.call(Method::POST, "/v1/commands", Some(body), wait).await
    }

    /// What became of a command so far, until an hour after its deadline.
    pub async fn recorded(&self, cmd: &str) -> Result<Recorded, End> {
        self.call(Method::GET, &format!("/v1/commands/{}", escaped(cmd)), None, ANSWER_WAIT).await
    }

    /// The latest commands of a gateway, newest first; a page that went before says where the next one begins.
    pub async fn commands(&self, to: &Address, after: Option<&str>, limit: u16) -> Result<CommandPage, End> {
        let path = query("/v1/commands", &to.to_string(), after, limit);
        self.call(Method::GET, &path, None, ANSWER_WAIT).await
    }

    /// Tells an event at an address, and gives its cursor once it is stored.
    pub async fn event(&self, to: &Address, notice: &Notice) -> Result<String, End> {
        #[derive(Deserialize)]
        struct Stored {
            cursor: String,
        }
        let path = format!("/v1/events/{to}");
        let stored: Stored = self.call(Method::POST, &path, Some(notice.body()), ANSWER_WAIT).await?;
        Ok(stored.cursor)
    }

    /// Stored events of all that a pattern names, after a cursor or from the oldest.
    pub async fn events(&self, to: &Pattern, cursor: Option<&str>, limit: u16) -> Result<EventPage, End> {
        let path = query("/v1/events", &to.to_string(), cursor, limit);
        self.call(Method::GET, &path, None, ANSWER_WAIT).await
    }

    /// Erases all that is known of a flat's gateway and revokes its tokens, because somebody moves out. The key must have the
    /// right to manage the address.
    pub async fn erase_gateway(&self, address: &Address) -> Result<Erased, End> {
        self.call(Method::DELETE, &format!("/v1/gateways/{address}"), None, ERASING_WAIT).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T, End> {
        self.call(Method::POST, path, Some(body.to_string()), ANSWER_WAIT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        wait: Duration,
    ) -> Result<T, End> {
        call(&self.endpoint, Some(&self.key), method, path, body, wait).await
    }
}

/// Uses up a flat's one-time code, and gives what its gateway connects with from then on. A code works once: keep the token
/// before anything else. Asking again after an answer that was lost needs a new code.
pub async fn enrol(endpoint: &Endpoint, code: &str) -> Result<Enrolled, End> {
    let body = json!({ "code": code }).to_string();
    call(endpoint, None, Method::POST, "/v1/enrol", Some(body), ANSWER_WAIT).await
}

async fn call<T: DeserializeOwned>(
    endpoint: &Endpoint,
    key: Option<&Credential>,
    method: Method,
    path: &str,
    body: Option<String>,
    wait: Duration,
) -> Result<T, End> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, endpoint.authority());
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, bearer(key)?);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(body.unwrap_or_default()));
    let request = request.body(body).map_err(|error| End::Broken(error.to_string()))?;
    let answer = wire::call(endpoint, request, wait).await?;
    if !answer.status.is_success() {
        return Err(answer.refusal());
    }
    let path = path.split('?').next().unwrap_or(path);
    serde_json::from_slice(&answer.body).map_err(|_| End::Broken(format!("the answer to {path} is not as agreed")))
}

fn query(path: &str, to: &str, cursor: Option<&str>, limit: u16) -> String {
    let cursor = cursor.map(|cursor| format!("&cursor={}", escaped(cursor))).unwrap_or_default();
    format!("{path}?to={}&limit={limit}{cursor}", escaped(to))
}

/// Text as it may stand in a path or a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' | b'/' => {
                escaped.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_query_cannot_leave_it() {
        assert_eq!(
            query("/v1/events", "b12/*", Some("a&b=c#%é"), 7),
            "/v1/events?to=b12/*&limit=7&cursor=a%26b%3Dc%23%25%C3%A9"
        );
        assert_eq!(query("/v1/events", "*/*", None, 1_000), "/v1/events?to=*/*&limit=1000");
    }
}
