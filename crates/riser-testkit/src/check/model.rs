//! What the rules share: names, and which patterns and filters name what. Written from protocol.md, apart from the
//! edge's own.

/// A gateway: its tenant and its address.
pub(super) type Key = (String, String);

/// A found contradiction.
pub(super) type Found = Vec<(super::Rule, String)>;

/// Whether a pattern names an address.
pub(super) fn names(pattern: &str, address: &str) -> bool {
    pattern == "*/*"
        || pattern == address
        || pattern.strip_suffix('*').is_some_and(|building| address.starts_with(building))
}

/// Whether a path passes a filter, which is empty for all.
pub(super) fn passes(filter: &[String], path: &str) -> bool {
    filter.is_empty() || filter.iter().any(|pattern| passes_one(pattern, path))
}

fn passes_one(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    for (i, level) in pattern.iter().enumerate() {
        match (*level, path.get(i)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == *other => {}
            _ => return false,
        }
    }
    pattern.len() == path.len()
}

/// Whether a path is one of these or lies below one.
pub(super) fn covered(list: &[String], path: &str) -> bool {
    list.iter()
        .any(|above| path.strip_prefix(above.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Stretches of time in which something was the case, in milliseconds. Those that overlap are counted.
#[derive(Default)]
pub(super) struct Spans {
    over: Vec<(u64, u64)>,
    open: Vec<u64>,
}

impl Spans {
    pub(super) fn begin(&mut self, at: u64) {
        self.open.push(at);
    }

    /// Ends one of those that began.
    pub(super) fn end(&mut self, at: u64) {
        if let Some(from) = self.open.pop() {
            self.over.push((from, at));
        }
    }

    /// Whether it was the case at some moment between these.
    pub(super) fn touch(&self, from: u64, to: u64) -> bool {
        self.over.iter().any(|(begin, end)| *begin <= to && *end >= from) || self.open.iter().any(|begin| *begin <= to)
    }
}
