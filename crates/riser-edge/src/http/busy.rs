//! What a connection beyond the bounds is told: an answer that was made at the start, written to the socket at once.
//! Nothing that it sent is parsed, nothing is allocated for it, and no task waits for it.

use std::io::Read as _;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

/// The longest `Retry-After`, in seconds: some thousand connections that come back spread over it are taken easily.
const LONGEST: usize = 10;
/// Reads of what a refused connection has sent already, each of [`SCRATCH`] bytes: more than the head of an upgrade.
const READS: usize = 4;
const SCRATCH: usize = 4 * 1024;

/// The answers, one for each number of seconds.
pub(crate) struct Busy([Box<[u8]>; LONGEST]);

impl Busy {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|at| answer(at + 1).into_bytes().into()))
    }

    /// Tells when to come back: the number, which is any, chooses the answer.
    pub(crate) fn refuse(&self, stream: &TcpStream, any: usize) {
        let socket = SockRef::from(stream);
        // The buffer of a new socket is empty, and takes it whole or is gone.
        let _ = socket.send(&self.0[any % LONGEST]);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        discard(&socket);
    }
}

/// Takes what has come: a socket that is closed with unread bytes is reset, and the reset may overtake the answer.
fn discard(mut socket: &Socket) {
    let mut scratch = [0; SCRATCH];
    for _ in 0..READS {
        if socket.read(&mut scratch).unwrap_or(0) < SCRATCH {
            return;
        }
    }
}

fn answer(seconds: usize) -> String {
    let body = format!(
        concat!(
            r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"#,
            r#""detail":"too many connections are being opened; come back in {} s","code":"unavailable"}}"#
        ),
        seconds
    );
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nRetry-After: {seconds}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_whole_and_says_when_to_come_back() {
        for (at, answer) in Busy::new().0.iter().enumerate() {
            let text = std::str::from_utf8(answer).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nRetry-After: {}\r\n", at + 1)), "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!((&body["status"], &body["code"]), (&503.into(), &"unavailable".into()));
        }
    }
}
