//! Ports of the loopback interface for servers that must know theirs before they start.

use std::io;
use std::net::TcpListener;

/// Ports that nobody had a moment ago. Somebody may take one before its server does, which then ends at once: start it
/// again with others.
pub fn free(count: usize) -> io::Result<Vec<u16>> {
    // All at once, so that they differ.
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}
