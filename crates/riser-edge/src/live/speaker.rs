//! A session that speaks: which streams it has open, and what it may say on them.

use std::sync::Arc;

use parking_lot::Mutex;
use riser_core::frame::{N, outbound};
use riser_core::live::{Header, Stream, StreamId, StreamKind};
use riser_core::{Address, ErrorCode, GatewayKey, Identity, Json, Path, Peer, Verb};
use riser_registry::{Holder, Opened};

use super::line::{Line, TTL, Taken, Why};
use crate::commands::issuer::who;
use crate::session::{answer_error, answer_ok};
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// Streams that one session may have open.
const STREAMS: usize = 8;
/// How many numbers are tried for a stream. Of four thousand million, four thousand are in use at most.
const NUMBERS: usize = 16;

/// One session's streams.
pub(crate) struct Speaker {
    conn: Arc<Conn>,
    open: Mutex<Open>,
}

struct Open {
    /// Who the session is now.
    identity: Arc<Identity>,
    lines: Vec<Arc<Line>>,
    /// Streams of which the store has not been told yet.
    opening: usize,
    left: bool,
}

/// What is asked for with `open`.
pub(crate) struct Wish {
    pub(crate) to: Option<Address>,
    pub(crate) path: Path,
    pub(crate) kind: StreamKind,
    pub(crate) params: Option<Json>,
}

