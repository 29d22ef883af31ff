//! The public listener: accepts connections, upgrades those that become WebSockets, and answers the HTTP API.

pub(crate) mod busy;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use riser_core::frame::Credential;
use riser_core::{ErrorCode, Identity};
use riser_ops::bounded::Bounded;
use riser_ops::openapi;
pub(crate) use riser_ops::request::Refused;
use riser_ops::request::{check_form, json, query};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::admission::{Crowded, Missed, Place};
use crate::api::routes::{self, Op, ROUTES};
use crate::auth::Proof;
use crate::edge::attach;
use crate::problem::Problem;
use crate::session::Upgrade;
use crate::shared::Shared;
use crate::tls::{self, ServerTls, TlsStream};
use crate::ws::handshake::{self, Subprotocols};
use crate::ws::tune;
use crate::{api, cors, forwarded};

/// The subprotocols that this edge speaks.
const SUBPROTOCOLS: &[&str] = &["riser.v1"];
/// Largest request head, in bytes: enough that a credential which is far too long is refused as a bad one.
const HEAD_BYTES: usize = 64 * 1024;
/// Most header lines of a request.
const HEADERS: usize = 64;
/// How long to wait when no connection can be accepted, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two lines of the log about connections that cannot be accepted. The counter counts each time.
const ACCEPT_LOG: Duration = Duration::from_secs(60);
/// Over how long those are spread that are sent away because of others of their tenant or address.
const CROWDED: Duration = Duration::from_secs(9);

/// What `GET /openapi.json` answers.
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| routes::openapi().to_string().into());

/// A connection that asks: where it comes from, and its place at the door.
pub(crate) struct Visitor {
    peer: IpAddr,
    place: Mutex<Option<Place>>,
}

impl Visitor {
    /// Gives the place back: whoever goes on has another bound.
    pub(crate) fn leave_door(&self) {
        drop(self.place.lock().take());
    }

    /// Counts the place as one of whoever is behind it, as far as that is known.
    fn counts(&self, count: impl FnOnce(&mut Place) -> Result<(), Crowded>) -> Result<(), Crowded> {
        self.place.lock().as_mut().map_or(Ok(()), count)
    }
}

/// Accepts connections as long as the edge lives, over TLS when there is a certificate.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<watch::Receiver<ServerTls>>) {
    let mut logged: Option<Instant> = None;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                shared.metrics.refused("accept");
                if is_of_one_connection(&error) {
                    continue;
                }
                if logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG) {
                    logged = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept connections; is the limit of open files too low?");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match enter(&shared, peer) {
            Ok(place) => Mutex::new(Some(place)),
            Err(crowded) => {
                shared.metrics.refused(crowded.as_str());
                // Over TLS an answer would cost the handshake that there is no room for.
                if tls.is_none() {
                    shared.answers.refuse(&stream, shared.any());
                }
                continue;
            }
        };
        let visitor = Visitor { peer, place };
        match &tls {
            None => shared.tasks.spawn(serve(shared.clone(), stream, visitor, |stream| stream)),
            Some(tls) => {
                let tls = tls.borrow().clone();
                shared.tasks.spawn(serve_tls(shared.clone(), tls, stream, visitor));
            }
        }
    }
}

/// Whether a connection broke before it was accepted, which says nothing of the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A place for a new connection. Who is behind a proxy that is believed shows with the request.
fn enter(shared: &Shared, peer: IpAddr) -> Result<Place, Crowded> {
    let mut place = shared.door.enter()?;
    if !forwarded::is_trusted(peer, &shared.config.trusted_proxies) {
        place.of_address(peer)?;
    }
    Ok(place)
}

/// Does the handshake of TLS, and serves what is inside. A connection has the time for it that its first request has.
async fn serve_tls(shared: Arc<Shared>, tls: ServerTls, stream: TcpStream, visitor: Visitor) {
    if tune(&stream, shared.config.send_buffer).is_err() {
        return;
    }
    match timeout(shared.config.hello, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(shared, stream, visitor, |stream| stream.get_ref().0).await,
        Ok(Err(_)) => shared.metrics.refused("tls"),
        Err(_) => shared.metrics.refused("tls_timeout"),
    }
}

