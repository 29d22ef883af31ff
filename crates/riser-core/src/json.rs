//! JSON values that pass through Riser unchanged: checked once, kept as the text they came in.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects in a value. Peers' parsers recurse; 32 levels are more than devices need.
pub const JSON_DEPTH: usize = 32;

/// A JSON value as text: well-formed, no object with the same key twice, no number outside what a double can
/// hold, at most [`JSON_DEPTH`] levels deep.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

/// Why a value was refused. It never repeats the value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// Checks a whole JSON text.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut d = serde_json::Deserializer::from_str(text);
        let check = Check { depth: 0 }.deserialize(&mut d).and_then(|()| d.end());
        check.map_err(|error| JsonError(plain(&error)))?;
        Ok(Self(text.trim().into()))
    }

    /// The text of any value that serialises.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        // Only maps with keys that are no strings fail, and no type of this project has one.
        Self(serde_json::to_string(value).unwrap_or_else(|_| "null".into()).into())
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }
}

/// What serde_json says without the excerpt of the input that some of its messages carry.
pub(crate) fn plain(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => {
            let text = error.to_string();
            return match text.strip_prefix(OWN) {
                Some(own) => own.split(" at line").next().unwrap_or(own).to_owned(),
                None => format!("wrong type at column {}", error.column()),
            };
        }
    };
    format!("{what} (column {})", error.column())
}

/// Marks messages written here, which hold nothing of the input.
const OWN: &str = "\u{1}";

/// Visits a value only to find what must be refused.
struct Check {
    depth: usize,
}

impl Check {
    fn deeper<E: serde::de::Error>(&self) -> Result<Check, E> {
        if self.depth >= JSON_DEPTH {
            return Err(E::custom(format!("{OWN}it is nested deeper than {JSON_DEPTH} levels")));
        }
        Ok(Check { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let next = self.deeper::<A::Error>()?;
            if seq.next_element_seed(next)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom(format!("{OWN}an object has the same key twice")));
            }
            map.next_value_seed(self.deeper::<A::Error>()?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are payload, and payload stays out of logs.
        write!(f, "Json({} bytes)", self.0.len())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(d)?;
        Json::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_pass_as_they_are() {
        for good in ["1", "null", "true", "\"a\"", "[1,2]", r#"{"a":{"b":[]}}"#, "-0.5e3", "18446744073709551615"] {
            assert_eq!(Json::parse(good).expect(good).as_str(), good);
        }
    }

    #[test]
    fn bad_values_are_refused_without_being_repeated() {
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        for bad in ["", "{", "NaN", "1 2", "1e999", r#"{"secret":1,"secret":2}"#, "{'a':1}", "[1,]", &deep] {
            let error = Json::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("secret") && !error.contains(OWN), "{error}");
        }
        assert!(Json::parse(&deep).expect_err("deep").to_string().contains("32 levels"));
    }

    #[test]
    fn the_deepest_allowed_value_passes() {
        let at = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(&at(JSON_DEPTH)).is_ok());
        assert!(Json::parse(&at(JSON_DEPTH + 2)).is_err());
    }
}
