//! `riser events`: what happens at the addresses that a pattern names, and what happened since a cursor.

use std::process::ExitCode;
use std::time::Duration;

use riser_client::frame::Happened;
use riser_client::{Client, Config, End, Event, Subscription, Update};
use riser_ops::visible::json_line;
use riser_ops::{Signals, visible};
use tokio::time::{Instant, sleep_until};

use crate::cli::{Events, Format};
use crate::clock;
use crate::exit::{self, Failure};

/// How long it may last when it is not ended: timers reach no further than this.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Runs the command.
pub(crate) fn run(args: &Events) -> Result<ExitCode, Failure> {
    let config = Config::new(args.cluster.url.clone(), args.cluster.credential()?)
        .agent(concat!("riser-events/", env!("CARGO_PKG_VERSION")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(events(args, config))
}

async fn events(args: &Events, config: Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let ends = Instant::now() + args.time.unwrap_or(FOREVER).min(FOREVER);
    let mut client = tokio::select! {
        connected = Client::connect(config) => connected?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let subscription = Subscription::events(args.pattern.clone(), args.since.clone());
    client.subscribe(subscription).await.map_err(|error| Failure::Other(error.into()))?;
    let mut shown = args.since.clone();
    let done = loop {
        tokio::select! {
            _ = signals.next() => break Ok(ExitCode::SUCCESS),
            () = sleep_until(ends) => break Ok(ExitCode::SUCCESS),
            event = client.next() => match event {
                Some(Event::Ended(end)) => break Err(end.into()),
                Some(Event::Refused { code, message, .. }) => break Err(Failure::refused(&code, &message)),
                Some(Event::Disconnected { end, back_in }) => {
                    exit::say(&format!("riser: {end}; again in {:.1} s", back_in.as_secs_f64()));
                }
                Some(Event::Frame { text, update }) => {
                    if !show(args.output, &text, update.as_ref())? {
                        break Ok(ExitCode::SUCCESS);
                    }
                    match update {
                        Some(Update::Event(event)) => shown = Some(event.cursor),
                        Some(Update::Synced { cursor: Some(cursor), .. }) => shown = Some(cursor),
                        _ => {}
                    }
                }
                Some(_) => {}
                None => break Err(End::Left.into()),
            }
        }
    };
    client.close().await;
    if let (Format::Text, Ok(_), Some(cursor)) = (args.output, &done, shown) {
        exit::say(&format!("riser: what follows is shown by --since {}", visible(&cursor)));
    }
    done
}

/// Shows a frame. False when nobody reads the output any more.
fn show(output: Format, text: &str, update: Option<&Update>) -> std::io::Result<bool> {
    match (output, update) {
        (Format::Json, _) => exit::print(&format!("{}\n", json_line(text))),
        (Format::Text, Some(Update::Event(event))) => exit::print(&line(event)),
        (Format::Text, Some(Update::Gap { .. })) => {
            exit::say("riser: some events before the next one are not kept any more");
            Ok(true)
        }
        (Format::Text, _) => Ok(true),
    }
}

/// An event for people: when, where, what, and from whom.
fn line(event: &Happened) -> String {
    let path = event.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
    let data = event.data.as_ref().map(|data| format!(" {}", json_line(data.as_str()))).unwrap_or_default();
    let (at, of, kind) = (clock::rfc3339(event.at_ms), &event.of, visible(event.kind.as_str()));
    format!("{at} {of}{path} {kind}{data} ({})\n", visible(&event.from))
}

#[cfg(test)]
mod tests {
    use riser_client::Received;

    use super::*;

    #[test]
    fn an_event_is_a_line_that_a_peer_cannot_break() {
        let frame = "{\"t\":\"event\",\"of\":\"b/g\",\"cursor\":\"1.2\",\"id\":\"i\",\"path\":\"hall/bell\",\"type\":\"ring\",\
            \"data\":[\"\u{202e}\"],\"from\":\"client:\u{7f}\",\"at_ms\":1760000000123}";
        let Ok(Received::Event(event)) = Received::parse(frame) else { panic!("not an event") };
        let expected = "2025-10-09T08:53:20.123Z b/g hall/bell ring [\"\\u202e\"] (client:\\u007f)\n";
        assert_eq!(line(&event), expected);
    }
}
