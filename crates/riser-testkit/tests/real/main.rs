//! Tests on real servers. The test command's tier `real` brings the servers, names them in the environment and runs this:
//! `RISER_NATS_SERVER=/path/to/nats-server RISER_REDIS_SERVER=/path/to/redis-server cargo test -p riser-testkit --test real`.

use std::path::PathBuf;
use std::time::Duration;

mod backup;
mod cluster;
mod control;
mod deploy;
mod edge;
mod isolation;
mod nats;
mod redis;

/// How long a test waits for what must come: a failover takes NATS up to 10 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real server's program.
fn program(variable: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "this is how the test command says where the servers are")]
    let path = std::env::var(variable);
    PathBuf::from(path.unwrap_or_else(|_| panic!("{variable} does not name a server: run `bash .ci/test real`")))
}

/// A name that no other test uses, and no other run.
fn unique() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}
