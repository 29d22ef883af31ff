//! What happens in a home. Pure: the same randomness makes the same life.

mod act;

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::devices::{Device, Kind};
use riser_core::{Devices, Json, Path};
use serde_json::json;

pub(super) use act::Act;

/// Something of the home that changes by itself, on a rhythm of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    LivingLight,
    BedroomLight,
    Lock,
    Temperature,
    Setpoint,
    Meter,
    Leak,
    LeakBattery,
    Bell,
}

const THINGS: [Thing; 9] = [
    Thing::LivingLight,
    Thing::BedroomLight,
    Thing::Lock,
    Thing::Temperature,
    Thing::Setpoint,
    Thing::Meter,
    Thing::Leak,
    Thing::LeakBattery,
    Thing::Bell,
];

const LIVING_LIGHT: &str = "living/light";
const BEDROOM_LIGHT: &str = "bedroom/light";
const LOCK: &str = "hall/lock";
const THERMOSTAT: &str = "living/thermostat";
const METER: &str = "meter";
const LEAK: &str = "bath/leak";
const BELL: &str = "hall/bell";

/// What one step changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A value.
    Set(Path, Json),
    /// A device that left or came back.
    Device(Path, bool),
    /// Somebody pressed the bell's button, and what the bell's value is now.
    Ring(Path, Json),
}

/// A home.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "lights, locks and leaks have two states and do not depend on each other"
)]
pub(super) struct Home {
    rng: fastrand::Rng,
    /// When each thing changes next, Unix milliseconds.
    due: BTreeMap<Thing, u64>,
    living: bool,
    bedroom: bool,
    level: u8,
    locked: bool,
    temperature: f64,
    setpoint: f64,
    kwh: f64,
    metered_ms: u64,
    wet: bool,
    leak_up: bool,
    rang_ms: u64,
}

/// A time with this mean, as rare events have it: mostly sooner, now and then much later.
pub(super) fn after(rng: &mut fastrand::Rng, mean: Duration) -> Duration {
    let times = -(1.0 - rng.f64()).ln();
    mean.mul_f64(times.clamp(0.01, 8.0))
}

fn path(text: &'static str) -> Path {
    text.parse().expect("the paths of this file are good ones, and a test goes through all of them")
}

impl Home {
    /// A home as it is found at a time, Unix milliseconds.
    pub(super) fn new(mut rng: fastrand::Rng, now_ms: u64) -> Self {
        let mut home = Self {
            living: rng.bool(),
            bedroom: rng.u8(..4) == 0,
            level: rng.u8(1..=10) * 10,
            locked: rng.u8(..8) != 0,
            temperature: f64::from(rng.u32(190..=225)) / 10.0,
            setpoint: f64::from(rng.u32(38..=44)) / 2.0,
            kwh: f64::from(rng.u32(100_000..=900_000)) / 100.0,
            metered_ms: now_ms,
            wet: false,
            leak_up: true,
            rang_ms: now_ms.saturating_sub(rng.u64(60_000..6 * 3_600_000)),
            due: BTreeMap::new(),
            rng,
        };
        for thing in THINGS {
            home.plan(thing, now_ms);
        }
        // What measures by a clock was started at some time of its own.
        for (thing, period_ms) in [(Thing::Meter, 10_000), (Thing::Temperature, 60_000)] {
            let first_ms = now_ms.saturating_add(home.rng.u64(1..=period_ms));
            home.due.insert(thing, first_ms);
        }
        home
    }

