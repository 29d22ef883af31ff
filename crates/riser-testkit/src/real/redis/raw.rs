//! A connection to Redis without a client library, for what no edge does.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection.
pub struct RawRedis(BufReader<TcpStream>);

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Several things.
    List(Vec<Reply>),
}

impl Reply {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The items of a list that are texts.
    pub fn texts(&self) -> Vec<&str> {
        if let Self::List(items) = self { items.iter().filter_map(Self::text).collect() } else { vec![] }
    }
}

impl RawRedis {
    /// Connects to a server of this machine.
    pub async fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = timeout(LIMIT, TcpStream::connect(("127.0.0.1", port))).await.context("Redis did not answer")?;
        Ok(Self(BufReader::new(stream.context("Redis cannot be reached")?)))
    }

    /// Sends a command, and gives the answer; an error when that is one.
    pub async fn call(&mut self, words: &[&str]) -> anyhow::Result<Reply> {
        let mut replies = self.call_all(&[words.iter().map(|word| (*word).to_owned()).collect()]).await?;
        replies.pop().context("Redis gave no answer")
    }

    /// Sends commands at once, and gives all answers; an error when one of them is.
    pub async fn call_all(&mut self, commands: &[Vec<String>]) -> anyhow::Result<Vec<Reply>> {
        let mut bytes = vec![];
        for words in commands {
            bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
        }
        let call = async {
            self.0.get_mut().write_all(&bytes).await.context("Redis took no command")?;
            let mut replies = vec![];
            for _ in commands {
                replies.push(self.reply().await?);
            }
            Ok(replies)
        };
        timeout(LIMIT, call).await.context("Redis did not answer")?
    }

    /// What a server says without being asked, as after `MONITOR`.
    pub async fn hear(&mut self) -> anyhow::Result<Reply> {
        timeout(LIMIT, self.reply()).await.context("Redis said nothing")?
    }

    async fn reply(&mut self) -> anyhow::Result<Reply> {
        // Lists that are not finished, each with how many items it lacks.
        let mut lists: Vec<(Vec<Reply>, usize)> = vec![];
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.context("Redis' answer cannot be read")?;
            let line = line.trim_end();
            let rest = line.get(1..).context("Redis closed the connection")?;
            let mut reply = match line.as_bytes()[0] {
                b'+' => Reply::Text(rest.to_owned()),
                b'-' => bail!("Redis refused: {rest}"),
                b':' => Reply::Number(rest.parse()?),
                b'$' | b'*' if rest == "-1" => Reply::Nil,
                b'$' => Reply::Text(self.bytes(rest.parse()?).await?),
                b'*' if rest == "0" => Reply::List(vec![]),
                b'*' => {
                    lists.push((vec![], rest.parse()?));
                    continue;
                }
                _ => bail!("Redis answered {line:?}"),
            };
            loop {
                let Some((mut items, lacks)) = lists.pop() else { return Ok(reply) };
                items.push(reply);
                if lacks > 1 {
                    lists.push((items, lacks - 1));
                    break;
                }
                reply = Reply::List(items);
            }
        }
    }

    async fn bytes(&mut self, count: usize) -> anyhow::Result<String> {
        let mut bytes = vec![0; count + 2];
        self.0.read_exact(&mut bytes).await.context("Redis' answer cannot be read")?;
        ensure!(bytes.ends_with(b"\r\n"), "Redis' answer is cut off");
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }
}
