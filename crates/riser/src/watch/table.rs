//! A watch for people: a table that redraws itself in place and takes the whole terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use riser_client::view::Seen;
use riser_client::{Event, Update, View};
use riser_core::{Address, Path};
use riser_ops::visible::json_line;
use tokio::time::Instant;

use crate::exit;

/// How long a changed value stands out.
const FRESH: Duration = Duration::from_secs(2);
/// Most changed values that are remembered at a time; no terminal shows more.
const CHANGED: usize = 4_096;
/// The terminal's size when it does not tell: columns and rows.
const USUAL: (u16, u16) = (80, 24);
/// Another screen, without wrapping and cursor, and the way back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?7l\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?7h\u{1b}[?1049l";

/// The table and the terminal that it stands on, which is given back when it goes.
#[derive(Debug)]
pub(super) struct Table {
    page: Page,
    /// The cluster's clock at a moment of ours.
    clock: (u64, Instant),
}

/// What the table shows beside the gateways themselves.
#[derive(Debug)]
struct Page {
    pattern: String,
    changed: BTreeMap<Address, BTreeMap<Path, Instant>>,
    /// Why there is no session now.
    trouble: Option<String>,
}

/// One run of characters that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
}

impl Table {
    /// Takes the terminal.
    pub(super) fn open(pattern: String) -> io::Result<Self> {
        exit::print(ENTER)?;
        let page = Page { pattern, changed: BTreeMap::new(), trouble: None };
        Ok(Self { page, clock: (0, Instant::now()) })
    }

    /// Notes what an event changes.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Connected(welcome) => {
                self.clock = (welcome.now_ms, Instant::now());
                self.page.trouble = None;
            }
            Event::Disconnected { end, back_in } => {
                self.page.trouble = Some(format!("{end}; again in {:.1} s", back_in.as_secs_f64()));
            }
            Event::Frame { update: Some(Update::State { of, set }), .. } => self.page.note(of, set),
            _ => {}
        }
    }

    /// Draws everything anew. False when the terminal is gone.
    pub(super) fn draw(&mut self, view: &View) -> io::Result<bool> {
        let size = terminal_size::terminal_size().map_or(USUAL, |(width, height)| (width.0, height.0));
        let (clock_ms, at) = self.clock;
        let now_ms = clock_ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut text = String::from("\u{1b}[H");
        for (i, line) in self.page.lines(view, now_ms, size).into_iter().enumerate() {
            text.push_str(if i == 0 { "" } else { "\r\n" });
            text.push_str(&line);
            text.push_str("\u{1b}[K");
        }
        text.push_str("\u{1b}[J");
        exit::print(&text)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = exit::print(LEAVE);
    }
}

impl Page {
    fn note(&mut self, of: &Address, set: &[Path]) {
        let now = Instant::now();
        self.changed.retain(|_, paths| {
            paths.retain(|_, at| now - *at < FRESH);
            !paths.is_empty()
        });
        let room = CHANGED.saturating_sub(self.changed.values().map(BTreeMap::len).sum());
        if room > 0 {
            self.changed.entry(of.clone()).or_default().extend(set.iter().take(room).map(|path| (path.clone(), now)));
        }
    }

    /// The lines of the table, each with its colours, none wider than the terminal, and no more than fit.
    fn lines(&self, view: &View, now_ms: u64, (width, height): (u16, u16)) -> Vec<String> {
        let (width, height) = (usize::from(width.max(20)), usize::from(height.max(4)));
        let online = view.iter().filter(|(_, seen)| seen.online).count();
        let head = match &self.trouble {
            None => vec![(Style::Bold, format!("{}  {online} of {} online", self.pattern, view.len()))],
            Some(trouble) => vec![(Style::Bad, format!("{}  {trouble}", self.pattern))],
        };
        let mut lines = vec![styled(&head, width)];
        let names = view.iter().map(|(of, _)| of.to_string().len()).max().unwrap_or(0).min(width / 3);
        // The head, and the line that says how many more there are.
        let fits = if view.len() < height { view.len() } else { height - 2 };
        for (of, seen) in view.iter().take(fits) {
            lines.push(styled(&self.row(of, seen, now_ms, names), width));
        }
        if fits < view.len() {
            lines.push(styled(&[(Style::Dim, format!("+{} more", view.len() - fits))], width));
        }
        lines
    }

