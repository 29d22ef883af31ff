//! Which servers are old enough to be refused or warned of.

use std::fmt;

/// The oldest server that is supported: what is asked of JetStream was not there before, or not reliable.
pub(super) const OLDEST: Version = Version(2, 12, 0);

/// The version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl Version {
    /// Reads `2.15.1`, `2.14.0-RC.1`; none when it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Whether advisories are known of it, on its WebSocket and MQTT listeners and on injected protocol lines.
    pub(super) fn has_advisories(self) -> bool {
        self < Self(2, 12, 12) || (Self(2, 13, 0)..Self(2, 14, 3)).contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = |text| Version::parse(text).expect("a version");
        assert_eq!(version("2.15.1").to_string(), "2.15.1");
        assert_eq!(version("2.14.0-RC.1"), version("2.14.0"));
        for old in ["1.99.99", "2.9.10", "2.10.29", "2.11.10"] {
            assert!(version(old) < OLDEST, "{old}");
        }
        for new in ["2.12.0", "2.12.10", "2.15.1", "3.0.0"] {
            assert!(version(new) >= OLDEST, "{new}");
        }
        for bad in ["", "2", "2.12", "2.12.x", "2.12.0.1", "v2.12.0", "-", "2.12.99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn versions_with_advisories_are_known() {
        let advised = |text| Version::parse(text).expect("a version").has_advisories();
        for bad in ["2.12.0", "2.12.11", "2.13.0", "2.14.0", "2.14.2"] {
            assert!(advised(bad), "{bad}");
        }
        for good in ["2.12.12", "2.12.13", "2.14.3", "2.15.0", "3.0.0"] {
            assert!(!advised(good), "{good}");
        }
    }
}
