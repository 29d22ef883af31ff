//! The version of a server that Riser stands on: which are too old is for those who use them to say.

use std::fmt;

/// A release, compared by its numbers. What comes before it (`-rc1`) counts as the release itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(pub u32, pub u32, pub u32);

impl ServerVersion {
    /// Reads `7.0.15`, `2.14.0-RC.1`, `8.0-m02`; none when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?);
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = |text| ServerVersion::parse(text).expect("a version");
        assert_eq!(version("7.0.15").to_string(), "7.0.15");
        assert_eq!(version("2.14.0-RC.1"), version("2.14.0"));
        assert_eq!(version("8.0-m02"), version("8.0.0"));
        for old in ["2.8.24", "5.0.14", "6.2.14", "6.9.99"] {
            assert!(version(old) < ServerVersion(7, 0, 0), "{old}");
        }
        for new in ["7.0.0", "7.0.15", "7.4.1", "8.0.0", "10.0.0"] {
            assert!(version(new) >= ServerVersion(7, 0, 0), "{new}");
        }
        for bad in ["", "7", "7.x", "7.0.x", "7.0.0.1", "v7.0.0", "-", "7.0.99999999999"] {
            assert_eq!(ServerVersion::parse(bad), None, "{bad:?}");
        }
    }
}
