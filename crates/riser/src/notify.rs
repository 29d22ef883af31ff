//! `riser notify`: tells an event at an address, and says where it is stored.

use std::process::ExitCode;
use std::time::Duration;

use riser_client::{Client, Config, End, Event, Notice, Refused};
use riser_ops::{Signals, visible};
use serde_json::json;
use tokio::time::timeout;

use crate::cli::{Format, Notify};
use crate::exit::{self, Failure, INTERRUPTED};

/// How long it may take to be stored. An edge answers within 5 s; a reconnect may fall between.
const STORED_WAIT: Duration = Duration::from_secs(30);

/// Runs the command.
pub(crate) fn run(args: &Notify) -> Result<ExitCode, Failure> {
    let config = Config::new(args.cluster.url.clone(), args.cluster.credential()?)
        .agent(concat!("riser-notify/", env!("CARGO_PKG_VERSION")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(notify(args, config))
}

async fn notify(args: &Notify, config: Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let mut notice = Notice { path: args.path.clone(), data: args.data.clone(), ..Notice::new(args.kind.as_str()) };
    if let Some(id) = &args.id {
        id.as_str().clone_into(&mut notice.id);
    }
    let telling = async {
        let mut client = Client::connect(config).await?;
        let cursor = tell(&mut client, args, &notice).await;
        client.close().await;
        cursor
    };
    let cursor = tokio::select! {
        told = timeout(STORED_WAIT, telling) => told.unwrap_or_else(|_| {
            Err(Failure::Unavailable("no answer in time; the same id again is the same event".into()))
        })?,
        _ = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let line = match args.output {
        Format::Text => visible(&cursor).into_owned(),
        Format::Json => json!({"id": notice.id, "cursor": cursor}).to_string(),
    };
    exit::print(&format!("{line}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn tell(client: &mut Client, args: &Notify, notice: &Notice) -> Result<String, Failure> {
    // An event borrows the client while it waits for its answer; what else comes has room until then.
    match client.event(&args.to, notice).await {
        Ok(cursor) => Ok(cursor.unwrap_or_default()),
        Err(Refused::Ended) => {
            while let Some(event) = client.next().await {
                if let Event::Ended(end) = event {
                    return Err(end.into());
                }
            }
            Err(End::Left.into())
        }
        Err(refused) => Err(refused.into()),
    }
}
