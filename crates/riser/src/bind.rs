//! Listening, with a clear word when it cannot be had.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::exit::Failure;

/// Binds a listener.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    riser_edge::listen(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Unavailable(format!("cannot listen on {address}: the port is in use")),
        _ => Failure::Unavailable(format!("cannot listen on {address}: {error}")),
    })
}
