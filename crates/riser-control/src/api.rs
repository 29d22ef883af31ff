//! The admin API: one table of routes, from which requests are answered and its description is made.
//!
//! A request is read by its route before anything is done: its identities are parsed, its body is an object of at most
//! 64 KiB with no field twice, and what it names and the route does not know is refused by name.

mod fields;
mod flats;
mod gateways;
mod keys;
mod openapi;
mod quotas;
mod revocations;
pub mod routes;
mod schema;
mod signing;
mod tenants;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, IF_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use riser_core::tenant::TenantDoc;
use riser_core::{ErrorCode, TenantId};
use riser_ops::openapi::find;
use riser_ops::request::{bad, body, json, query};
use riser_ops::{Problem, Refused};
use serde_json::Value;

use crate::control::{Caller, Control};
use crate::erase::EraseError;
use fields::Fields;
use riser_tenants::{Read, StoreError};
use routes::{Op, ROUTES};

pub use openapi::openapi;

/// Largest body of a request, in bytes. Hundreds of keys' scopes fit; no document that is kept is larger than what many such
/// bodies made.
pub const BODY_BYTES: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// Rows of a page when the request does not say.
const PAGE: usize = 100;
/// Most rows of a page.
const PAGE_MOST: usize = 1_000;

/// A request that was read by its route.
struct Call {
    caller: Caller,
    /// What stands for the parameters of the path, in their order.
    path: Vec<String>,
    /// The values of the route's parameters of the query.
    query: Vec<Option<String>>,
    /// The revision that the caller knows.
    expected: Option<u64>,
    body: Fields,
}

/// What is answered when all is well.
struct Answer {
    status: StatusCode,
    body: Value,
    revision: Option<u64>,
    location: Option<String>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, revision: None, location: None }
    }

    fn created(body: Value, location: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..Self::ok(body) }
    }

    fn at(self, read: &Read) -> Self {
        Self { revision: Some(read.revision), ..self }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = json(self.status, self.body.to_string());
        let headers = response.headers_mut();
        let tag = self.revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok());
        headers.extend(tag.map(|tag| (ETAG, tag)));
        let location = self.location.and_then(|location| HeaderValue::from_str(&location).ok());
        headers.extend(location.map(|location| (LOCATION, location)));
        response
    }
}

impl Call {
    fn tenant(&self) -> Result<TenantId, Refused> {
        let text = self.path.first().map_or("", String::as_str);
        text.parse().map_err(|error| bad(format!("`tenant`: {error}")))
    }

    /// A parameter of the path behind the tenant.
    fn part(&self, at: usize) -> &str {
        self.path.get(at).map_or("", String::as_str)
    }

    fn asked(&self, at: usize) -> Option<&str> {
        self.query.get(at)?.as_deref()
    }

    /// How many rows are wanted.
    fn limit(&self, at: usize) -> Result<usize, Refused> {
        let Some(text) = self.asked(at) else { return Ok(PAGE) };
        let number = text.parse().ok().filter(|number| (1..=PAGE_MOST).contains(number));
        number.ok_or_else(|| bad(format!("`limit`: not a whole number from 1 to {PAGE_MOST}")))
    }
}

impl Control {
    /// Answers a request of somebody whose credential was good.
    pub async fn serve<B>(&self, request: Request<B>, caller: Caller) -> Result<Response<Full<Bytes>>, Refused>
    where
        B: Body<Error: std::error::Error + Send + Sync + 'static> + Send,
        B::Data: Send,
    {
        let (route, path) = find(&ROUTES, request.method(), request.uri().path())?;
        let query = query(&request, &route.query_names())?.into_iter().map(|value| value.map(str::to_owned)).collect();
        let expected = expected(request.headers())?;
        let body = match route.body {
            Some(_) => Fields::read(&body(request, BODY_BYTES, BODY_WAIT).await?)?,
            None => Fields::default(),
        };
        let call = Call { caller, path, query, expected, body };
        Ok(self.act(route.op, call).await?.into_response())
    }

