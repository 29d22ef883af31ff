//! The admin API's listener.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use riser_ops::bounded::Bounded;
use riser_ops::request::check_form;
use riser_ops::{Problem, Refused};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::control::{Caller, Control};
use crate::credential::Credentials;

/// Connections at a time. Those who administer are few, and further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long a connection may wait for its next request.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long writing an answer may take.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// Largest request head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Most header lines of a request.
const HEADERS: usize = 64;
/// How long to wait after a failed accept, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin API on a port.
pub struct Server {
    control: Control,
    /// May be replaced while it serves, as when their file has changed.
    credentials: Arc<RwLock<Credentials>>,
}

impl Server {
    /// Serves this control plane to who has one of these credentials.
    pub fn new(control: Control, credentials: Credentials) -> Self {
        Self { control, credentials: Arc::new(RwLock::new(credentials)) }
    }

    /// What who calls is compared with.
    pub fn credentials(&self) -> Arc<RwLock<Credentials>> {
        self.credentials.clone()
    }

    /// Serves until `shutdown` is ready. Requests that are being answered then are cut.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, from)) => drop(connections.spawn(connection(server.clone(), stream, from))),
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept on the port of the admin API");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, from: IpAddr) -> Response<Full<Bytes>> {
        let answered = async {
            check_form(&request)?;
            let who = self.who(&request)?;
            self.control.serve(request, Caller { who, from }).await
        };
        let mut response = answered.await.unwrap_or_else(|refused| {
            tracing::debug!(reason = refused.reason(), %from, "refused");
            refused.into_response()
        });
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        response
    }

    fn who(&self, request: &Request<Incoming>) -> Result<String, Refused> {
        let refused = || Refused::new("credential", Problem::unauthorized());
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(refused()) };
        let (scheme, secret) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        self.credentials.read().whose(secret.trim()).map(str::to_owned).ok_or_else(refused)
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, from: SocketAddr) {
    let from = from.ip().to_canonical();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, from).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    // Whoever hangs up or dawdles is no event.
    let _ = builder.serve_connection(TokioIo::new(Bounded::new(stream, WRITE_WAIT)), service).await;
}
