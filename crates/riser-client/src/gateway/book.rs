//! What a gateway knows of its flat, and the frames that tell it. Pure.

use riser_core::change::Set;
use riser_core::limits::Limits;
use riser_core::state::State;
use riser_core::{Change, Json, Path};
use serde_json::json;

use super::Refused;

/// Bytes of a `state` frame that stand around its values.
const AROUND: usize = 128;
/// Bytes around one value: quotes, colon, comma; a path is escaped as little as JSON demands, at most twice as long.
const BESIDE: usize = 4;

/// The whole state of one flat.
#[derive(Debug)]
pub(super) struct Book {
    state: State,
    limits: Limits,
}

impl Book {
    pub(super) fn new(limits: Limits) -> Self {
        Self { state: State::default(), limits }
    }

    /// The limits of the session that began.
    pub(super) fn limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Notes a change, when the broker would take it.
    pub(super) fn note(&mut self, change: &Change) -> Result<(), Refused> {
        let too_many = |error: String| Refused::TooMany(error);
        self.state.admits(change, &self.limits).map_err(|error| too_many(error.to_string()))?;
        let room = self.limits.text_bytes.saturating_sub(AROUND);
        if let Some((path, _)) = change.set.iter().find(|(path, set)| weight(path, set.value.as_ref()) > room) {
            return Err(too_many(format!("the value of {path} is over {room} bytes")));
        }
        if let Some(devices) = &change.devices
            && describe(devices, 0).len() > self.limits.text_bytes
        {
            return Err(too_many(format!("the description is over {} bytes", self.limits.text_bytes)));
        }
        self.state.apply(change);
        Ok(())
    }

    /// The frames of one change. The last of them carries the number.
    pub(super) fn frames(&self, change: &Change, n: u64) -> Vec<String> {
        if let Some(devices) = &change.devices {
            return vec![describe(devices, n)];
        }
        if let Some(mark) = change.marks.first() {
            return vec![json!({"t": "device", "n": n, "path": mark.path, "up": mark.up}).to_string()];
        }
        self.parts(change.set.iter().map(|(path, set)| (path, value(set))), change.full, n)
    }

    /// The frames that tell everything, each with the number that it is answered with, if it is: what the devices
    /// are, the full state, and which of the values are stale.
    pub(super) fn everything(&self, mut number: impl FnMut() -> u64) -> Vec<(Option<u64>, String)> {
        let mut frames = Vec::new();
        if let Some(devices) = &self.state.devices {
            let n = number();
            frames.push((Some(n), describe(devices, n)));
        }
        let n = number();
        let values = self.state.values.iter().map(|(path, value)| (path, Some(&value.value)));
        let parts = self.parts(values, true, n);
        let last = parts.len() - 1;
        frames.extend(parts.into_iter().enumerate().map(|(i, text)| ((i == last).then_some(n), text)));
        for path in self.stale() {
            let n = number();
            frames.push((Some(n), json!({"t": "device", "n": n, "path": path, "up": false}).to_string()));
        }
        frames
    }

    /// The fewest paths that stand, each with all below it, for the stale values: below a stale value nothing is
    /// fresh.
    fn stale(&self) -> Vec<&Path> {
        let mut tops: Vec<&Path> = Vec::new();
        for (path, _) in self.state.values.iter().filter(|(_, value)| value.stale) {
            if !tops.iter().any(|top| path.is_within(top)) {
                tops.push(path);
            }
        }
        tops
    }