    async fn act(&self, op: Op, call: Call) -> Result<Answer, Refused> {
        match op {
            Op::OpenApi => Ok(Answer::ok(openapi())),
            Op::ListTenants => tenants::list(self, &call).await,
            Op::CreateTenant => tenants::create(self, call).await,
            Op::ShowTenant => tenants::show(self, &call).await,
            Op::ChangeTenant => tenants::change(self, call).await,
            Op::DeleteTenant => tenants::delete(self, &call).await,
            Op::ListKeys => keys::list(self, &call).await,
            Op::CreateKey => keys::create(self, call).await,
            Op::RotateKey => keys::rotate(self, call).await,
            Op::RevokeKey => keys::revoke(self, &call).await,
            Op::ListSigningKeys => signing::list(self, &call).await,
            Op::CreateSigningKey => signing::create(self, call).await,
            Op::RemoveSigningKey => signing::remove(self, &call).await,
            Op::ShowQuotas => quotas::show(self, &call).await,
            Op::SetQuotas => quotas::set(self, call).await,
            Op::ListRevocations => revocations::list(self, &call).await,
            Op::Revoke => revocations::add(self, call).await,
            Op::ListGateways => gateways::list(self, &call).await,
            Op::KickGateway => gateways::kick(self, &call).await,
            Op::RegisterFlats => flats::register(self, call).await,
            Op::ListFlats => flats::list(self, &call).await,
            Op::ShowUsage => quotas::usage(self, &call).await,
        }
    }
}

/// The revision in `If-Match`: what an answer gave as `ETag`. `*` stands for any.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if value == "*" && values.next().is_none() {
        return Ok(None);
    }
    let tag = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    match (tag, values.next()) {
        (Some(revision), None) => Ok(Some(revision)),
        _ => Err(bad("`If-Match`: not one ETag that an answer gave")),
    }
}

/// A change that may be refused, or that the store did not take.
struct NotDone(Refused);

impl From<StoreError> for NotDone {
    fn from(error: StoreError) -> Self {
        Self(refused(error))
    }
}

impl From<Refused> for NotDone {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl From<NotDone> for Refused {
    fn from(NotDone(refused): NotDone) -> Self {
        refused
    }
}

/// What a caller is told when a tenant cannot be read or changed.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(error: StoreError) -> Refused {
    let text = error.to_string();
    let (reason, problem) = match error {
        StoreError::Unavailable | StoreError::Full => ("store_unavailable", Problem::unavailable(text, 2)),
        StoreError::Unknown => ("not_found", Problem::not_found(text)),
        StoreError::Exists | StoreError::Busy => ("conflict", conflict(text)),
        StoreError::Changed => ("changed", Problem::new(StatusCode::PRECONDITION_FAILED, ErrorCode::Conflict, text)),
        StoreError::TooLarge | StoreError::TooMany => {
            ("too_many", Problem::new(StatusCode::CONFLICT, ErrorCode::TooMany, text))
        }
        StoreError::Unreadable(_) => {
            tracing::error!(error = text, "a tenant's document cannot be read");
            ("unreadable", Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, text))
        }
    };
    Refused::new(reason, problem)
}

impl From<EraseError> for Refused {
    fn from(error: EraseError) -> Self {
        let text = format!("the tenant is deleted, but {error}: delete it once more");
        Self::new("not_erased", Problem::unavailable(text, 5))
    }
}

impl Control {
    /// Changes a tenant's document as a request wants it.
    async fn change<T>(
        &self,
        id: &TenantId,
        expected: Option<u64>,
        change: impl Fn(&mut TenantDoc) -> Result<T, Refused> + Send + Sync,
    ) -> Result<(T, Read), Refused> {
        let change = |doc: &mut TenantDoc| change(doc).map_err(NotDone);
        Ok(self.store.change(id, expected, change).await?)
    }
}

/// 409: what is there does not go with what was asked for.
fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, ErrorCode::Conflict, detail)
}

fn unavailable(what: &str) -> Refused {
    Refused::new("unavailable", Problem::unavailable(what, 2))
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Refused> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            tracing::error!(%error, "the system gives no random bytes");
            Err(Refused::new("randomness", Problem::internal()))
        }
    }
}

#[cfg(test)]
mod tests;
