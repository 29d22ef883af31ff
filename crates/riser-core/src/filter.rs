//! Path filters: which paths a subscription or a grant is about, with `+` for one level and a final `#`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::{PATH_BYTES, PATH_LEVELS, Path, is_level};

/// Most patterns in one filter.
pub const FILTER_PATTERNS: usize = 64;

/// Why a path filter was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A pattern that is none.
    #[error("not a path pattern: levels joined by /, + for one level, # only as the last")]
    Pattern,
    /// Too many.
    #[error("more than 64 path patterns")]
    TooMany,
    /// An empty list would let nothing through.
    #[error("an empty list of path patterns; leave the field out to get all paths")]
    Empty,
}

/// A set of path patterns. Two filters that let the same patterns through are equal, whatever their order, so
/// that listeners who ask for the same thing share one encoded frame.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PathFilter(Option<Vec<Box<str>>>);

impl PathFilter {
    /// Lets every path through.
    pub const ALL: PathFilter = PathFilter(None);

    /// Parses patterns; `["#"]` is the same as [`PathFilter::ALL`].
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        if patterns.is_empty() {
            return Err(FilterError::Empty);
        }
        if patterns.len() > FILTER_PATTERNS {
            return Err(FilterError::TooMany);
        }
        let mut list = Vec::with_capacity(patterns.len());
        for pattern in patterns.iter().map(AsRef::as_ref) {
            if !is_pattern(pattern) {
                return Err(FilterError::Pattern);
            }
            list.push(Box::from(pattern));
        }
        Ok(Self::normal(list))
    }

    fn normal(mut list: Vec<Box<str>>) -> Self {
        list.sort_unstable();
        list.dedup();
        if list.iter().any(|p| &**p == "#") { Self::ALL } else { Self(Some(list)) }
    }

    /// Whether it lets every path through.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the path passes.
    pub fn matches(&self, path: &Path) -> bool {
        self.0.as_ref().is_none_or(|list| list.iter().any(|pattern| pattern_matches(pattern, path)))
    }

    /// What passes either of them.
    #[must_use]
    pub fn union(&self, other: &PathFilter) -> PathFilter {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Self::normal(a.iter().chain(b).cloned().collect()),
            _ => Self::ALL,
        }
    }

    /// Whether everything that `other` lets through passes this filter too.
    pub fn contains(&self, other: &PathFilter) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.iter().all(|t| mine.iter().any(|m| pattern_contains(m, t))),
        }
    }
}

fn is_pattern(pattern: &str) -> bool {
    let levels = pattern.split('/').count();
    pattern.len() <= PATH_BYTES
        && levels <= PATH_LEVELS
        && pattern
            .split('/')
            .enumerate()
            .all(|(i, level)| level == "+" || is_level(level) || (level == "#" && i + 1 == levels))
}

fn pattern_matches(pattern: &str, path: &Path) -> bool {
    let mut path = path.levels();
    for level in pattern.split('/') {
        match (level, path.next()) {
            // As in MQTT, `a/#` is about `a` itself too.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    path.next().is_none()
}

fn pattern_contains(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('/').peekable();
    for level in outer.split('/') {
        match (level, inner.next()) {
            ("#", _) => return true,
            (_, Some("#") | None) => return false,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

impl Serialize for PathFilter {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(list) => list.serialize(s),
            None => ["#"].serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for PathFilter {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list = Vec::<String>::deserialize(d)?;
        Self::parse(&list).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(patterns: &[&str]) -> PathFilter {
        PathFilter::parse(patterns).expect("a filter")
    }

    #[test]
    fn a_filter_lets_through_what_it_names() {
        let rows = [
            ("kitchen/#", "kitchen/light", true),
            ("kitchen/#", "kitchen/a/b", true),
            ("kitchen/#", "kitchen", true),
            ("kitchen/#", "kitchens", false),
            ("+/light", "hall/light", true),
            ("+/light", "hall/a/light", false),
            ("+", "hall", true),
            ("+", "hall/lock", false),
            ("hall/lock", "hall/lock", true),
            ("hall/lock", "hall/lock/state", false),
            ("#", "anything/at/all", true),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(f(&[pattern]).matches(&path.parse().expect("a path")), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", "a/#/b", "a//b", "#/a", "a\n", "1/2/3/4/5/6/7/8/#"] {
            assert_eq!(PathFilter::parse(&[bad]), Err(FilterError::Pattern), "{bad:?}");
        }
        assert_eq!(PathFilter::parse::<&str>(&[]), Err(FilterError::Empty));
        assert_eq!(PathFilter::parse(&vec!["a"; 65]), Err(FilterError::TooMany));
    }

    #[test]
    fn containment_is_never_wider_than_matching() {
        let rows = [
            (vec!["a/#"], vec!["a/b"], true),
            (vec!["a/#"], vec!["a/+/#"], true),
            (vec!["a/+"], vec!["a/#"], false),
            (vec!["a/+"], vec!["a/b"], true),
            (vec!["a/b"], vec!["a/+"], false),
            (vec!["#"], vec!["x"], true),
            (vec!["a/#", "b"], vec!["b", "a"], true),
            (vec!["a/#"], vec!["#"], false),
            (vec!["+/#"], vec!["#"], false),
        ];
        for (outer, inner, expected) in rows {
            assert_eq!(f(&outer).contains(&f(&inner)), expected, "{outer:?} contains {inner:?}");
        }
    }

    #[test]
    fn order_and_repetition_make_no_difference() {
        assert_eq!(f(&["b", "a", "a"]), f(&["a", "b"]));
        assert_eq!(f(&["a"]).union(&f(&["b"])), f(&["b", "a"]));
        assert!(f(&["a", "#"]).is_all());
        assert!(f(&["a"]).union(&PathFilter::ALL).is_all());
    }
}
