//! A socket that gives up when its peer does not take what is written to it.
//!
//! The server bounds how long a request may take to come, and nothing bounds how long its answer may take to go: whoever
//! reads no answer, or a byte now and then, would keep a connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose writes must be through within a time from when they first had to wait. Progress does not extend it: it
/// begins anew only after a flush, when nothing waits any more.
#[derive(Debug)]
pub struct Bounded<S> {
    stream: S,
    within: Duration,
    /// Boxed, and there only while the peer keeps a write waiting.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Bounded<S> {
    /// Bounds the writes to a stream.
    pub fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, until: None }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Lets a write wait as long as there is time.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let within = self.within;
        ready!(self.until.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.wait(cx),
            written @ Poll::Ready(_) => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.wait(cx),
            written @ Poll::Ready(_) => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.wait(cx),
            flushed @ Poll::Ready(_) => {
                self.until = None;
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.wait(cx),
            shut @ Poll::Ready(_) => shut,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_is_given_up() {
        let (mut peer, stream) = duplex(8);
        let mut bounded = Bounded::new(stream, Duration::from_secs(30));
        let read = async {
            let mut byte = [0];
            while peer.read(&mut byte).await.is_ok_and(|n| n == 1) {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let written = async { bounded.write_all(&[0; 100]).await };
        tokio::select! {
            written = written => assert_eq!(written.expect_err("too late").kind(), io::ErrorKind::TimedOut),
            () = read => panic!("the peer was at its end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_the_time_anew() {
        let (mut peer, stream) = duplex(8);
        let mut bounded = Bounded::new(stream, Duration::from_secs(30));
        let written = async {
            for _ in 0..4 {
                bounded.write_all(&[0; 20]).await.expect("in time");
                bounded.flush().await.expect("in time");
            }
        };
        let read = async {
            let mut bytes = [0; 4];
            for _ in 0..20 {
                sleep(Duration::from_secs(5)).await;
                peer.read_exact(&mut bytes).await.expect("written");
            }
        };
        tokio::join!(written, read);
    }
}