    fn parts<'a>(&self, set: impl Iterator<Item = (&'a Path, Option<&'a Json>)>, full: bool, n: u64) -> Vec<String> {
        let room = self.limits.text_bytes.saturating_sub(AROUND);
        let mut bodies = vec![String::new()];
        for (path, value) in set {
            let entry = format!("{}:{}", Json::of(path).as_str(), value.map_or("null", Json::as_str));
            match bodies.last_mut() {
                Some(body) if body.is_empty() => body.push_str(&entry),
                Some(body) if body.len() + 1 + entry.len() <= room => {
                    body.push(',');
                    body.push_str(&entry);
                }
                _ => bodies.push(entry),
            }
        }
        let last = bodies.len() - 1;
        let full = if full { r#","full":true"# } else { "" };
        let frame = |(i, body): (usize, String)| {
            let end = if i == last { format!(r#","n":{n}"#) } else { r#","more":true"#.to_owned() };
            format!(r#"{{"t":"state"{full}{end},"set":{{{body}}}}}"#)
        };
        bodies.into_iter().enumerate().map(frame).collect()
    }
}

fn weight(path: &Path, value: Option<&Json>) -> usize {
    path.as_str().len() * 2 + value.map_or(4, |json| json.as_str().len()) + BESIDE
}

fn value(set: &Set) -> Option<&Json> {
    set.value.as_ref()
}

fn describe(devices: &riser_core::Devices, n: u64) -> String {
    json!({"t": "describe", "n": n, "devices": devices}).to_string()
}

#[cfg(test)]
mod tests {
    use riser_core::Devices;
    use riser_core::frame::Inbound;

    use super::*;

    fn path(s: &str) -> Path {
        s.parse().expect("a path")
    }

    fn json(s: &str) -> Json {
        Json::parse(s).expect("JSON")
    }

    fn book(set: &[(&str, &str)]) -> Book {
        let mut book = Book::new(Limits::default());
        let set = set.iter().map(|(p, v)| (path(p), Some(json(v))));
        book.note(&Change::values(set, true)).expect("small enough");
        book
    }

    fn texts(book: &Book) -> Vec<String> {
        let mut n = 0;
        let frames = book.everything(|| {
            n += 1;
            n
        });
        frames.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn everything_is_the_description_then_the_state_then_what_is_stale() {
        let mut book = book(&[("k/l", "1"), ("k/t", "2"), ("m", "3")]);
        let devices: Devices = serde_json::from_str(r#"{"m":{"kind":"meter"}}"#).expect("devices");
        book.note(&Change::describe(devices)).expect("small enough");
        book.note(&Change::mark(path("k"), false)).expect("small enough");
        assert_eq!(
            texts(&book),
            [
                r#"{"devices":{"m":{"kind":"meter"}},"n":1,"t":"describe"}"#,
                r#"{"t":"state","full":true,"n":2,"set":{"k/l":1,"k/t":2,"m":3}}"#,
                r#"{"n":3,"path":"k/l","t":"device","up":false}"#,
                r#"{"n":4,"path":"k/t","t":"device","up":false}"#,
            ]
        );
    }

    #[test]
    fn a_flat_without_values_says_so() {
        assert_eq!(texts(&book(&[])), [r#"{"t":"state","full":true,"n":1,"set":{}}"#]);
    }

    #[test]
    fn a_large_state_is_sent_in_parts_that_the_broker_reads_whole() {
        let fat = format!("\"{}\"", "x".repeat(2_000));
        let names: Vec<String> = (0..100).map(|i| format!("room {i:03}/\"value\"")).collect();
        let set: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), fat.as_str())).collect();
        let texts = texts(&book(&set));
        assert!(texts.len() > 3, "{} parts", texts.len());
        let mut values = 0;
        for (i, text) in texts.iter().enumerate() {
            assert!(text.len() <= Limits::default().text_bytes, "{} bytes", text.len());
            let Ok(Inbound::State { n, set, full: true, more, .. }) = Inbound::parse(text) else { panic!("{text}") };
            let last = i + 1 == texts.len();
            assert_eq!((more, n.is_some()), (!last, last));
            values += set.len();
        }
        assert_eq!(values, 100);
    }

    #[test]
    fn what_the_broker_would_not_take_is_refused_and_forgotten() {
        let mut book = book(&[("a", "1")]);
        let fat = format!("\"{}\"", "x".repeat(65_536));
        let refused = book.note(&Change::values([(path("b"), Some(json(&fat)))], false));
        assert!(matches!(refused, Err(Refused::TooMany(_))), "{refused:?}");
        let many = (0..2_048).map(|i| (path(&format!("p{i}")), Some(json("1"))));
        let refused = book.note(&Change::values(many, false));
        assert_eq!(refused, Err(Refused::TooMany("more than 2048 paths".into())));
        assert_eq!(texts(&book), [r#"{"t":"state","full":true,"n":1,"set":{"a":1}}"#]);
    }

    #[test]
    fn a_change_is_one_frame_of_its_kind() {
        let book = book(&[]);
        let delete = Change::values([(path("a"), None), (path("b"), Some(json("[1]")))], false);
        assert_eq!(book.frames(&delete, 7), [r#"{"t":"state","n":7,"set":{"a":null,"b":[1]}}"#]);
        assert_eq!(book.frames(&Change::mark(path("a"), true), 8), [r#"{"n":8,"path":"a","t":"device","up":true}"#]);
    }
}