    fn row(&self, of: &Address, seen: &Seen, now_ms: u64, names: usize) -> Vec<(Style, String)> {
        let since = age(now_ms.saturating_sub(seen.since_ms));
        let (mark, word) = if seen.online { (Style::Good, "online") } else { (Style::Bad, "offline") };
        let mut row = vec![
            (mark, if seen.online { "● " } else { "○ " }.to_owned()),
            (Style::Plain, format!("{:names$} ", of.to_string())),
            (Style::Dim, format!("{word:7} {since:>4} ")),
        ];
        let now = Instant::now();
        let changed = |path: &Path| {
            self.changed.get(of).and_then(|paths| paths.get(path)).is_some_and(|at| now.duration_since(*at) < FRESH)
        };
        // What changed stands first, for the rest may not fit.
        let (fresh, rest): (Vec<_>, Vec<_>) = seen.values.iter().partition(|(path, _)| changed(path));
        for (path, value) in fresh.into_iter().chain(rest) {
            let style = match (changed(path), value.stale) {
                (true, _) => Style::Bold,
                (false, true) => Style::Dim,
                (false, false) => Style::Plain,
            };
            let stale = if value.stale { "?" } else { "" };
            row.push((style, format!(" {path}={}{stale}", short(json_line(value.value.as_str()).as_ref()))));
        }
        row
    }
}

/// A value without the quotes and braces that say nothing to people.
fn short(json: &str) -> String {
    let inner = json.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(json);
    inner.replace('"', "")
}

/// How long ago something was: `12s`, `5m`, `3h`, `9d`.
fn age(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..86_400 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// One line of at most `width` characters.
fn styled(runs: &[(Style, String)], width: usize) -> String {
    let mut line = String::new();
    let mut left = width;
    for (style, text) in runs {
        if left == 0 {
            break;
        }
        let text: String = text.chars().take(left).collect();
        left -= text.chars().count();
        let code = match style {
            Style::Plain => "0",
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Good => "32",
            Style::Bad => "31",
        };
        // Writing to a string cannot fail.
        let _ = write!(line, "\u{1b}[{code}m{text}\u{1b}[0m");
    }
    line
}

#[cfg(test)]
mod tests {
    use riser_client::Received;

    use super::*;

    fn view(gateways: usize) -> View {
        let mut view = View::default();
        for i in 0..gateways {
            let frame = format!(
                r#"{{"t":"snapshot","of":"b/f{i:03}","online":{},"since_ms":1000,"epoch":7,"rev":2,"at_ms":9,
                    "state":{{"a/light":{{"on":true}},"z":"\u001b[2J\u202e"}},"stale":[]}}"#,
                i % 2 == 0
            );
            view.apply(Received::parse(&frame).expect("a frame"));
        }
        view
    }

    fn page() -> Page {
        Page { pattern: "b/*".into(), changed: BTreeMap::new(), trouble: None }
    }

    /// A line as it is seen: without the colours that this table puts in, and nothing else left out.
    fn seen(line: &str) -> String {
        let mut plain = line.to_owned();
        for code in ["0", "1", "2", "31", "32"] {
            plain = plain.replace(&format!("\u{1b}[{code}m"), "");
        }
        plain
    }

    #[test]
    fn a_row_tells_what_a_gateway_is_like() {
        let lines = page().lines(&view(2), 66_000, (120, 24));
        assert_eq!(seen(&lines[0]), "b/*  1 of 2 online");
        assert_eq!(seen(&lines[1]), r"● b/f000 online    1m  a/light=on:true z=\u001b[2J\u202e");
        assert_eq!(seen(&lines[2]), r"○ b/f001 offline   1m  a/light=on:true? z=\u001b[2J\u202e?");
    }

    #[test]
    fn the_table_fits_into_the_terminal() {
        for (gateways, height, rows, more) in
            [(3, 4, 4, false), (4, 4, 4, true), (500, 24, 24, true), (0, 24, 1, false)]
        {
            let lines = page().lines(&view(gateways), 66_000, (40, height));
            assert_eq!(lines.len(), rows, "{gateways} gateways in {height} rows");
            assert_eq!(lines.last().is_some_and(|line| seen(line).contains("more")), more, "{gateways} gateways");
            for line in lines {
                let plain = seen(&line);
                assert!(plain.chars().count() <= 40 && !plain.chars().any(char::is_control), "{plain:?}");
            }
        }
        let lines = page().lines(&view(500), 66_000, (40, 24));
        assert_eq!(seen(&lines[23]), "+478 more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_stands_first_for_a_while() {
        let (mut page, view) = (page(), view(1));
        let of: Address = "b/f000".parse().expect("an address");
        page.note(&of, &["z".parse().expect("a path")]);
        assert!(seen(&page.lines(&view, 66_000, (120, 24))[1]).contains("z=\\u001b[2J\\u202e a/light"));
        tokio::time::advance(FRESH).await;
        assert!(seen(&page.lines(&view, 66_000, (120, 24))[1]).contains("a/light=on:true z"));
    }

    #[test]
    fn ages_are_short() {
        let rows = [(0, "0s"), (59_999, "59s"), (60_000, "1m"), (3_600_000, "1h"), (90_000_000, "1d")];
        for (ms, text) in rows {
            assert_eq!(age(ms), text);
        }
    }
}
