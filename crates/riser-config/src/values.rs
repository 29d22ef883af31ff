//! Reads values as what they are meant to be.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use riser_core::AddressRange;

use crate::ConfigError;
use crate::layers::{Origin, Raw, Values};
use crate::options;

/// What a time looks like.
const TIME: &str = "a time is a whole number and a unit, ms, s, m, h or d: 500ms, 20s";
/// Largest file with a secret, in bytes: a wrong one need not be read whole.
const SECRET_BYTES: u64 = 16 * 1024;

/// All that was set, and where relative names of files begin.
pub struct Reader<'a> {
    /// All that was set.
    pub values: &'a Values,
    /// Where relative names of files begin.
    pub folder: &'a Path,
}

/// An option's value, and how to complain about it.
pub struct Given {
    name: String,
    raw: Raw,
}

impl Given {
    /// An error that names the option and where it was set.
    pub fn bad(&self, why: impl std::fmt::Display) -> ConfigError {
        ConfigError::bad(format!("{}: {}: {why}", self.raw.origin, self.name))
    }

    /// The value; the first one of a list.
    pub fn text(&self) -> &str {
        self.raw.texts.first().map_or("", String::as_str)
    }

    /// All values of a list.
    pub fn texts(&self) -> &[String] {
        &self.raw.texts
    }
}

impl Reader<'_> {
    /// What was set, or the default; none when there is neither.
    pub fn given(&self, section: &'static str, key: &'static str) -> Option<Given> {
        let opt = options::find(section, key)?;
        let default = || {
            let texts = match opt.kind {
                options::Kind::List => quoted(opt.default?),
                _ => vec![opt.default?.to_owned()],
            };
            Some(Raw { texts, origin: Origin::Default })
        };
        let raw = self.values.get(&(section, key)).cloned().or_else(default)?;
        Some(Given { name: opt.name(), raw })
    }

    /// The same for an option that has a default.
    fn needed(&self, section: &'static str, key: &'static str) -> Result<Given, ConfigError> {
        self.given(section, key).ok_or_else(|| ConfigError::bad(format!("{section}.{key} must be set")))
    }

    /// A text that is not empty.
    pub fn text(&self, section: &'static str, key: &'static str) -> Result<Given, ConfigError> {
        let given = self.needed(section, key)?;
        if given.texts().iter().all(|text| !text.is_empty()) { Ok(given) } else { Err(given.bad("it is empty")) }
    }

    /// An address and a port.
    pub fn address(&self, section: &'static str, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let given = self.text(section, key)?;
        given.text().parse().map_err(|_| given.bad("an address and a port are needed: 0.0.0.0:8080, [::]:8080"))
    }

    /// A time within bounds.
    pub fn time(
        &self,
        section: &'static str,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let given = self.text(section, key)?;
        let time = duration(given.text()).map_err(|why| given.bad(why))?;
        if bounds.contains(&time) {
            return Ok(time);
        }
        Err(given.bad(format!("not between {} and {}", brief(*bounds.start()), brief(*bounds.end()))))
    }

    /// A number of bytes within bounds.
    pub fn size(
        &self,
        section: &'static str,
        key: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let given = self.text(section, key)?;
        let bytes = size(given.text()).map_err(|why| given.bad(why))?;
        if bounds.contains(&bytes) {
            return Ok(bytes);
        }
        Err(given.bad(format!("not between {} and {} bytes", bounds.start(), bounds.end())))
    }

    /// A whole number within bounds.
    pub fn number(
        &self,
        section: &'static str,
        key: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let given = self.text(section, key)?;
        let number = given.text().replace('_', "").parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| given.bad(format!("a whole number from {} to {} is needed", bounds.start(), bounds.end())))
    }

    /// Ranges of addresses; none when nothing was set.
    pub fn ranges(&self, section: &'static str, key: &'static str) -> Result<Vec<AddressRange>, ConfigError> {
        let Some(given) = self.given(section, key) else { return Ok(Vec::new()) };
        given.texts().iter().map(|text| text.parse().map_err(|why| given.bad(why))).collect()
    }

    /// A file's name; relative to the configuration file's folder when it stands in there.
    pub fn file(&self, section: &'static str, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        if self.given(section, key).is_none() {
            return Ok(None);
        }
        let given = self.text(section, key)?;
        let path = PathBuf::from(given.text());
        let from_here = matches!(given.raw.origin, Origin::Variable(_) | Origin::Flag);
        Ok(Some(if from_here { path } else { self.folder.join(path) }))
    }

    /// A secret, from its variable or from the file that the option with `_file` behind it names.
    pub fn secret(
        &self,
        section: &'static str,
        key: &'static str,
        key_file: &'static str,
    ) -> Result<Option<String>, ConfigError> {
        match (self.given(section, key), self.file(section, key_file)?) {
            (Some(given), Some(_)) => Err(given.bad(format!("{section}.{key_file} is set as well: choose one"))),
            (Some(given), None) if given.text().is_empty() => Err(given.bad("it is empty")),
            (Some(given), None) => Ok(Some(given.text().to_owned())),
            (None, Some(file)) => read_secret(&format!("{section}.{key_file}"), &file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// What a file holds beside the white space around it. What it holds is never repeated.
pub fn read_secret(name: &str, file: &Path) -> Result<String, ConfigError> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(file)?.take(SECRET_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    let shown = file.display();
    let text = read().map_err(|error| ConfigError::Unreadable(format!("{name}: cannot read {shown}: {error}")))?;
    match text.trim() {
        "" => Err(ConfigError::bad(format!("{name}: {shown} is empty"))),
        secret => Ok(secret.to_owned()),
    }
}

/// A time such as `500ms`, `20s`, `1m`, `2h` or `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(TIME.into()),
    };
    let number: u64 = number.parse().map_err(|_| TIME)?;
    // 100 years are longer than anything here waits for, and timers can hold them.
    let ms = number.checked_mul(unit_ms).filter(|&ms| ms <= 100 * 365 * 86_400_000).ok_or("longer than 100 years")?;
    Ok(Duration::from_millis(ms))
}

/// A number of bytes such as `64 KiB`, `512 MiB` or `1000 B`.
pub fn size(text: &str) -> Result<u64, String> {
    let needed = "a number and a unit, B, KiB, MiB, GiB or TiB: 64 KiB";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(needed.into()),
    };
    let number: u64 = number.parse().map_err(|_| needed)?;
    number.checked_mul(unit).ok_or_else(|| needed.into())
}

/// A time as it is written in a configuration.
fn brief(time: Duration) -> String {
    let ms = time.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

/// The strings of a default that is a list.
fn quoted(list: &str) -> Vec<String> {
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("64 KiB", 65_536), ("1MiB", 1 << 20), ("0 B", 0), ("3 TiB", 3 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "64", "KiB", "64 KB", "64 kib", "-1 B", "1.5 MiB", "99999999999 TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_written() {
        for text in ["0s", "100ms", "90s", "10m", "1h", "7d"] {
            assert_eq!(brief(duration(text).expect("a time")), text);
        }
    }

    #[test]
    fn the_strings_of_a_list_are_found() {
        assert_eq!(quoted(r#"["a", "b,c"]"#), ["a", "b,c"]);
        assert!(quoted("[]").is_empty());
    }
}
