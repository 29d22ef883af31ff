//! One HTTP request to a server's monitoring, without a client library.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take. A server that is asked while it starts may not answer at all.
const LIMIT: Duration = Duration::from_secs(2);
/// Most that is read of an answer, in bytes.
const ANSWER_BYTES: u64 = 4 << 20;

/// The body of a 200 answer of a server on this machine.
pub async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    timeout(LIMIT, request(port, path)).await.context("the monitoring did not answer")?
}

async fn request(port: u16, path: &str) -> anyhow::Result<String> {
    match exchange(port, "GET", path).await? {
        (200, body) => Ok(body),
        (status, _) => bail!("the monitoring answered {status}"),
    }
}

/// The status and the body of a server's answer to a request without a body.
pub async fn ask(port: u16, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    timeout(LIMIT, exchange(port, method, path)).await.context("there was no answer")?
}

async fn exchange(port: u16, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("the monitoring cannot be reached")?;
    // Version 1.0, so that the body ends with the connection.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("the monitoring took no request")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await.context("the monitoring's answer cannot be read")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the monitoring's answer has no body")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("an answer without a status")?;
    Ok((status, body.to_owned()))
}
