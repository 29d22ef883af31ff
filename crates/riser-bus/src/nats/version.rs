//! Which servers are old enough to be refused or warned of.

use riser_core::ServerVersion as Version;

/// The oldest server that is supported: what is asked of JetStream was not there before, or not reliable.
pub(super) const OLDEST: Version = Version(2, 12, 0);

/// Whether advisories are known of it, on its WebSocket and MQTT listeners and on injected protocol lines.
pub(super) fn has_advisories(version: Version) -> bool {
    version < Version(2, 12, 12) || (Version(2, 13, 0)..Version(2, 14, 3)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_too_old_or_have_advisories_are_known() {
        let version = |text| Version::parse(text).expect("a version");
        for old in ["1.99.99", "2.9.10", "2.10.29", "2.11.10"] {
            assert!(version(old) < OLDEST, "{old}");
        }
        for bad in ["2.12.0", "2.12.11", "2.13.0", "2.14.0", "2.14.2"] {
            assert!(version(bad) >= OLDEST && has_advisories(version(bad)), "{bad}");
        }
        for good in ["2.12.12", "2.12.13", "2.14.3", "2.15.0", "3.0.0"] {
            assert!(!has_advisories(version(good)), "{good}");
        }
    }
}
