//! The baseline: what comes over TCP goes back. One task per connection, as plain as it gets.

use std::io::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;
/// Bytes read at once.
const READ_BYTES: usize = 4_096;

/// Serves until it is killed. Prints its port first.
pub(crate) fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(echo(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; READ_BYTES];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}
