//! Paths: a device or property below a gateway, such as `kitchen/light`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::text_serde;

/// Longest path, in bytes.
pub const PATH_BYTES: usize = 256;
/// Most levels of a path.
pub const PATH_LEVELS: usize = 8;

/// Why a path was refused. It never repeats the path, which may hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a path: 1 to 8 levels joined by /, at most 256 bytes, no empty level, no + or #, no control characters")]
pub struct PathError;

/// A device or property below a gateway: 1 to 8 levels of UTF-8 joined by `/`, compared byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, outermost first.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The first level: the room or device that the rest belongs to.
    pub fn top(&self) -> Path {
        let top = self.0.split('/').next().unwrap_or_default();
        if top.len() == self.0.len() { self.clone() } else { Path(top.into()) }
    }

    /// The paths above this one, outermost first: `a` and `a/b` of `a/b/c`.
    pub fn above(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// Whether `self` is `above` or lies below it.
    pub fn is_within(&self, above: &Path) -> bool {
        self.0.strip_prefix(&*above.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Characters that change what a terminal or a log line shows without being seen.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

pub(crate) fn is_level(level: &str) -> bool {
    !level.is_empty() && level != "+" && level != "#" && !level.chars().any(is_hidden)
}

impl FromStr for Path {
    type Err = PathError;
    fn from_str(s: &str) -> Result<Self, PathError> {
        let good = s.len() <= PATH_BYTES && s.split('/').count() <= PATH_LEVELS && s.split('/').all(is_level);
        if good { Ok(Self(s.into())) } else { Err(PathError) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

text_serde!(Path);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_levels_of_visible_text() {
        for good in ["a", "kitchen/light", "Küche/Licht 1", "a.b/c:d", "1/2/3/4/5/6/7/8", "+1", "日本"] {
            assert!(good.parse::<Path>().is_ok(), "{good}");
        }
        let long = "x".repeat(257);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "+",
            "a/+",
            "#",
            "a/#/b",
            "1/2/3/4/5/6/7/8/9",
            "a\n",
            "a\u{202e}b",
            "\u{7f}",
            &long,
        ] {
            assert!(bad.parse::<Path>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn within_means_the_path_itself_and_all_below() {
        let p = |s: &str| s.parse::<Path>().expect("a path");
        assert!(p("a/b").is_within(&p("a")));
        assert!(p("a").is_within(&p("a")));
        assert!(!p("ab").is_within(&p("a")));
        assert!(!p("a").is_within(&p("a/b")));
        assert_eq!(p("a/b/c").top(), p("a"));
        assert_eq!(p("a/b/c").above().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(p("a").above().count(), 0);
    }
}
