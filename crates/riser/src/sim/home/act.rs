//! What the devices of a home do when they are told to.

use std::ops::RangeInclusive;

use riser_core::{Json, Path};

use super::{BEDROOM_LIGHT, BELL, Home, LIVING_LIGHT, LOCK, THERMOSTAT, path};

/// One time in how many the lock jams.
const JAMS: u32 = 16;
/// What the bedroom light can be dimmed to, in per cent.
const LEVELS: RangeInclusive<f64> = 0.0..=100.0;
/// What the heating can be set to, in °C.
const SETPOINTS: RangeInclusive<f64> = 5.0..=30.0;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sim) enum Act {
    /// It is done, and this is the new value.
    Done(Path, Json),
    /// The lock begins to turn: to locked, or back.
    Turn(bool),
    /// The bell's button is pressed.
    Ring,
    /// Somebody answers the door.
    Answer,
    /// It is not done, and why.
    Rejected(&'static str),
}

impl Home {
    /// Does what a command asks for, or says what is to be done.
    pub(in crate::sim) fn act(&mut self, at: &Path, action: &str, args: Option<&Json>) -> Act {
        match (at.as_str(), action) {
            (LIVING_LIGHT, "on" | "off") => {
                self.living = action == "on";
                self.done(LIVING_LIGHT)
            }
            (BEDROOM_LIGHT, "on" | "off") => {
                self.bedroom = action == "on";
                self.done(BEDROOM_LIGHT)
            }
            (BEDROOM_LIGHT, "dim") => {
                let Some(level) = number(args, "level", &LEVELS) else { return Act::Rejected("bad_args") };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 100")]
                let level = level.round() as u8;
                (self.level, self.bedroom) = (level, level > 0);
                self.done(BEDROOM_LIGHT)
            }
            (THERMOSTAT, "set") => {
                let Some(setpoint) = number(args, "setpoint", &SETPOINTS) else { return Act::Rejected("bad_args") };
                self.setpoint = (setpoint * 2.0).round() / 2.0;
                self.done(THERMOSTAT)
            }
            (LOCK, "lock" | "unlock") => Act::Turn(action == "lock"),
            (BELL, "ring") => Act::Ring,
            (BELL, "answer") => Act::Answer,
            _ if Self::devices().0.contains_key(at) => Act::Rejected("unknown_action"),
            _ => Act::Rejected("unknown_path"),
        }
    }

    /// The lock has turned, and has this value now; or it jammed and stays as it was.
    pub(in crate::sim) fn turned(&mut self, locked: bool) -> Option<(Path, Json)> {
        if self.rng.u32(..JAMS) == 0 {
            return None;
        }
        self.locked = locked;
        Some((path(LOCK), self.value(LOCK)))
    }

    /// The bell's button is pressed at a time, Unix milliseconds.
    pub(in crate::sim) fn rung(&mut self, now_ms: u64) -> (Path, Json) {
        self.rang_ms = now_ms;
        (path(BELL), self.value(BELL))
    }

    fn done(&self, at: &'static str) -> Act {
        Act::Done(path(at), self.value(at))
    }
}

/// A number among the arguments, `{"level":40}` or `40`, when it is within these bounds.
fn number(args: Option<&Json>, name: &str, bounds: &RangeInclusive<f64>) -> Option<f64> {
    let args: serde_json::Value = serde_json::from_str(args?.as_str()).ok()?;
    let number = args.get(name).unwrap_or(&args).as_f64()?;
    bounds.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home::new(fastrand::Rng::with_seed(1), 1_760_000_000_000)
    }

    fn act(home: &mut Home, at: &'static str, action: &str, args: &str) -> Act {
        let args = (!args.is_empty()).then(|| Json::parse(args).expect("JSON"));
        home.act(&at.parse().expect("a path"), action, args.as_ref())
    }

    #[test]
    fn what_is_told_to_is_done_and_has_a_new_value() {
        let home = &mut home();
        let done = |at, value: &str| Act::Done(path(at), Json::parse(value).expect("JSON"));
        assert_eq!(act(home, LIVING_LIGHT, "on", ""), done(LIVING_LIGHT, r#"{"on":true}"#));
        assert_eq!(act(home, LIVING_LIGHT, "off", ""), done(LIVING_LIGHT, r#"{"on":false}"#));
        assert_eq!(act(home, BEDROOM_LIGHT, "dim", "40"), done(BEDROOM_LIGHT, r#"{"level":40,"on":true}"#));
        assert_eq!(act(home, BEDROOM_LIGHT, "dim", r#"{"level":0}"#), done(BEDROOM_LIGHT, r#"{"level":0,"on":false}"#));
        let Act::Done(_, heating) = act(home, THERMOSTAT, "set", r#"{"setpoint":21.3}"#) else { panic!("not done") };
        assert!(heating.as_str().contains(r#""setpoint":21.5"#));
        assert_eq!(act(home, LOCK, "unlock", ""), Act::Turn(false));
        assert_eq!((act(home, BELL, "ring", ""), act(home, BELL, "answer", "")), (Act::Ring, Act::Answer));
    }

    #[test]
    fn what_is_not_known_is_not_done_and_says_why() {
        let home = &mut home();
        for (at, action, args, code) in [
            (LOCK, "explode", "", "unknown_action"),
            ("meter", "on", "", "unknown_action"),
            ("cellar/light", "on", "", "unknown_path"),
            (BEDROOM_LIGHT, "dim", "", "bad_args"),
            (BEDROOM_LIGHT, "dim", "101", "bad_args"),
            (THERMOSTAT, "set", r#"{"setpoint":"hot"}"#, "bad_args"),
        ] {
            assert_eq!(act(home, at, action, args), Act::Rejected(code), "{at} {action} {args}");
        }
    }

    #[test]
    fn all_that_is_described_can_be_done() {
        let home = &mut home();
        for (at, device) in Home::devices().0 {
            for action in device.actions {
                let args = Json::parse("20").expect("JSON");
                assert!(!matches!(home.act(&at, &action, Some(&args)), Act::Rejected(_)), "{at} {action}");
            }
        }
    }

    #[test]
    fn the_lock_jams_now_and_then_and_stays_as_it_was() {
        let home = &mut home();
        let mut jams = 0;
        for i in 0..1_600 {
            let before = home.locked;
            let turned = home.turned(i % 2 == 0).is_some();
            assert_eq!(home.locked, if turned { i % 2 == 0 } else { before });
            jams += u32::from(!turned);
        }
        assert!((50..200).contains(&jams), "{jams} of 1600");
    }
}
