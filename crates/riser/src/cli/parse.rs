//! Values of the command line: durations, rights and keys.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use riser_client::{Endpoint, EndpointError};
use riser_config::duration;
use riser_core::command::{CommandKey, DEADLINE_MS};
use riser_core::frame::Credential;
use riser_core::frame::inbound::{CREDENTIAL_BYTES, CURSOR_BYTES};
use riser_core::{Address, Grant, Json, PathFilter};

/// Shortest and longest heartbeat.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Longest window to drain in.
const DRAIN_MOST: Duration = Duration::from_secs(600);

/// Parses what may be a credential, or hold one: an error says what is wrong and does not show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unshown<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let parsed = value.to_str().ok_or_else(|| "not UTF-8".to_owned()).and_then(self.0);
        parsed.map_err(|why| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value for '{name}': {why}\n")).with_cmd(cmd)
        })
    }
}

/// Where a cluster is. People put passwords into URLs.
pub(crate) const URL: Unshown<Endpoint> =
    Unshown(|text| Endpoint::from_str(text).map_err(|error: EndpointError| error.to_string()));
/// A command's key, which is no secret: what is given for it may be one.
pub(crate) const COMMAND_KEY: Unshown<CommandKey> = Unshown(|text| command_key(text).map_err(str::to_owned));

/// A heartbeat.
pub(crate) fn heartbeat(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let (least, most) = HEARTBEAT;
    if (least..=most).contains(&time) { Ok(time) } else { Err("not between 100ms and 10m".into()) }
}

/// A window to drain in.
pub(crate) fn drain_window(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time <= DRAIN_MOST { Ok(time) } else { Err("longer than 10m".into()) }
}

/// A time to live, in whole seconds.
pub(crate) fn ttl(text: &str) -> Result<u64, String> {
    let time = duration(text)?;
    if time.subsec_millis() == 0 && !time.is_zero() { Ok(time.as_secs()) } else { Err("not in whole seconds".into()) }
}

/// A command's deadline.
pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if DEADLINE_MS.contains(&ms) { Ok(time) } else { Err("not between 100ms and 1d".into()) }
}

/// Whether a text looks like an API key or a token.
pub(crate) fn is_credential(text: &str) -> bool {
    text.starts_with("rk_") || text.starts_with("ey") && text.split('.').count() == 3
}

fn command_key(text: &str) -> Result<CommandKey, &'static str> {
    if is_credential(text) {
        return Err("this is a credential: give it with RISER_KEY or --key-file");
    }
    text.parse().map_err(|_| "not a key: 1 to 128 bytes without control characters")
}

/// The address of a gateway.
pub(crate) fn gateway(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error| format!("{error}"))?;
    let whole = "a command goes to a gateway, not to a building or the tenant";
    if address.is_gateway() { Ok(address) } else { Err(whole.into()) }
}

/// A JSON value.
pub(crate) fn json(text: &str) -> Result<Json, String> {
    let hint = "text is JSON in double quotes, and the shell wants single ones around it: '\"text\"', '{\"level\":40}'";
    Json::parse(text).map_err(|error| format!("{error}; {hint}"))
}

/// A cursor, which says nothing to anybody but the cluster.
pub(crate) fn cursor(text: &str) -> Result<String, String> {
    let good = (1..=CURSOR_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(format!("not a cursor: 1 to {CURSOR_BYTES} visible characters")) }
}

/// A key or token of the command line, not yet looked at: clap would show a bad one on the terminal.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a parser")]
pub(crate) fn unchecked(text: &str) -> Result<Credential, Infallible> {
    Ok(Credential::new(text))
}

/// A key or token.
pub(crate) fn key(text: &str) -> Result<Credential, &'static str> {
    let good = (1..=CREDENTIAL_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    // The text stays out of the error, for it may be most of a key.
    match text {
        _ if good => Ok(Credential::new(text)),
        "" => Err("the key is empty: set RISER_KEY to the API key or token, or give --key-file"),
        _ => Err("not a key or token"),
    }
}

/// A right: `PATTERN:VERB,…[:PATHS]`.
pub(crate) fn grant(text: &str) -> Result<Grant, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(to), Some(verbs)) = (parts.next(), parts.next()) else {
        return Err("not PATTERN:VERB,…: b12/*:read,command".into());
    };
    let to = to.parse().map_err(|error| format!("{error}"))?;
    let verb = |word: &str| {
        let known = "not a verb: read, command, event, listen or speak";
        serde_json::from_value(word.into()).map_err(|_| known.to_owned())
    };
    let may = verbs.split(',').map(verb).collect::<Result<_, _>>()?;
    let path = match parts.next() {
        Some(paths) => PathFilter::parse(&[paths]).map_err(|error| error.to_string())?,
        None => PathFilter::ALL,
    };
    Ok(Grant { to, path, may })
}

#[cfg(test)]
mod tests {
    use riser_core::Verb;

    use super::*;

    #[test]
    fn times_have_a_unit() {
        let rows =
            [("500ms", 500), ("20s", 20_000), ("1m", 60_000), ("2h", 7_200_000), ("30d", 2_592_000_000), ("0s", 0)];
        for (text, ms) in rows {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1.5s", "1 s", "20S", "99999999999999999999s", "99999999999999d", "5s5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(heartbeat("99ms").is_err() && heartbeat("11m").is_err() && heartbeat("2s").is_ok());
        assert!(deadline("99ms").is_err() && deadline("25h").is_err() && deadline("1d").is_ok());
        assert!(ttl("1500ms").is_err() && ttl("0s").is_err());
        assert_eq!(ttl("15m"), Ok(900));
    }

    #[test]
    fn a_credential_is_not_taken_for_a_commands_key() {
        assert!(command_key("rk_abc").is_err() && command_key("eyJh.eyJp.c2ln").is_err() && command_key("").is_err());
        assert!(command_key("eye.of.the.storm").is_ok() && command_key("7f3a").is_ok());
    }

    #[test]
    fn a_right_is_a_pattern_verbs_and_perhaps_paths() {
        let read = grant("b12/*:read,command").expect("a grant");
        assert_eq!((read.to.to_string().as_str(), &read.may[..]), ("b12/*", &[Verb::Read, Verb::Command][..]));
        assert!(read.path.is_all());
        let hall = grant("b12/f1:read:hall/#").expect("a grant");
        assert_eq!(hall.path, PathFilter::parse(&["hall/#"]).expect("a filter"));
        for bad in ["", "b12/*", "b12/*:", "b12/*:fly", "b12/**:read", "b12/*:read:", "b12/*:read,"] {
            assert!(grant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_about_a_key_tells_nothing_of_it() {
        assert!(key("rk_abc").is_ok());
        for bad in ["two words", "a\nb", "caf\u{e9}"] {
            let error = key(bad).expect_err(bad);
            assert_eq!(error, "not a key or token");
        }
        assert!(key("").expect_err("nothing").contains("empty"));
    }
}
