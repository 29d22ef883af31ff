//! Free ports.

use std::io;
use std::net::TcpListener;

/// Ports of the loopback interface that nobody had a moment ago.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // All at once, so that they differ.
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}
