//! Logs on standard error, one line per event, whatever peers put into their fields.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::visible::visible;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines: one JSON object.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("not a log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// It was begun before.
    #[error("failed to begin logging")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whether a text is a filter, without beginning anything.
pub fn check(filter: &str) -> Result<(), LogError> {
    EnvFilter::try_new(filter).map(drop).map_err(LogError::Filter)
}

/// Begins logging for the whole process. The filter reads as in `RUST_LOG`: `info`, `warn,riser_edge=debug`.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(LogError::Filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr).with_ansi(false);
    match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Twice)
}

/// Standard error, for whole lines.
#[derive(Debug, Clone, Copy)]
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Lines<io::Stderr>;
    fn make_writer(&'a self) -> Self::Writer {
        Lines(io::stderr())
    }
}

/// Writes each event as one line: the subscriber hands over an event in one piece, and only its last line feed is
/// one of its own.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = visible(text.strip_suffix('\n').unwrap_or(&text));
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, event: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(writer.clone()));
        match format {
            Format::Text => tracing::subscriber::with_default(lines.finish(), event),
            Format::Json => tracing::subscriber::with_default(lines.json().finish(), event),
        }
        let bytes = kept.0.lock().expect("nobody panics").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    const HOSTILE: &str = "x\r\n2026 INFO forged\u{1b}[2J\u{202e}\u{85}";

    #[test]
    fn a_field_of_a_peer_cannot_begin_a_line_or_move_the_cursor() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, || tracing::warn!(agent = %HOSTILE, reason = ?HOSTILE, "{HOSTILE}"));
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && text.contains("forged"), "{text:?}");
            let hidden = text.trim_end_matches('\n').chars().find(|&c| riser_core::path::is_hidden(c));
            assert_eq!(hidden, None, "{text:?}");
        }
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(matches!(init("riser=loud", Format::Text), Err(LogError::Filter(_))));
    }
}
