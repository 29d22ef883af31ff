//! What the doctor sees.

use std::process::Command;

use tokio::time::timeout;

use super::{Cluster, PATIENCE, cluster, riser};

/// Has the doctor look, with further options; its exit code and what it says.
async fn look(cluster: &Cluster, set: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(riser());
    command.env_clear().arg("doctor").arg("--config").arg(cluster.edges.path("riser.toml"));
    for set in set {
        command.arg("--set").arg(set);
    }
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(PATIENCE, ran).await.expect("an end in time").expect("it ran").expect("it started");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn the_doctor_finds_every_edge_and_what_must_be_mended() {
    let mut cluster = cluster(3, &[]).await;
    let (code, said) = look(&cluster, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "✓ tenants: 1",
        "✓ nats: n0 has version ",
        "✓ nats: JetStream answers",
        "✓ edges: edge-0 answered within ",
        "✓ edges: edge-1 answered within ",
        "✓ edges: edge-2 answered within ",
        "✓ redis: 127.0.0.1:",
        "! redis: nothing is written to disk",
        "✓ clocks: ",
    ] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }

    cluster.edges.kill(1);
    cluster.edges.write("tenants.toml", "[tenants.acme]\nx = 1\n").expect("a file");
    let mut redis = cluster.redis.raw(0).await.expect("Redis");
    redis.call(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await.expect("an answer");
    let (code, said) = look(&cluster, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["✗ tenants: ", "✓ edges: edge-0", "✓ edges: edge-2", "✗ redis: maxmemory-policy is allkeys-lru"]
    {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }
    assert!(!said.contains("edge-1"), "{said}");

    let (code, said) = look(&cluster, &["redis.server=redis://127.0.0.1:1", "nats.servers=nats://127.0.0.1:1"]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["✗ nats (nats://127.0.0.1:1): ", "✗ redis: "] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }
}
