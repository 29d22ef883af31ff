//! What a cluster that serves tells: a file for programs, a few lines for people.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use riser_core::{Grant, Peer};
use riser_edge::auth::{self, TokenOrder};
use serde_json::json;

use super::cluster::{Cluster, TENANT};
use crate::cli::Dev;
use crate::exit::Failure;

/// How long the client's token lasts: longer than anybody lets a development cluster run.
const CLIENT_TTL_S: u64 = 30 * 86_400;
/// Names tried for the file that is renamed. One is enough unless somebody prepared that name.
const TRIES: u32 = 8;

/// Where the cluster is and how to get in.
pub(super) struct Ready {
    pub(super) http: Vec<String>,
    ws: Vec<String>,
    admin: Vec<String>,
    api_key: String,
    client_token: String,
    signing_key: String,
    control: String,
    control_credential: String,
    /// Of each tenant its name and a key that may do everything in it.
    tenants: Vec<(String, String)>,
}

impl Ready {
    /// Makes the client's token.
    pub(super) fn of(cluster: &Cluster) -> Result<Self, Failure> {
        let access = &cluster.access;
        let order = TokenOrder {
            peer: Peer::Client { subject: "dev".into() },
            grants: vec![Grant::everything()],
            ttl_s: CLIENT_TTL_S,
        };
        let minted = auth::mint(&access.tenant_id, &access.tenant, &order, cluster.now_ms())
            .context("failed to make the client's token")?;
        Ok(Self {
            http: cluster.listens().map(|at| format!("http://{}", reached(at))).collect(),
            ws: cluster
                .listens()
                .map(|at| format!("ws://{}{}", reached(at), riser_client::endpoint::WS_PATH))
                .collect(),
            admin: cluster.admins().map(|at| format!("http://{}", reached(at))).collect(),
            api_key: access.api_key.clone(),
            client_token: minted.token,
            signing_key: access.signing_key.clone(),
            control: format!("http://{}", reached(cluster.plane.at)),
            control_credential: cluster.plane.credential.clone(),
            tenants: [access, &cluster.neighbour].map(|of| (of.tenant_id.to_string(), of.api_key.clone())).into(),
        })
    }

    fn json(&self) -> String {
        let tenant = |(tenant, key): &(String, String)| json!({ "tenant": tenant, "api_key": key });
        let tenants: Vec<_> = self.tenants.iter().map(tenant).collect();
        let object = json!({
            "ws": self.ws,
            "http": self.http,
            "admin": self.admin,
            "tenant": TENANT,
            "api_key": self.api_key,
            "client_token": self.client_token,
            "signing_key": self.signing_key,
            "control": self.control,
            "control_credential": self.control_credential,
            "tenants": tenants,
        });
        format!("{object}\n")
    }

    /// Writes the file whole or not at all, for its owner alone: it holds keys.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = || format!("failed to write {}", path.display());
        let (mut file, unnamed) = beside(path).with_context(failed)?;
        let written = file.write_all(self.json().as_bytes()).and_then(|()| fs::rename(&unnamed, path));
        if written.is_err() {
            // What is left of it holds keys.
            let _ = fs::remove_file(&unnamed);
        }
        Ok(written.with_context(failed)?)
    }

    /// What stands on the terminal.
    pub(super) fn banner(&self, args: &Dev) -> String {
        let mut text = format!(
            "riser {}: {} edge(s) and {} simulated flat(s) in this process. Nothing is kept when it ends.\n\n",
            env!("CARGO_PKG_VERSION"),
            args.edges,
            args.flats
        );
        for (i, (http, admin)) in self.http.iter().zip(&self.admin).enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  edge {i}   {http}   admin {admin}");
        }
        let _ = writeln!(text, "  control  {}   credential {}\n", self.control, self.control_credential);
        for (tenant, key) in &self.tenants {
            let _ = writeln!(text, "  tenant {tenant:<9}  API key {key}");
        }
        let _ = writeln!(text, "\nIn a second terminal:\n");
        let url = self.http.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "  export RISER_URL={url} RISER_KEY={}", self.api_key);
        text.push_str("  cargo run --release -- watch '*/*'\n");
        if args.flats > 0 {
            text.push_str("  cargo run --release -- send b1/f0101 hall/lock unlock\n");
        }
        text.push_str("  cargo run --release -- token gateway b1/mine\n\nThe other tenant sees nothing of it:\n\n");
        let neighbour = self.tenants.last().map(|(_, key)| key.as_str()).unwrap_or_default();
        let _ = writeln!(text, "  RISER_KEY={neighbour} cargo run --release -- watch '*/*'\n\nTenants and keys:\n");
        let _ = writeln!(
            text,
            "  export RISER_CONTROL_URL={} RISER_CONTROL_CREDENTIAL={}",
            self.control, self.control_credential
        );
        text.push_str("  cargo run --release -- tenant list\n\nCtrl-C ends it.\n");
        text
    }
}

/// How this machine reaches a listener: one on all addresses is on the loopback too.
fn reached(at: SocketAddr) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), at.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), at.port()),
        _ => at,
    }
}

/// A new file next to `path`, and its name.
fn beside(path: &Path) -> io::Result<(File, std::path::PathBuf)> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:08x}", fastrand::u32(..)));
        let unnamed = path.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed) {
            Ok(file) => return Ok((file, unnamed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
