//! The admin port: `/healthz`, `/readyz`, `/metrics`, and what a binary adds. It is another listener than the public
//! one, for supervisors and scrapers on a trusted network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time. Supervisors and scrapers are few, and further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may last: one request and its answer.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);
/// How long to wait after a failed accept, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer of the admin port.
pub type Answer = Response<Full<Bytes>>;
type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handler = Arc<dyn Fn() -> Work + Send + Sync>;

/// What an admin port answers.
#[derive(Clone, Default)]
pub struct Admin {
    routes: BTreeMap<String, BTreeMap<&'static str, Handler>>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

impl Admin {
    /// `/healthz`: the process is alive; `/readyz`: it serves, with what else there is to say in lines of its own, or 503
    /// with what is missing; `/metrics`: all that the registry holds, as Prometheus reads it.
    pub fn new(ready: impl Fn() -> Result<String, String> + Send + Sync + 'static, metrics: Registry) -> Self {
        let ready = move || match ready() {
            Ok(notes) => text(StatusCode::OK, format!("ok\n{notes}")),
            Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
        };
        Self::default()
            .get("/healthz", || std::future::ready(text(StatusCode::OK, "ok\n")))
            .get("/readyz", move || std::future::ready(ready()))
            .get("/metrics", move || std::future::ready(scrape(&metrics)))
    }

    /// Adds a page to be read. What a request holds beside its method and path is not looked at.
    #[must_use]
    pub fn get<F: Future<Output = Answer> + Send + 'static>(
        self,
        path: impl Into<String>,
        handler: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.route("GET", path.into(), Arc::new(move || Box::pin(handler())))
    }

    /// Adds a page that does something.
    #[must_use]
    pub fn post<F: Future<Output = Answer> + Send + 'static>(
        self,
        path: impl Into<String>,
        handler: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.route("POST", path.into(), Arc::new(move || Box::pin(handler())))
    }

    fn route(mut self, method: &'static str, path: String, handler: Handler) -> Self {
        self.routes.entry(path).or_default().insert(method, handler);
        self
    }

    /// Serves until `shutdown` is ready. Connections that are open then are cut.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let admin = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(admin.clone(), stream))),
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept on the admin port");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let Some(methods) = self.routes.get(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "there is no such page\n");
        };
        if let Some(handler) = methods.get(request.method().as_str()) {
            return handler().await;
        }
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "this page is asked for in another way\n");
        let allowed = methods.keys().copied().collect::<Vec<_>>().join(", ");
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            answer.headers_mut().insert(ALLOW, allowed);
        }
        answer
    }
}

async fn connection(admin: Arc<Admin>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that hangs up or dawdles is no event.
    let _ = timeout(CONNECTION_WAIT, serving).await;
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body.into())
}

/// A JSON answer.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", body.into())
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn scrape(registry: &Registry) -> Answer {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(body) => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body.into()),
        Err(error) => {
            tracing::error!(%error, "failed to write the metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus::IntCounter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    async fn ask(to: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers and closes");
        answer
    }

    #[tokio::test]
    async fn each_page_answers_as_it_should() {
        let metrics = Registry::new();
        let counter = IntCounter::new("riser_test_total", "A test's.").expect("a name");
        metrics.register(Box::new(counter.clone())).expect("one of the name");
        counter.inc();
        let broken = Arc::new(AtomicBool::new(false));
        let ready = {
            let broken = broken.clone();
            move || {
                if broken.load(Ordering::Relaxed) {
                    Err("the bus is away".to_owned())
                } else {
                    Ok("but tired\n".to_owned())
                }
            }
        };
        let admin = Admin::new(ready, metrics).post("/act", || async { json(StatusCode::OK, r#"{"done":true}"#) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let asking = async {
            for (line, status, part) in [
                ("GET /healthz", "200", "ok"),
                ("GET /readyz", "200", "ok\nbut tired\n"),
                ("GET /metrics", "200", "riser_test_total 1"),
                ("POST /act", "200", r#"{"done":true}"#),
                ("GET /act", "405", "allow: POST"),
                ("POST /metrics", "405", "allow: GET"),
                ("GET /", "404", "no such page"),
                ("GET /../healthz", "404", "no such page"),
            ] {
                let answer = ask(at, line).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part), "{line}: {answer}");
            }
            broken.store(true, Ordering::Relaxed);
            let answer = ask(at, "GET /readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the bus is away"), "{answer}");
            stop.send(()).expect("it still serves");
        };
        tokio::join!(admin.serve(listener, async { drop(stopped.await) }), asking);
        assert!(TcpStream::connect(at).await.is_err(), "it still listens");
    }

    #[tokio::test]
    async fn half_a_request_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(b"GET /healthz HT").await.expect("it reads");
        let (accepted, _) = listener.accept().await.expect("a connection");
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        connection(Arc::new(Admin::new(|| Ok(String::new()), Registry::new())), accepted).await;
        assert!(began.elapsed() <= HEAD_WAIT + Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
