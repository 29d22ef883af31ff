//! How the program ends: one line on standard error, a code for each outcome of a command, and those of sysexits.h.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use riser_client::{End, Refused};
use riser_ops::visible;

/// The gateway tried, and it did not work; or anything else went wrong here.
pub(crate) const FAILED: u8 = 1;
/// The gateway or the cluster does not do it.
pub(crate) const REJECTED: u8 = 3;
/// The gateway is not connected.
pub(crate) const OFFLINE: u8 = 4;
/// The deadline passed before it was sent.
pub(crate) const EXPIRED: u8 = 5;
/// It may or may not have been done.
pub(crate) const UNKNOWN: u8 = 6;
/// It is not done because somebody wanted that.
pub(crate) const CANCELLED: u8 = 7;
/// Bad usage (`EX_USAGE`).
const USAGE: u8 = 64;
/// What is needed cannot be reached or had (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// The credential does not allow it (`EX_NOPERM`).
const DENIED: u8 = 77;
/// Ended by Ctrl-C before it was done, as a shell shows it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why the program did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked in a way that it does not understand.
    Usage(String),
    /// A cluster or a port cannot be had.
    Unavailable(String),
    /// The credential does not allow it.
    Denied(String),
    /// The cluster does not do it.
    Rejected(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// Says it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Usage(text) => (USAGE, text),
            Self::Unavailable(text) => (UNAVAILABLE, text),
            Self::Denied(text) => (DENIED, text),
            Self::Rejected(text) => (REJECTED, text),
            Self::Other(error) => (FAILED, format!("{error:#}")),
        };
        // Without standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "riser: {text}");
        ExitCode::from(code)
    }
}

impl Failure {
    /// A refusal of the cluster.
    pub(crate) fn refused(code: &str, message: &str) -> Self {
        let text = format!("{}: {}", visible(code), visible(message));
        match code {
            "forbidden" => Self::Denied(text),
            "unavailable" | "rate_limited" | "internal" => Self::Unavailable(text),
            _ => Self::Rejected(text),
        }
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        let text = end.to_string();
        match end {
            End::Unreachable { .. }
            | End::Silent(_)
            | End::Broken(_)
            | End::Refused { status: 429 | 500..=599, .. }
            | End::Closed { code: 1000..=1015 | 4000..=4499, .. } => Self::Unavailable(text),
            End::Refused { status: 401 | 403, .. } | End::Closed { code: 4501 | 4502 | 4504, .. } => Self::Denied(text),
            End::Refused { .. } | End::Closed { .. } => Self::Rejected(text),
            End::Left => Self::Other(anyhow::Error::msg(text)),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::ByServer { code, message } => Self::refused(&code, &message),
            Refused::TooMany(text) => Self::Rejected(text),
            refused => Self::Unavailable(refused.to_string()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Prints what clap has to say: help and the version are no errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe behind `--help | head` is no failure.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

/// Says something on standard error. Whoever closed it does not want to know.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes to standard output and flushes it. False when nobody reads it any more: then there is nothing left to do,
/// and nothing wrong.
pub(crate) fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}
