//! Where a run is: a bar on a terminal, else a line for each step, both on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two turns of the bar's wheel.
const TURN: Duration = Duration::from_millis(200);

/// How far a run is.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// For so many steps.
    pub(crate) fn new(steps: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(steps);
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {elapsed_precise} [{bar:30}] {pos}/{len} {prefix} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TURN);
        Self(Some(bar))
    }

    /// A step begins.
    pub(crate) fn step(&self, name: &str) {
        match &self.0 {
            Some(bar) => {
                bar.inc(1);
                bar.set_prefix(name.to_owned());
                bar.set_message("");
            }
            None => say(name),
        }
    }

    /// What happens within a step. Not worth a line of its own.
    pub(crate) fn note(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Says something on standard error. Whoever closed it does not want to know.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
