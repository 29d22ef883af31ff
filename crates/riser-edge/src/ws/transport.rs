//! What a connection needs of its transport beyond reading and writing, and how a TCP socket is set up for it.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// How long the kernel may go on delivering what it holds of a connection that has ended in order. Together with
/// [`CLOSE_WAIT`](super::CLOSE_WAIT) it makes the 5 s within which a closed connection is gone.
const SETTLE: Duration = Duration::from_secs(3);

/// The writing side of a connection, over TCP, over TLS, or in memory.
pub trait WriteHalf: AsyncWrite + Send + Unpin {
    /// Called just before the half is dropped, when what was not delivered yet must not be waited for. A transport over
    /// a socket resets it.
    fn abandon(&mut self) {}

    /// Called just before the half is dropped after an orderly end. A transport over a socket bounds for how long the
    /// kernel goes on delivering.
    fn settle(&mut self) {}
}

impl WriteHalf for OwnedWriteHalf {
    fn abandon(&mut self) {
        reset_at_end(self.as_ref());
    }

    fn settle(&mut self) {
        settle_at_end(self.as_ref());
    }
}

/// Has a socket reset when it is closed.
pub(crate) fn reset_at_end(socket: &TcpStream) {
    // The socket may be gone already, and then there is nothing to reset.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Bounds for how long the kernel goes on delivering what it holds of a socket that is closed.
pub(crate) fn settle_at_end(socket: &TcpStream) {
    // Without it an orphan whose peer reads nothing would stay for minutes. A refusal leaves just that.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(socket).set_tcp_user_timeout(Some(SETTLE));
}

impl<T: AsyncWrite + Send> WriteHalf for tokio::io::WriteHalf<T> {}

/// Sets up an accepted socket: no Nagle delay, since frames are coalesced before they are written, and a send buffer of
/// about `send_buffer` bytes (the kernel doubles it), since what the kernel holds can no longer be conflated.
pub fn tune(stream: &TcpStream, send_buffer: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_send_buffer_size(send_buffer)
}
