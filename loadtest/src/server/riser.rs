//! Starts `riser dev`, without simulated flats.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::time::{Duration, Instant, sleep};

use super::{Folder, Runs, Server};
use crate::process::Owned;
use crate::worker::order::Dialect;

/// How long it may take to serve.
const START: Duration = Duration::from_secs(30);
/// Between two looks at whether it serves.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn start(program: &Path, edges: u16) -> Result<Server> {
    let files = Folder::new()?;
    let ready = files.0.join("ready.json");
    let mut command = Command::new(program);
    command.args(["dev", "--flats", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--edges"]);
    command.arg(edges.to_string()).arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Owned::start(&mut command)?;
    let until = Instant::now() + START;
    // The file appears whole.
    while !ready.exists() {
        if process.has_ended() {
            bail!("riser dev has ended before it served");
        }
        if Instant::now() > until {
            bail!("riser dev does not serve within {} s", START.as_secs());
        }
        sleep(LOOK).await;
    }
    let text = std::fs::read(&ready).with_context(|| format!("failed to read {}", ready.display()))?;
    let told: serde_json::Value = serde_json::from_slice(&text).context("the ready file is no JSON")?;
    let word = |of: &str| -> Result<String> {
        Ok(told[of].as_str().with_context(|| format!("the ready file names no {of}"))?.to_owned())
    };
    Ok(Server {
        runs: Runs::One(process),
        at: addresses(&told["http"])?,
        dialect: Dialect::Riser { tenant: word("tenant")?, kid: "dev-1".into(), key: word("signing_key")? },
        other_tenant: None,
        admin: addresses(&told["admin"])?,
        key: word("api_key")?,
        _files: Some(files),
    })
}

fn addresses(urls: &serde_json::Value) -> Result<Vec<SocketAddr>> {
    let urls = urls.as_array().context("the ready file names no URLs")?;
    let address = |url: &serde_json::Value| {
        let url = url.as_str().and_then(|url| url.strip_prefix("http://")).context("a URL that is not http")?;
        url.parse().context("a URL without an address and a port")
    };
    urls.iter().map(address).collect()
}
