//! What the doctor sees.

use std::process::Command;

use riser_client::{Api, Notice};
use riser_core::frame::Credential;
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
    let api = Api::new(cluster.edges.url(0).parse().expect("a URL"), Credential::new(&*cluster.edges.key));
    api.event(&"b1/_".parse().expect("an address"), &Notice::new("ring")).await.expect("stored");
    let monitors = format!("nats.monitors=http://127.0.0.1:{}", cluster.nats.monitoring_port(0));
    let (code, said) = look(&cluster, &[&monitors]).await;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "✓ tenants: 1",
        "✓ nats: n0 has version ",
        "✓ nats: JetStream answers",
        "! events: there is one copy",
        "✓ events: 1 stream(s) with 1 copies each, all of them whole",
        "! nats: n0 writes to disk every 120 s",
        "✓ clocks: this machine and n0 are ",
        "✓ edges: edge-0 answered within ",
        "✓ edges: edge-1 answered within ",
        "✓ edges: edge-2 answered within ",
        "✓ redis: 127.0.0.1:",
        "! redis: nothing is written to disk",
        "✓ redis: maxmemory-policy is noeviction",
        "✓ clocks: this machine and Redis are ",
    ] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }

    cluster.edges.kill(1);
    cluster.edges.write("tenants.toml", "[tenants.acme]\nx = 1\n").expect("a file");
    let mut redis = cluster.redis.raw(0).await.expect("Redis");
    redis.call(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await.expect("an answer");
    let (code, said) = look(&cluster, &["events.replicas=3", "nats.monitors=http://127.0.0.1:1"]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "✗ tenants: ",
        "✓ edges: edge-0",
        "✓ edges: edge-2",
        "✗ edges: edge-1 has a lease and did not answer",
        "✗ events: replicas is 3, and n0 is alone",
        "! nats: monitoring at http://127.0.0.1:1: ",
        "✗ redis: maxmemory-policy is allkeys-lru",
    ] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }
    // Nobody marks them offline any more, and so their leases stay.
    (0..3).for_each(|number| cluster.edges.kill(number));
    let dead = async {
        loop {
            let (_, said) = look(&cluster, &[]).await;
            if said.contains("! edges: edge-2 is dead for ") {
                return said;
            }
        }
    };
    let said = timeout(PATIENCE, dead).await.expect("a lease that ends");
    assert!(said.contains("start an edge, which does it"), "{said}");
    assert!(said.contains("! nats: when events reach the disk is not known"), "{said}");

    let (code, said) = look(&cluster, &["redis.server=redis://127.0.0.1:1", "nats.servers=nats://127.0.0.1:1"]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["✗ nats (nats://127.0.0.1:1): ", "✗ redis: "] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{part}\n{said}");
    }
}