/// Why a stream was not opened.
type Refusal = (ErrorCode, &'static str);

/// Whether the session may speak there.
fn may_speak(identity: &Identity, of: &Address, path: &Path) -> bool {
    match &identity.peer {
        Peer::Gateway { address } => address == of,
        Peer::Client { .. } => identity.allows_path(Verb::Speak, of, path),
    }
}

impl Speaker {
    pub(crate) fn new(conn: &Arc<Conn>, identity: &Arc<Identity>) -> Arc<Self> {
        let open = Open { identity: identity.clone(), lines: Vec::new(), opening: 0, left: false };
        Arc::new(Self { conn: conn.clone(), open: Mutex::new(open) })
    }

    /// Opens a stream, when it may.
    pub(crate) fn open(self: &Arc<Self>, shared: &Arc<Shared>, n: N, wish: Wish) {
        let mut open = self.open.lock();
        let identity = open.identity.clone();
        let of = match (wish.to, identity.address()) {
            (Some(to), _) => to,
            (None, Some(own)) => own.clone(),
            (None, None) => {
                drop(open);
                return answer_error(shared, &self.conn, Some(n), ErrorCode::BadFrame, "`to` is missing");
            }
        };
        let refusal = if !may_speak(&identity, &of, &wish.path) {
            let text = "no grant of this credential covers speaking at the address and the path";
            Some((ErrorCode::Forbidden, text))
        } else if open.lines.len() + open.opening >= STREAMS {
            Some((ErrorCode::TooMany, "this session has as many streams open as it may"))
        } else {
            open.opening += 1;
            None
        };
        drop(open);
        if let Some((code, text)) = refusal {
            return answer_error(shared, &self.conn, Some(n), code, text);
        }
        let stream = Stream {
            id: shared.next_stream(),
            of,
            path: wish.path,
            kind: wish.kind,
            params: wish.params,
            from: who(&identity),
            edge: shared.config.id.clone(),
        };
        let (speaker, shared) = (self.clone(), shared.clone());
        shared.clone().tasks.spawn(async move { speaker.begin(&shared, n, &identity, stream).await });
    }

    /// Tells the store of a stream, then lives its life.
    async fn begin(&self, shared: &Arc<Shared>, n: N, identity: &Identity, mut stream: Stream) {
        let key = GatewayKey::new(identity.tenant.clone(), stream.of.clone());
        let registered = register(shared, &key, &mut stream, &self.conn).await;
        let own = identity.address() == Some(&stream.of);
        let (code, text) = match self.admit(shared, &key, &stream, own, registered) {
            Ok(line) => {
                self.conn.send(frame::text(&outbound::ok_stream(n, line.stream.id)));
                return line.run(shared, self).await;
            }
            Err(refusal) => refusal,
        };
        answer_error(shared, &self.conn, Some(n), code, text);
        self.conn.flush();
        if code != ErrorCode::TooMany {
            // It may be open there. When this is not answered either, it ends by itself.
            let _ = shared.call(shared.ports.streams.close_stream(&key.tenant, &stream.of, stream.id)).await;
        }
    }

    /// Lets frames of the stream in, if the session is still there and may still speak.
    fn admit(
        &self,
        shared: &Shared,
        key: &GatewayKey,
        stream: &Stream,
        own: bool,
        registered: Result<Option<Holder>, Refusal>,
    ) -> Result<Arc<Line>, Refusal> {
        let mut open = self.open.lock();
        open.opening -= 1;
        let holder = registered?;
        if open.left || !may_speak(&open.identity, &stream.of, &stream.path) {
            return Err((ErrorCode::Forbidden, "the right to speak there was withdrawn"));
        }
        let line = Line::new(shared, key.clone(), stream.clone(), self.conn.clone(), own, holder);
        open.lines.push(line.clone());
        shared.live.add(&line);
        Ok(line)
    }

    /// Closes a stream that the session opened; false when there is none.
    pub(crate) fn close(&self, stream: StreamId) -> bool {
        self.line(stream).is_some_and(|line| line.end(Why::Asked))
    }

    fn line(&self, stream: StreamId) -> Option<Arc<Line>> {
        self.open.lock().lines.iter().find(|line| line.stream.id == stream).cloned()
    }

    /// Takes the session's new rights: what they do not cover any more is closed.
    pub(crate) fn renewed(&self, identity: &Arc<Identity>) {
        let mut open = self.open.lock();
        open.identity = identity.clone();
        for line in open.lines.iter().filter(|l| !may_speak(identity, &l.stream.of, &l.stream.path)) {
            line.end(Why::Withdrawn);
        }
    }

    /// The session has ended, and all its streams with it.
    pub(crate) fn leave(&self) {
        let mut open = self.open.lock();
        open.left = true;
        for line in &open.lines {
            line.end(Why::Lost);
        }
    }

    /// Forgets a stream that is over.
    pub(super) fn forget(&self, stream: StreamId) {
        self.open.lock().lines.retain(|line| line.stream.id != stream);
    }
}

/// Has the store know the stream, under a number that no other has.
async fn register(
    shared: &Shared,
    key: &GatewayKey,
    stream: &mut Stream,
    opener: &Arc<Conn>,
) -> Result<Option<Holder>, Refusal> {
    for _ in 0..NUMBERS {
        shared.live.note(&key.tenant, stream.id, opener);
        match shared.call(shared.ports.streams.open_stream(&key.tenant, stream, TTL)).await {
            Ok(Opened::Open(holder)) => return Ok(holder),
            Ok(Opened::Taken) => stream.id = shared.next_stream(),
            Ok(Opened::TooMany) => {
                return Err((ErrorCode::TooMany, "as many streams of the tenant are open as may be"));
            }
            Err(_) => return Err((ErrorCode::Unavailable, "the registry did not answer; the stream is not open")),
        }
    }
    Err((ErrorCode::Unavailable, "no free number was found for the stream"))
}

/// Takes a binary message of a session, which has a speaker once it asked for a stream.
pub(crate) fn message(shared: &Shared, conn: &Conn, speaker: Option<&Arc<Speaker>>, data: &[u8]) {
    let header = match Header::parse(data) {
        Ok(header) => header,
        Err(error) => return answer_error(shared, conn, None, ErrorCode::BadFrame, &error.to_string()),
    };
    let taken = match speaker.and_then(|speaker| speaker.line(header.stream)) {
        Some(line) if line.stream.kind != header.kind => {
            let text = "byte 0 of a binary frame is not the kind that its stream was opened with";
            return answer_error(shared, conn, None, ErrorCode::BadFrame, text);
        }
        Some(line) => line.push(shared, data),
        None => Taken::Over,
    };
    match taken {
        Taken::Yes | Taken::TooFast { tell: false } => {}
        Taken::TooFast { tell: true } => {
            let text = "more frames or bytes than a stream may carry; those over it are dropped";
            answer_error(shared, conn, None, ErrorCode::RateLimited, text);
        }
        Taken::Over => {
            let text = "this session has no such stream open";
            answer_error(shared, conn, None, ErrorCode::NotFound, text);
        }
    }
}

/// Answers `close`.
pub(crate) fn close(shared: &Shared, conn: &Conn, speaker: Option<&Arc<Speaker>>, n: N, stream: StreamId) {
    if speaker.is_some_and(|speaker| speaker.close(stream)) {
        answer_ok(conn, Some(n));
    } else {
        answer_error(shared, conn, Some(n), ErrorCode::NotFound, "this session has no such stream open");
    }
}