    /// What is in it.
    pub(super) fn devices() -> Devices {
        let device = |at, kind, name: &str, unit: Option<&str>, actions: &[&str]| {
            let actions = actions.iter().map(|&action| action.to_owned()).collect();
            (path(at), Device { kind, name: Some(name.into()), unit: unit.map(Into::into), actions })
        };
        Devices(BTreeMap::from([
            device(LIVING_LIGHT, Kind::Switch, "Living room light", None, &["on", "off"]),
            device(BEDROOM_LIGHT, Kind::Dimmer, "Bedroom light", Some("%"), &["on", "off", "dim"]),
            device(LOCK, Kind::Lock, "Front door", None, &["lock", "unlock"]),
            device(THERMOSTAT, Kind::Thermostat, "Heating", Some("°C"), &["set"]),
            device(METER, Kind::Meter, "Electricity", Some("W"), &[]),
            device(LEAK, Kind::Sensor, "Water under the bath", None, &[]),
            device(BELL, Kind::Bell, "Doorbell", None, &["answer", "ring"]),
        ]))
    }

    /// Everything as it is.
    pub(super) fn values(&self) -> BTreeMap<Path, Json> {
        [LIVING_LIGHT, BEDROOM_LIGHT, LOCK, THERMOSTAT, METER, LEAK, BELL]
            .into_iter()
            .map(|at| (path(at), self.value(at)))
            .collect()
    }

    /// When something changes next, Unix milliseconds.
    pub(super) fn due_ms(&self) -> u64 {
        self.due.values().copied().min().unwrap_or(u64::MAX)
    }

    /// Lets everything happen that is due by a time, Unix milliseconds.
    pub(super) fn until(&mut self, now_ms: u64) {
        while self.due_ms() <= now_ms {
            self.step();
        }
    }

    /// Lets happen what is due next.
    pub(super) fn step(&mut self) -> Step {
        let (at_ms, thing) =
            self.due.iter().map(|(&thing, &at_ms)| (at_ms, thing)).min().unwrap_or((u64::MAX, Thing::Meter));
        let changed = self.change(thing, at_ms);
        self.plan(thing, at_ms);
        match thing {
            Thing::LeakBattery => Step::Device(path(LEAK), self.leak_up),
            Thing::Bell => Step::Ring(path(changed), self.value(changed)),
            _ => Step::Set(path(changed), self.value(changed)),
        }
    }

