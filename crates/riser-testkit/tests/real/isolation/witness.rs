//! A tenant's own eyes: a session and calls of the HTTP API, of which every answer is checked.

use riser_client::link::{Link, Message};
use riser_client::{Config, End};
use riser_core::frame::Credential;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::pair::{Finding, Pair};
use super::world::World;

/// Frames that come of what somebody wrote, and so carry a canary.
const CARRYING: [&str; 6] = ["state", "event", "command", "opened", "devices", "binary"];

/// One session.
pub(super) struct Witness<'w> {
    pair: &'w Pair,
    whose: usize,
    until: Instant,
    link: Link,
    next: u64,
    /// All that came: text and what it says. A binary message is a frame of its own kind.
    seen: Vec<(String, Value)>,
}

fn missing(what: &str) -> Finding {
    Finding::Missing(what.to_owned())
}

/// Whether a frame is of this type.
pub(super) fn is(frame: &Value, kind: &str) -> bool {
    frame["t"] == kind
}

impl<'w> Witness<'w> {
    /// Opens a session with a credential, which is not to take longer than this.
    pub(super) async fn open(
        (world, edge): (&World, usize),
        (pair, whose): (&'w Pair, usize),
        credential: &str,
        until: Instant,
    ) -> Result<Self, Finding> {
        let endpoint = format!("http://{}", world.at(edge)).parse().expect("an endpoint");
        let mut config = Config::new(endpoint, Credential::new(credential));
        config.remembers_ms = Some(600_000);
        let opened = timeout_at(until, Link::open(&config)).await.map_err(|_| missing("a session"))?;
        let (link, welcome) = opened.map_err(|end| missing(&format!("a session: {end:?}")))?;
        if welcome.tenant != pair.of[whose].id {
            return Err(Finding::Foreign(format!("{} is taken for {}", pair.of[whose].id, welcome.tenant)));
        }
        Ok(Self { pair, whose, until, link, next: 0, seen: vec![] })
    }

    async fn receive(&mut self, what: &str) -> Result<(), Finding> {
        let message = timeout_at(self.until, self.link.receive()).await;
        let message = message.map_err(|_| missing(what))?.map_err(|end: End| missing(&format!("{what}: {end:?}")))?;
        let (text, frame) = match message {
            Message::Text(text) => {
                let frame = serde_json::from_str(&text).map_err(|_| missing("JSON"))?;
                (text, frame)
            }
            Message::Binary(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), json!({"t": "binary"})),
        };
        self.check(&text, &frame)?;
        self.seen.push((text, frame));
        Ok(())
    }

    fn check(&self, text: &str, frame: &Value) -> Result<(), Finding> {
        self.pair.check(self.whose, text)?;
        let carries = CARRYING.iter().any(|kind| is(frame, kind)) || !frame["data"].is_null();
        if carries && !text.contains(&self.pair.of[self.whose].canary) {
            return Err(Finding::Foreign(format!(
                "{} was given what nobody wrote: {text}",
                self.pair.of[self.whose].id
            )));
        }
        Ok(())
    }

    /// The first frame that came or comes of which this holds.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value, Finding> {
        let mut from = 0;
        loop {
            if let Some((_, frame)) = self.seen[from..].iter().find(|(_, frame)| holds(frame)) {
                return Ok(frame.clone());
            }
            from = self.seen.len();
            self.receive(what).await?;
        }
    }

    /// Sends a frame, and gives its answer, `ok` or `error`.
    pub(super) async fn answer(&mut self, mut frame: Value) -> Result<Value, Finding> {
        self.next += 1;
        let n = self.next;
        frame["n"] = n.into();
        self.link.send(&frame.to_string()).map_err(|_| missing("room for a frame"))?;
        self.until(&format!("an answer to {frame}"), |got| got["n"] == n && (is(got, "ok") || is(got, "error"))).await
    }

    /// Sends a frame that must be answered `ok`.
    pub(super) async fn ask(&mut self, frame: Value) -> Result<Value, Finding> {
        let text = frame.to_string();
        let answer = self.answer(frame).await?;
        if is(&answer, "ok") { Ok(answer) } else { Err(missing(&format!("an ok to {text}: {answer}"))) }
    }

    /// Sends a frame that must be refused.
    pub(super) async fn refused(&mut self, frame: Value) -> Result<(), Finding> {
        let text = frame.to_string();
        let answer = self.answer(frame).await?;
        if is(&answer, "error") { Ok(()) } else { Err(Finding::Foreign(format!("{text} was answered {answer}"))) }
    }

    /// Sends a frame of a live stream that says the canary.
    pub(super) async fn say(&mut self, stream: u64, says: &str) -> Result<(), Finding> {
        let mut frame = vec![1, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(stream).unwrap_or(0).to_be_bytes());
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(format!(" {says} ").as_bytes());
        self.link.send_binary(&frame).map_err(|_| missing("room for a frame"))?;
        self.link.flush().await.map_err(|_| missing("a session"))
    }

    /// Waits until all that was on its way here has come, and checks all once more, by all that is known now.
    pub(super) async fn settle(&mut self) -> Result<(), Finding> {
        let pongs = self.seen.iter().filter(|(_, frame)| is(frame, "pong")).count();
        self.link.send(r#"{"t":"ping"}"#).map_err(|_| missing("room for a frame"))?;
        while self.seen.iter().filter(|(_, frame)| is(frame, "pong")).count() == pongs {
            self.receive("a pong").await?;
        }
        self.seen.iter().try_for_each(|(text, frame)| self.check(text, frame))
    }
}

/// One call of the HTTP API: its status and its body.
pub(super) async fn call(
    (world, edge): (&World, usize),
    (pair, whose): (&Pair, usize),
    credential: &str,
    (method, path, body): (&str, &str, &str),
    until: Instant,
) -> Result<(u16, String), Finding> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {credential}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(world.at(edge)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout_at(until, exchange).await.map_err(|_| missing(path))?;
    let answer = answer.map_err(|error| missing(&format!("{path}: {error}")))?;
    pair.check(whose, &answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| missing("a head"))?;
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| missing("a status"))?;
    Ok((status, body.to_owned()))
}
