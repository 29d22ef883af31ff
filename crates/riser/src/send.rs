//! `riser send`: has a gateway do something, and waits for what becomes of it.

use std::process::ExitCode;

use riser_client::{Client, Command, Config, End, Event, Order, Outcome, Refused};
use riser_core::Json;
use riser_core::command::Status;
use riser_ops::visible::json_line;
use riser_ops::{Signals, visible};
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::{Format, Send};
use crate::exit::{self, CANCELLED, EXPIRED, FAILED, Failure, INTERRUPTED, OFFLINE, REJECTED, UNKNOWN};

/// Runs the command.
pub(crate) fn run(args: &Send) -> Result<ExitCode, Failure> {
    let config = Config::new(args.cluster.url.clone(), args.cluster.credential()?)
        .agent(concat!("riser-send/", env!("CARGO_PKG_VERSION")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(send(args, config))
}

async fn send(args: &Send, config: Config) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut signals = Signals::listen()?;
    let mut client = tokio::select! {
        connected = Client::connect(config) => connected?,
        // Nothing was sent yet, and nothing is.
        _ = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let order = Order {
        args: args.args.clone(),
        deadline: args.deadline,
        hold: args.hold,
        key: args.command_key.as_ref().map(|key| key.as_str().to_owned()),
        ..Order::new(args.to.clone(), args.path.clone(), args.action.as_str())
    };
    let mut command = client.command(order).await?;
    let ended = outcome(&mut client, &mut command, &mut signals, began).await;
    client.close().await;
    ended.and_then(|ended| ended.show(args))
}

/// What a command came to.
enum Ended {
    Decided(Box<Outcome>),
    /// Found here, without a word of the cluster.
    Here(Status),
    /// Somebody pressed Ctrl-C twice.
    Interrupted,
}

async fn outcome(
    client: &mut Client,
    command: &mut Command,
    signals: &mut Signals,
    began: Instant,
) -> Result<Ended, Failure> {
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            told = command.next() => match told {
                Ok(outcome) if outcome.step.is_final => return Ok(Ended::Decided(Box::new(outcome))),
                Ok(outcome) => {
                    exit::say(&format!("{:7.2} s  {}", began.elapsed().as_secs_f64(), words(&outcome)));
                }
                Err(Refused::Unsent) => {
                    return Ok(Ended::Here(if cancelled { Status::Cancelled } else { Status::Expired }));
                }
                Err(Refused::NoOutcome) => return Ok(Ended::Here(Status::Unknown)),
                // The session ended for good: the client says why.
                Err(Refused::Ended) => return Err(ended(client).await.into()),
                Err(refused) => return Err(refused.into()),
            },
            _ = signals.next() => {
                if cancelled {
                    return Ok(Ended::Interrupted);
                }
                cancelled = true;
                exit::say("riser: cancelling; Ctrl-C again does not wait for the outcome");
                command.cancel().await?;
            }
            event = client.next() => match event {
                Some(Event::Disconnected { end, back_in }) => {
                    exit::say(&format!("riser: {end}; again in {:.1} s", back_in.as_secs_f64()));
                }
                Some(Event::Ended(end)) => return Err(end.into()),
                Some(_) => {}
                None => return Err(End::Left.into()),
            }
        }
    }
}

/// Why a session that has ended for good did.
async fn ended(client: &mut Client) -> End {
    while let Some(event) = client.next().await {
        if let Event::Ended(end) = event {
            return end;
        }
    }
    End::Left
}

impl Ended {
    /// Prints the final outcome, and gives its exit code.
    fn show(self, args: &Send) -> Result<ExitCode, Failure> {
        #[derive(Serialize)]
        struct Here<'a> {
            t: &'a str,
            of: &'a riser_core::Address,
            status: Status,
            #[serde(rename = "final")]
            is_final: bool,
        }
        let (status, text, json) = match &self {
            Self::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
            Self::Decided(outcome) => (outcome.step.status, words(outcome), Json::of(outcome)),
            Self::Here(status) => {
                let here = Here { t: "outcome", of: &args.to, status: *status, is_final: true };
                (*status, status.as_str().to_owned(), Json::of(&here))
            }
        };
        let line = match args.output {
            Format::Text => text,
            Format::Json => json_line(json.as_str()).into_owned(),
        };
        exit::print(&format!("{line}\n"))?;
        Ok(code(status))
    }
}

/// An outcome for people: its status, code and data.
fn words(outcome: &Outcome) -> String {
    let step = &outcome.step;
    let code = step.code.as_ref().map(|code| format!(" {}", visible(code.as_str()))).unwrap_or_default();
    let data = step.data.as_ref().map(|data| format!(" {}", json_line(data.as_str()))).unwrap_or_default();
    format!("{}{code}{data}", step.status.as_str())
}

fn code(status: Status) -> ExitCode {
    ExitCode::from(match status {
        Status::Succeeded => 0,
        Status::Rejected => REJECTED,
        Status::Offline => OFFLINE,
        Status::Expired => EXPIRED,
        Status::Unknown => UNKNOWN,
        Status::Cancelled => CANCELLED,
        // Others do not end a command.
        Status::Failed | Status::Held | Status::Sent | Status::Received | Status::Running => FAILED,
    })
}