    fn change(&mut self, thing: Thing, at_ms: u64) -> &'static str {
        match thing {
            Thing::LivingLight => {
                self.living = !self.living;
                LIVING_LIGHT
            }
            Thing::BedroomLight => {
                // Half of the time it is only dimmed.
                if self.bedroom && self.rng.bool() {
                    self.level = self.rng.u8(1..=10) * 10;
                } else {
                    self.bedroom = !self.bedroom;
                }
                BEDROOM_LIGHT
            }
            Thing::Lock => {
                self.locked = !self.locked;
                LOCK
            }
            Thing::Temperature => {
                let pull = (self.setpoint - self.temperature) * 0.1;
                self.temperature = (self.temperature + pull + self.rng.f64() * 0.3 - 0.15).clamp(5.0, 35.0);
                THERMOSTAT
            }
            Thing::Setpoint => {
                self.setpoint = f64::from(self.rng.u32(36..=46)) / 2.0;
                THERMOSTAT
            }
            Thing::Meter => {
                let hours = Duration::from_millis(at_ms.saturating_sub(self.metered_ms)).as_secs_f64() / 3_600.0;
                self.kwh += self.load() / 1_000.0 * hours;
                self.metered_ms = at_ms;
                METER
            }
            Thing::Leak => {
                self.wet = !self.wet;
                LEAK
            }
            Thing::LeakBattery => {
                self.leak_up = !self.leak_up;
                LEAK
            }
            Thing::Bell => {
                self.rang_ms = at_ms;
                BELL
            }
        }
    }

    fn plan(&mut self, thing: Thing, now_ms: u64) {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        let rng = &mut self.rng;
        let wait = match thing {
            // What measures by a clock jitters a little; what people do comes when it comes.
            Thing::Meter => Duration::from_secs(10).mul_f64(0.9 + 0.2 * rng.f64()),
            Thing::Temperature => Duration::from_secs(60).mul_f64(0.8 + 0.4 * rng.f64()),
            Thing::LivingLight => after(rng, minutes(8)),
            Thing::BedroomLight => after(rng, minutes(12)),
            Thing::Lock if !self.locked => after(rng, Duration::from_secs(20)),
            Thing::Lock => after(rng, minutes(40)),
            Thing::Setpoint => after(rng, minutes(90)),
            Thing::Leak if self.wet => after(rng, minutes(10)),
            Thing::Leak => after(rng, minutes(24 * 60)),
            Thing::LeakBattery if !self.leak_up => after(rng, minutes(10)),
            Thing::LeakBattery => after(rng, minutes(4 * 60)),
            Thing::Bell => after(rng, minutes(45)),
        };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        self.due.insert(thing, now_ms.saturating_add(wait_ms));
    }

    /// What the home draws, in watts.
    fn load(&self) -> f64 {
        let living = if self.living { 42.0 } else { 0.0 };
        let bedroom = if self.bedroom { f64::from(self.level) * 0.4 } else { 0.0 };
        let heating = if self.setpoint > self.temperature { 600.0 } else { 0.0 };
        130.0 + living + bedroom + heating
    }

    fn value(&self, at: &str) -> Json {
        let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
        Json::of(&match at {
            LIVING_LIGHT => json!({"on": self.living}),
            BEDROOM_LIGHT => json!({"on": self.bedroom, "level": self.level}),
            LOCK => json!(if self.locked { "locked" } else { "unlocked" }),
            THERMOSTAT => json!({"temperature": round(self.temperature, 1), "setpoint": self.setpoint}),
            METER => json!({"watts": round(self.load(), 0), "kwh": round(self.kwh, 3)}),
            LEAK => json!({"wet": self.wet}),
            _ => json!({"last_ring_ms": self.rang_ms}),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_760_000_000_000;
    const DAY: u64 = 86_400_000;

    fn home(seed: u64) -> Home {
        Home::new(fastrand::Rng::with_seed(seed), START)
    }

    #[test]
    fn the_same_seed_makes_the_same_life() {
        let life = |seed| {
            let mut home = home(seed);
            (0..500).map(|_| (home.due_ms(), home.step())).collect::<Vec<_>>()
        };
        assert_eq!(life(1), life(1));
        assert_ne!(life(1), life(2));
    }

    #[test]
    fn all_that_is_described_has_a_value_and_the_reverse() {
        let (devices, values) = (Home::devices(), home(1).values());
        assert!(devices.check().is_ok());
        assert!(devices.0.keys().eq(values.keys()));
    }

    #[test]
    fn a_day_has_the_rates_of_a_home() {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let homes = 20;
        for seed in 0..homes {
            let mut home = home(u64::from(seed));
            let mut last = START;
            while home.due_ms() < START + DAY {
                assert!(home.due_ms() >= last, "time went back");
                last = home.due_ms();
                let name = match home.step() {
                    Step::Set(path, _) | Step::Ring(path, _) => path.to_string(),
                    Step::Device(path, _) => format!("{path} up or down"),
                };
                *counts.entry(name).or_default() += 1;
            }
            assert!((5.0..=35.0).contains(&home.temperature), "{}", home.temperature);
        }
        let rows = [
            (METER, 8_000..=9_500),
            (THERMOSTAT, 1_300..=1_650),
            (LIVING_LIGHT, 120..=240),
            (BEDROOM_LIGHT, 80..=160),
            (LOCK, 40..=110),
            (BELL, 20..=50),
            (LEAK, 0..=10),
            ("bath/leak up or down", 2..=30),
        ];
        for (name, range) in rows {
            let mean = counts.get(name).copied().unwrap_or_default() / homes;
            assert!(range.contains(&mean), "{name}: {mean} a day");
        }
    }

    #[test]
    fn what_was_missed_is_caught_up_with() {
        let mut home = home(3);
        home.until(START + DAY);
        assert!(home.due_ms() > START + DAY);
    }
}
