//! What a NATS server tells of itself on its monitoring port, which its clients cannot ask: when it writes to disk.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(3);
/// Largest answer, in bytes: a server's is some tens of thousands.
const ANSWER_BYTES: u64 = 4 << 20;

/// What is read of `/varz`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Varz {
    pub(super) server_name: String,
    pub(super) now: String,
    #[serde(default)]
    pub(super) jetstream: JetStream,
}

/// Nothing of it is there without JetStream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct JetStream {
    pub(super) config: Option<Config>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Config {
    /// In nanoseconds.
    #[serde(default)]
    pub(super) sync_interval: u64,
    #[serde(default)]
    pub(super) sync_always: bool,
}

/// Asks the server at a URL that was checked, `http://host:port`.
pub(super) async fn ask(url: &str) -> Result<Varz, String> {
    let host = url.trim_start_matches("http://");
    let answer = timeout(WAIT, exchange(host)).await.map_err(|_| format!("no answer within {} s", WAIT.as_secs()))?;
    let answer = answer.map_err(|error| error.to_string())?;
    read(&answer)
}

async fn exchange(host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    // Version 1.0, so that the body ends with the connection.
    stream.write_all(format!("GET /varz HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn read(answer: &str) -> Result<Varz, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("it is no HTTP server")?;
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(|_| "it is not the monitoring of a NATS server".into()),
        status => Err(format!("it answers {}", status.unwrap_or("nothing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_none_is_not() {
        let answer = |body: &str| format!("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{body}");
        let body = r#"{"server_name":"n0","now":"2026-11-26T18:28:19.5Z","jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#;
        let varz = read(&answer(body)).expect("an answer");
        assert_eq!(varz.jetstream.config, Some(Config { sync_interval: 120_000_000_000, sync_always: true }));
        let without = read(&answer(r#"{"server_name":"n0","now":"","jetstream":{}}"#)).expect("an answer");
        assert_eq!(without.jetstream.config, None);
        for bad in ["", "HTTP/1.0 404 Not Found\r\n\r\n{}", &answer("{}"), &answer("<html>")] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
