//! Which servers are too old.

use std::fmt;

/// The oldest server that is supported.
pub(super) const OLDEST: Version = Version(7, 0, 0);

/// The version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl Version {
    /// Reads `7.0.15`, `7.2.0-rc1`, `8.0-m02`; none when it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?);
        numbers.next().is_none().then_some(version)
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
        assert_eq!(version("7.0.15").to_string(), "7.0.15");
        assert_eq!(version("7.2.0-rc1"), version("7.2.0"));
        assert_eq!(version("8.0-m02"), version("8.0.0"));
        for old in ["2.8.24", "5.0.14", "6.2.14", "6.9.99"] {
            assert!(version(old) < OLDEST, "{old}");
        }
        for new in ["7.0.0", "7.0.15", "7.4.1", "8.0.0", "10.0.0"] {
            assert!(version(new) >= OLDEST, "{new}");
        }
        for bad in ["", "7", "7.x", "7.0.x", "7.0.0.1", "v7.0.0", "-", "7.0.99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }
}
