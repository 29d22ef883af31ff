//! NATS' text protocol as any user may speak it: whatever is sent is sent as it is, and whatever comes is told. For those who
//! listen to all that edges say to each other, and for those who ask for what they may not have.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Largest message that is read, in bytes: NATS' own limit.
const MESSAGE_BYTES: usize = 1 << 20;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A message: its subject, and its headers and payload as text.
    Message(String, String),
    /// That something is not allowed, or wrong.
    Error(String),
    /// The answer to a `PING`.
    Pong,
}

/// A connection to one server.
pub struct NatsWire(BufReader<TcpStream>);

impl NatsWire {
    /// Connects to a server on this machine as a user with a password, or as nobody.
    pub async fn connect(port: u16, login: Option<(&str, &str)>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("the server cannot be reached")?;
        let mut wire = Self(BufReader::new(stream));
        wire.line().await?;
        let mut hello = json!({ "verbose": false, "headers": true, "no_responders": true });
        if let Some((user, password)) = login {
            hello["user"] = user.into();
            hello["pass"] = password.into();
        }
        wire.send(&format!("CONNECT {hello}\r\n")).await?;
        let said = wire.settled().await?;
        ensure!(said.is_empty(), "the server said {said:?}");
        Ok(wire)
    }

    /// Sends lines as they are.
    pub async fn send(&mut self, lines: &str) -> anyhow::Result<()> {
        self.0.get_mut().write_all(lines.as_bytes()).await.context("the server takes nothing")
    }

    /// Publishes a message. With a `reply`, answers are to go there.
    pub async fn publish(&mut self, subject: &str, reply: &str, payload: &str) -> anyhow::Result<()> {
        self.send(&format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len())).await
    }

    /// Subscribes; `number` is its own on this connection.
    pub async fn subscribe(&mut self, subject: &str, number: u32) -> anyhow::Result<()> {
        self.send(&format!("SUB {subject} {number}\r\n")).await
    }

    /// Waits until the server has done all that was sent, and gives what it said meanwhile.
    pub async fn settled(&mut self) -> anyhow::Result<Vec<Said>> {
        self.send("PING\r\n").await?;
        let settled = async {
            let mut all = vec![];
            loop {
                match self.next().await? {
                    Said::Pong => return anyhow::Ok(all),
                    said => all.push(said),
                }
            }
        };
        timeout(LIMIT, settled).await.context("the server did not answer")?
    }

    /// What the server says next, whenever that is.
    pub async fn next(&mut self) -> anyhow::Result<Said> {
        loop {
            let line = self.line().await?;
            let mut words = line.split(' ');
            match words.next().unwrap_or_default() {
                "PING" => self.send("PONG\r\n").await?,
                "PONG" => return Ok(Said::Pong),
                "-ERR" => return Ok(Said::Error(line)),
                "MSG" | "HMSG" => {
                    let subject = words.next().context("a message without a subject")?.to_owned();
                    let bytes: usize = line.rsplit(' ').next().unwrap_or_default().parse().context("a length")?;
                    ensure!(bytes <= MESSAGE_BYTES, "a message of {bytes} bytes");
                    // And the end of the line behind it.
                    let mut message = vec![0; bytes + 2];
                    self.0.read_exact(&mut message).await.context("a message ended too early")?;
                    message.truncate(bytes);
                    return Ok(Said::Message(subject, String::from_utf8_lossy(&message).into_owned()));
                }
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await.context("the server cannot be read")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
