//! Free ports.

use std::io;
use std::net::TcpListener;
use std::ops::Range;

/// Below those that systems give to connections by themselves: one of these would be taken by any connection while the
/// server that it is meant for starts, or is down for a while.
const PORTS: Range<u16> = 10_240..32_000;
/// Ports that are tried before it is given up.
const TRIES: usize = 10_000;

/// Ports of the loopback interface that nobody had a moment ago.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // All are held until all are found, so that they differ.
    let mut listeners = vec![];
    for _ in 0..TRIES {
        if listeners.len() == count {
            break;
        }
        listeners.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))));
    }
    if listeners.len() < count {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}
