//! What the doctor asks of Redis: how it keeps what it is told, and what time it has.

use riser_registry::redis::{RedisRegistry, ServerInfo};

use super::{Line, Mark, clocks};
use crate::clock;

/// Looks at the server that the edges use.
pub(super) async fn look(redis: &RedisRegistry) -> Vec<Line> {
    match redis.server_info().await {
        Err(_) => {
            let text = "redis: it does not say how it runs: let the user run INFO and CONFIG GET";
            vec![Line(Mark::Warning, text.into())]
        }
        Ok(info) => judge(&info, clock::now_ms()),
    }
}

fn judge(info: &ServerInfo, now_ms: u64) -> Vec<Line> {
    let ServerInfo { server, version, replicas, .. } = info;
    let mut lines = vec![Line(Mark::Good, format!("redis: {server} has version {version} and {replicas} replica(s)"))];
    let snapshots = info.snapshots.as_ref().is_some_and(|snapshots| !snapshots.is_empty());
    lines.push(if info.append_only {
        Line(Mark::Good, "redis: an append-only file is written".into())
    } else if snapshots {
        let text = "redis: only snapshots are written, so that a restart loses minutes: set appendonly yes";
        Line(Mark::Warning, text.into())
    } else {
        let text =
            "redis: nothing is written to disk, so that a restart loses all state and commands: set appendonly yes";
        Line(Mark::Warning, text.into())
    });
    if info.disk_failed {
        let text = "redis: its last write to disk failed: see its log, and whether there is room";
        lines.push(Line(Mark::Bad, text.into()));
    }
    let policy = &info.max_memory_policy;
    lines.push(if policy == "noeviction" {
        Line(Mark::Good, "redis: maxmemory-policy is noeviction".into())
    } else {
        // Without a limit nothing is forgotten until somebody sets one.
        let mark = if info.max_memory > 0 { Mark::Bad } else { Mark::Warning };
        Line(mark, format!("redis: maxmemory-policy is {policy}, which forgets gateways: set it to noeviction"))
    });
    if info.now_ms > 0 {
        lines.push(clocks("Redis", info.now_ms, now_ms));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ServerInfo {
        ServerInfo {
            server: "r:6379".into(),
            version: "7.0.15".into(),
            now_ms: 1_000_000,
            is_master: true,
            replicas: 1,
            max_memory: 0,
            max_memory_policy: "noeviction".into(),
            append_only: true,
            disk_failed: false,
            snapshots: None,
        }
    }

    fn marks(info: &ServerInfo) -> Vec<Mark> {
        judge(info, 1_000_100).into_iter().map(|Line(mark, _)| mark).collect()
    }

    #[test]
    fn what_redis_may_lose_is_found() {
        use Mark::{Bad, Good, Warning};
        assert_eq!(marks(&info()), [Good, Good, Good, Good]);
        assert_eq!(marks(&ServerInfo { append_only: false, ..info() }), [Good, Warning, Good, Good]);
        let snapshots = ServerInfo { append_only: false, snapshots: Some("60 1".into()), ..info() };
        assert_eq!(marks(&snapshots), [Good, Warning, Good, Good]);
        assert_eq!(marks(&ServerInfo { disk_failed: true, ..info() }), [Good, Good, Bad, Good, Good]);
        let limited = ServerInfo { max_memory: 1, ..info() };
        assert_eq!(marks(&limited), [Good, Good, Good, Good]);
        let forgetful = ServerInfo { max_memory_policy: "allkeys-lru".into(), ..limited };
        assert_eq!(marks(&forgetful), [Good, Good, Bad, Good]);
        assert_eq!(marks(&ServerInfo { max_memory: 0, ..forgetful }), [Good, Good, Warning, Good]);
        assert_eq!(marks(&ServerInfo { now_ms: 1_002_000, ..info() }), [Good, Good, Good, Bad]);
        assert_eq!(marks(&ServerInfo { now_ms: 0, ..info() }), [Good, Good, Good]);
    }
}
