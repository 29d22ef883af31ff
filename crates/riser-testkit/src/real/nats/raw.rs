//! NATS' text protocol by hand, for what an edge never sends: foreign messages, and calls that lose a stream.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to one server.
pub struct RawNats {
    stream: BufReader<TcpStream>,
    /// Where answers come, and to no other connection.
    answers: String,
}

impl RawNats {
    /// Connects to a server on this machine.
    pub async fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("the server cannot be reached")?;
        let mut raw = Self { stream: BufReader::new(stream), answers: format!("answers.{:016x}", fastrand::u64(..)) };
        raw.line().await?;
        let hello = r#"CONNECT {"verbose":false,"headers":true,"no_responders":true}"#;
        raw.send(&format!("{hello}\r\nSUB {} 1\r\n", raw.answers)).await?;
        Ok(raw)
    }

    /// Publishes messages, and waits until the server has passed them on to those who were subscribed.
    pub async fn publish(&mut self, subject: &str, payload: &str, times: usize) -> anyhow::Result<()> {
        let message = format!("PUB {subject} {}\r\n{payload}\r\n", payload.len());
        self.send(&message.repeat(times)).await?;
        self.send("PING\r\n").await?;
        let pong = async {
            while self.line().await? != "PONG" {}
            anyhow::Ok(())
        };
        timeout(LIMIT, pong).await.context("the server did not answer")?
    }

    /// Asks something, and gives the answer's payload.
    pub async fn ask(&mut self, subject: &str, payload: &str) -> anyhow::Result<String> {
        self.send(&format!("PUB {subject} {} {}\r\n{payload}\r\n", self.answers, payload.len())).await?;
        timeout(LIMIT, self.answer()).await.context("nobody answered")?
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        loop {
            let line = self.line().await?;
            if line.starts_with("MSG ") {
                let bytes: usize = line.rsplit(' ').next().unwrap_or_default().parse().context("a length")?;
                let mut payload = vec![0; bytes];
                self.stream.read_exact(&mut payload).await.context("an answer ended too early")?;
                return String::from_utf8(payload).context("an answer that is no text");
            }
            if line.starts_with("HMSG ") {
                bail!("nobody was there to answer");
            }
        }
    }

    /// The next line that is not about keeping the connection.
    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.context("the server cannot be read")? == 0 {
                bail!("the server closed the connection");
            }
            match line.trim_end() {
                "PING" => self.send("PONG\r\n").await?,
                error if error.starts_with("-ERR") => bail!("the server answered {error}"),
                line => return Ok(line.to_owned()),
            }
        }
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes()).await.context("the server takes nothing")
    }
}
