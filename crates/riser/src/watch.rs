//! `riser watch`: what happens at the gateways that a pattern names, as a live table, as lines, or as frames.

mod lines;
mod table;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use riser_client::{Client, Config, End, Event, Subscription};
use riser_ops::Signals;
use riser_ops::visible::json_line;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::cli::{Output, Watch};
use crate::exit::{self, Failure};
use table::Table;

/// Between two drawings of the table: fast enough to seem live, slow enough for a terminal far away.
const REDRAW: Duration = Duration::from_millis(200);
/// How long a watch may last that is not ended: timers reach no further than this.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Shows events. Each answers whether anybody still looks.
enum Show {
    Table(Table),
    Lines,
    Frames,
}

/// Runs the command.
pub(crate) fn run(args: &Watch) -> Result<ExitCode, Failure> {
    let config = Config::new(args.cluster.url.clone(), args.cluster.credential()?)
        .agent(concat!("riser-watch/", env!("CARGO_PKG_VERSION")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(args, config))
}

async fn watch(args: &Watch, config: Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let ends = Instant::now() + args.time.unwrap_or(FOREVER).min(FOREVER);
    let mut client = tokio::select! {
        connected = Client::connect(config) => connected?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let subscription = Subscription::all(args.pattern.clone());
    client.subscribe(subscription).await.map_err(|error| Failure::Other(error.into()))?;
    let mut show = match args.output {
        Output::Json => Show::Frames,
        Output::Table if io::stdout().is_terminal() => Show::Table(Table::open(args.pattern.to_string())?),
        Output::Table => Show::Lines,
    };
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let done = loop {
        tokio::select! {
            _ = signals.next() => break Ok(ExitCode::SUCCESS),
            () = sleep_until(ends) => break Ok(ExitCode::SUCCESS),
            _ = redraw.tick(), if matches!(show, Show::Table(_)) => {
                if let Show::Table(table) = &mut show && !table.draw(client.view())? {
                    break Ok(ExitCode::SUCCESS);
                }
            }
            event = client.next() => match event {
                Some(Event::Ended(end)) => break Err(end.into()),
                Some(Event::Refused { code, message, .. }) => break Err(Failure::refused(&code, &message)),
                Some(event) => if !show.event(&client, event)? {
                    break Ok(ExitCode::SUCCESS);
                },
                None => break Err(End::Left.into()),
            }
        }
    };
    // The terminal is itself again before anything else is said on it.
    drop(show);
    client.close().await;
    done
}

impl Show {
    /// Shows an event. False when nobody reads the output any more.
    fn event(&mut self, client: &Client, event: Event) -> io::Result<bool> {
        if let Self::Table(table) = self {
            table.event(&event);
            return Ok(true);
        }
        match event {
            Event::Disconnected { end, back_in } => {
                exit::say(&format!("riser: {end}; again in {:.1} s", back_in.as_secs_f64()));
                Ok(true)
            }
            Event::Frame { text, update } => match self {
                // Peers' values are in it as they came, with whatever they hid in them.
                Self::Frames => exit::print(&format!("{}\n", json_line(&text))),
                Self::Lines => {
                    let text = update.map(|update| lines::of(client.view(), &update)).unwrap_or_default();
                    if text.is_empty() { Ok(true) } else { exit::print(&text) }
                }
                Self::Table(_) => Ok(true),
            },
            _ => Ok(true),
        }
    }
}
