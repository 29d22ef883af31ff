//! The fields of a JSON object from outside, taken out one by one, so that an error names the field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{Json, plain};
use crate::path::Path;

/// Most fields of a frame. None has a dozen.
pub const FRAME_FIELDS: usize = 64;

/// The fields of one object: each value as text, parsed when it is taken.
pub struct Fields<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// Why an object is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFields {
    /// Not a JSON object.
    Malformed,
    /// The same field twice, or too many of them; and the number to answer with, when that is not in doubt.
    Ambiguous(Option<u64>),
}

impl<'a> Fields<'a> {
    /// Reads an object.
    pub fn parse(text: &'a str) -> Result<Self, NotFields> {
        let Raw { fields, ambiguous } = serde_json::from_str(text).map_err(|_| NotFields::Malformed)?;
        ambiguous.map_or(Ok(Self(fields)), |Ambiguous(n)| Err(NotFields::Ambiguous(n)))
    }

    /// Whether the object has the field and it is not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|raw| raw.get() != "null")
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// A field that may be left out; `null` counts as left out.
    pub fn optional<T: Deserialize<'a>>(&self, name: &'static str) -> Result<Option<T>, String> {
        match self.0.get(name) {
            Some(raw) if raw.get() != "null" => {
                serde_json::from_str(raw.get()).map(Some).map_err(|error| format!("`{name}`: {}", own(&error)))
            }
            _ => Ok(None),
        }
    }

    /// A field that must be there.
    pub fn required<T: Deserialize<'a>>(&self, name: &'static str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("`{name}` is missing"))
    }

    /// Any JSON value that may be left out; `null` counts as left out.
    pub fn json(&self, name: &'static str) -> Result<Option<Json>, String> {
        match self.0.get(name) {
            Some(raw) if raw.get() != "null" => {
                Json::parse(raw.get()).map(Some).map_err(|error| format!("`{name}`: {error}"))
            }
            _ => Ok(None),
        }
    }

    /// A map from paths to values; `null` values are kept, as deletions.
    pub fn values(&self, name: &'static str) -> Result<Option<BTreeMap<Path, Option<Json>>>, String> {
        let Some(raw) = self.0.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
        let Unchecked(list) =
            serde_json::from_str(raw.get()).map_err(|_| format!("`{name}`: not an object of paths"))?;
        let mut values = BTreeMap::new();
        for (key, raw) in list {
            let at = || format!("`{name}`[{}]", quoted(&key));
            let path: Path = key.parse().map_err(|error| format!("{}: {error}", at()))?;
            let json = Json::parse(raw.get()).map_err(|error| format!("{}: {error}", at()))?;
            let value = (!json.is_null()).then_some(json);
            if values.insert(path, value).is_some() {
                return Err(format!("{}: the same path twice", at()));
            }
        }
        Ok(Some(values))
    }
}

/// The types of this project say in their errors what is allowed and never repeat the input.
fn own(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let known = ["not a", "an empty list", "more than", "unknown variant", "unknown field", "missing field"];
    if error.is_data() && known.iter().any(|start| text.starts_with(start)) {
        return text
            .split(" at line")
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
    }
    plain(error)
}

/// A peer's own text as it may be repeated to it: escaped and short.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(48).collect();
    format!("{short:?}")
}

struct Raw<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    ambiguous: Option<Ambiguous>,
}

/// A field comes twice, or there are too many; with what `n` says, if it comes once.
struct Ambiguous(Option<u64>);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Unchecked(list) = Unchecked::deserialize(d)?;
        let count = list.len();
        let numbers: Vec<&RawValue> = list.iter().filter(|(key, _)| key == "n").map(|(_, raw)| *raw).collect();
        let fields: BTreeMap<_, _> = list.into_iter().collect();
        let ambiguous = (fields.len() < count || count > FRAME_FIELDS).then(|| match numbers[..] {
            [one] => Ambiguous(serde_json::from_str(one.get()).ok()),
            _ => Ambiguous(None),
        });
        Ok(Raw { fields, ambiguous })
    }
}

/// An object as a list, so that a key that comes twice can be seen.
struct Unchecked<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Borrows a key where the input holds it as it is.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Unchecked<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Unchecked<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    list.push((key, value));
                }
                Ok(Unchecked(list))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Err(E::custom("null"))
            }
        }
        d.deserialize_map(List).map_err(D::Error::custom)
    }
}