/// Serves one connection over a socket until it is closed or becomes a WebSocket.
async fn serve<S>(shared: Arc<Shared>, stream: S, visitor: Visitor, socket: impl Fn(&S) -> &TcpStream + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if tune(socket(&stream), shared.config.send_buffer).is_err() {
        return;
    }
    let asked = AtomicBool::new(false);
    let hello = shared.config.hello;
    let stream = Bounded::new(stream, shared.config.exchange);
    let service = service_fn(|request: Request<Incoming>| {
        let shared = shared.clone();
        let visitor = &visitor;
        asked.store(true, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(answer(&shared, request, visitor).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(hello).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        // Who has asked something and then asks nothing more is not refused.
        let reason = if error.is_timeout() && !asked.load(Ordering::Relaxed) {
            "header_timeout"
        } else if error.is_parse() {
            "malformed_http"
        } else {
            return;
        };
        shared.metrics.refused(reason);
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, visitor: &Visitor) -> Response<Full<Bytes>> {
    let origin = cors::origin(shared, request.headers()).ok().flatten();
    let answered = route(shared, request, visitor).await;
    let foreign = matches!(&answered, Err(refused) if refused.reason() == cors::FOREIGN);
    let mut response = answered.unwrap_or_else(|refused| {
        shared.metrics.refused(refused.reason());
        refused.into_response()
    });
    if let Some(origin) = origin.filter(|_| !foreign) {
        cors::share(response.headers_mut(), &origin);
    }
    response.headers_mut().entry("x-content-type-options").or_insert(HeaderValue::from_static("nosniff"));
    response
}

async fn route(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Result<Response<Full<Bytes>>, Refused> {
    check_form(&request)?;
    let from = client(shared, visitor, request.headers())?;
    if shared.lease.lock().silent_for().is_none() {
        // Without the registry's clock every credential would look as if it were not valid yet.
        return Err(not_ready(shared, "the edge is starting"));
    }
    let path = request.uri().path().to_owned();
    if path == "/v1/ws" {
        return upgrade(shared, request, visitor, from);
    }
    let origin = cors::origin(shared, request.headers())?;
    if cors::is_preflight(&request) {
        return Ok(cors::preflight(&openapi::methods(&ROUTES, &path)?));
    }
    let (route, values) = openapi::find(&ROUTES, request.method(), &path)?;
    match route.op {
        Op::OpenApi => {
            query(&request, &[])?;
            return Ok(json(StatusCode::OK, DESCRIPTION.clone()));
        }
        Op::Enrol => return api::enrol::post(shared, request, from).await,
        _ => {}
    }
    let (identity, _) = authorize(shared, request.headers(), from)?
        .ok_or_else(|| Refused::new("no_credential", Problem::unauthorized()))?;
    cors::not_foreign_call(shared, &identity.tenant, origin.as_deref())?;
    visitor.counts(|place| place.of_tenant(&identity.tenant)).map_err(|why| crowded(shared, why))?;
    let calls = shared.api_call(&identity.tenant);
    if let Some(calls) = calls.filter(|calls| calls.wait.is_some()) {
        let problem = Problem::rate_limited(calls.again_s());
        return Err(Refused::with("quota", problem, calls.headers()));
    }
    let usage = shared.usage(&identity.tenant);
    sleep(shared.throttled(&usage)).await;
    let call = serve_call(shared, &identity, request, (visitor, from), route.op, &values);
    let mut response = usage.turns_of(call).await?;
    response.headers_mut().extend(calls.map(|calls| calls.headers()).unwrap_or_default());
    Ok(response)
}

async fn serve_call(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: Request<Incoming>,
    (visitor, from): (&Visitor, IpAddr),
    op: Op,
    values: &[String],
) -> Result<Response<Full<Bytes>>, Refused> {
    match (op, values) {
        (Op::Tokens, _) => api::tokens(shared, identity, request).await,
        (Op::PostCommand, _) => api::commands::post(shared, identity, request, visitor, from).await,
        (Op::ListCommands, _) => api::commands::list(shared, identity, &request).await,
        (Op::ShowCommand, [cmd]) => api::commands::get(shared, identity, &request, cmd).await,
        (Op::ShowState, [building, gateway]) => api::state(shared, identity, &request, building, gateway).await,
        (Op::ListPresence, _) => api::presence(shared, identity, &request).await,
        (Op::PostEvent, [building, gateway]) => api::events::post(shared, identity, request, building, gateway).await,
        (Op::ListEvents, _) => api::events::list(shared, identity, &request).await,
        (Op::Kick, [building, gateway]) => {
            api::gateways::kick(shared, identity, &request, from, building, gateway).await
        }
        (Op::Erase, [building, gateway]) => {
            api::gateways::erase(shared, identity, &request, from, building, gateway).await
        }
        // The others are served without a credential, and a route has the parameters that its path names.
        _ => Err(Refused::new("internal", Problem::internal())),
    }
}

/// Whose address counts for this request, and that it has no more places than it may.
fn client(shared: &Shared, visitor: &Visitor, headers: &HeaderMap) -> Result<IpAddr, Refused> {
    let trusted = &shared.config.trusted_proxies;
    let (from, ignored) = forwarded::client(visitor.peer, headers, trusted);
    if let Some(ignored) = ignored {
        shared.metrics.forwarded_ignored(ignored);
    }
    // A proxy may pass the requests of many on over one connection. Those of whom it cannot be told who they are, who may
    // have seen to that, share what its own address may have.
    if forwarded::is_trusted(visitor.peer, trusted) {
        visitor.counts(|place| place.of_address(from)).map_err(|why| crowded(shared, why))?;
    }
    Ok(from)
}

/// Sends away because of others of the same tenant or address.
fn crowded(shared: &Shared, why: Crowded) -> Refused {
    busy(shared, why.as_str(), "too many connections of this tenant or address are being opened")
}

/// Sends away because the tenant has as many sessions as it may.
fn over_quota(shared: &Shared) -> Refused {
    let after = u32::try_from(shared.after_quota().as_secs()).unwrap_or(u32::MAX);
    let problem = Problem::rate_limited(after);
    Refused::new("quota", Problem { detail: "the tenant has as many sessions as its quota allows".into(), ..problem })
}

fn busy(shared: &Shared, reason: &'static str, detail: &str) -> Refused {
    let after = 1 + shared.jitter(CROWDED).as_secs();
    Refused::new(reason, Problem::unavailable(detail, u32::try_from(after).unwrap_or(1)))
}

/// Sends away for a moment: another edge is likely ready, and a gateway that moves has only so long.
fn not_ready(shared: &Shared, detail: &str) -> Refused {
    let after = if shared.any().is_multiple_of(2) { 1 } else { 2 };
    Refused::new("not_ready", Problem::unavailable(detail, after))
}

/// Who the `Authorization` header proves; none when there is no such header.
fn authorize(shared: &Shared, headers: &HeaderMap, from: IpAddr) -> Result<Option<(Identity, Proof)>, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::new("malformed_credential", Problem::unauthorized()));
    }
    let verified = shared.verify(&Credential::new(token.trim()), Some(from));
    verified.map(Some).map_err(|error| Refused::new(error.reason(), error.into()))
}

fn upgrade(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    visitor: &Visitor,
    from: IpAddr,
) -> Result<Response<Full<Bytes>>, Refused> {
    let (parts, body) = request.into_parts();
    if parts.uri.query().is_some() {
        return Err(Refused::new("query", Problem::bad_frame("/v1/ws takes no query")));
    }
    let accepted = handshake::accept(&parts, Subprotocols::Known(SUBPROTOCOLS)).map_err(|refusal| {
        let problem = Problem::new(refusal.status, ErrorCode::BadFrame, refusal.detail);
        Refused::with(refusal.reason.as_str(), problem, refusal.headers)
    })?;
    let origin = cors::origin(shared, &parts.headers)?;
    let (identity, proof) = authorize(shared, &parts.headers, from)?.unzip();
    if let Some(identity) = &identity {
        cors::not_foreign(shared, &identity.tenant, origin.as_deref())?;
    }
    if shared.is_draining() {
        return Err(not_ready(shared, "the edge is going away"));
    }
    if let Some(identity) = &identity {
        visitor.counts(|place| place.of_tenant(&identity.tenant)).map_err(|why| crowded(shared, why))?;
        if identity.address().is_some() && !shared.turnstile.has_room(&identity.tenant) {
            return Err(busy(shared, Missed::Full.as_str(), "too many gateways of this tenant are being let in"));
        }
    }
    let seat = match &identity {
        Some(identity) => Some(shared.seat(identity).ok_or_else(|| over_quota(shared))?),
        None => None,
    };
    let upgrade = Upgrade { identity, proof, origin, from: Some(from), place: visitor.place.lock().take(), seat };
    let upgraded = hyper::upgrade::on(Request::from_parts(parts, body));
    let task = become_session(shared.clone(), upgraded, upgrade);
    shared.tasks.spawn(task);
    Ok(accepted.response())
}

async fn become_session(shared: Arc<Shared>, upgraded: hyper::upgrade::OnUpgrade, upgrade: Upgrade) {
    let Ok(Ok(upgraded)) = timeout(shared.config.hello, upgraded).await else { return };
    // Every connection of this listener is one or the other.
    match upgraded.downcast::<TokioIo<Bounded<TcpStream>>>() {
        Ok(parts) => {
            let (read, write) = parts.io.into_inner().into_inner().into_split();
            attach(&shared, read, write, &parts.read_buf, upgrade);
        }
        Err(upgraded) => {
            let Ok(parts) = upgraded.downcast::<TokioIo<Bounded<TlsStream>>>() else { return };
            let (read, write) = tls::split(parts.io.into_inner().into_inner());
            attach(&shared, read, write, &parts.read_buf, upgrade);
        }
    }
}
