//! Calls of the HTTP API from a browser's pages (CORS, as the Fetch standard has it).
//!
//! Whose list of origins counts is known with the credential, which a preflight does not have: it is answered by what any
//! tenant allows. Cookies are never asked for, so that a page can do nothing with a call but what it could do with the
//! credential that it must have itself.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::http::Refused;
use crate::problem::Problem;
use crate::shared::Shared;

/// Why a request was refused that came from another page.
pub(crate) const FOREIGN: &str = "origin";
/// The origin of pages that have none.
const NULL: &str = "null";
/// For how long a browser may remember what a preflight said, in seconds. Lists of origins change seldom.
const REMEMBERED_S: &str = "600";
/// Headers of answers that a page may read beside those that it always may.
const EXPOSED: &str = "ratelimit, ratelimit-policy, retry-after";
/// Headers that a page may send.
const SENT: &str = "authorization, content-type";

/// The browser's page. What no tenant allows is refused at once; whose list counts is known with the credential.
pub(crate) fn origin(shared: &Shared, headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let mut values = headers.get_all(ORIGIN).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // What is not ASCII is on nobody's list, and with replacement characters it stays so.
    let origin = String::from_utf8_lossy(value.as_bytes()).into_owned();
    if values.next().is_some() || !shared.table().allows_origin(&origin) {
        return Err(Refused::new(FOREIGN, Problem::forbidden("this origin is not on any tenant's list")));
    }
    Ok(Some(origin))
}

/// Refuses a call from a page that is not on the tenant's list. Any page can have the origin `null`, so that a tenant without
/// a list, whose calls come from anywhere, has not let it in.
pub(crate) fn not_foreign_call(
    shared: &Shared,
    tenant: &riser_core::TenantId,
    origin: Option<&str>,
) -> Result<(), Refused> {
    if origin == Some(NULL) && shared.with_tenant(tenant, |tenant| tenant.lists_origin(NULL)) != Some(true) {
        return Err(Refused::new(FOREIGN, Problem::forbidden("a page without an origin is not on the tenant's list")));
    }
    not_foreign(shared, tenant, origin)
}

/// Refuses what comes from a page that is not on the tenant's list.
pub(crate) fn not_foreign(shared: &Shared, tenant: &riser_core::TenantId, origin: Option<&str>) -> Result<(), Refused> {
    if shared.with_tenant(tenant, |tenant| tenant.allows_origin(origin)) == Some(true) {
        return Ok(());
    }
    Err(Refused::new(FOREIGN, Problem::forbidden("this origin is not on the tenant's list")))
}

/// Whether a browser asks in advance what it may send.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that, at a path where these methods are served.
pub(crate) fn preflight<B: Default>(methods: &[Method]) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED_S));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets the page read the answer. Refusals are answers too, but those because of the origin.
pub(crate) fn share(headers: &mut HeaderMap, origin: &str) {
    let Ok(origin) = HeaderValue::from_str(origin) else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(VARY, HeaderValue::from_static("origin"));
}
