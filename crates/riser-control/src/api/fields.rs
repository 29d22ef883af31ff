//! The body of a request: an object whose every field must be taken.

use riser_core::Json;
use riser_ops::Refused;
use riser_ops::request::bad;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// How much of an unknown field's name is repeated to whoever sent it, in characters.
const NAME_SHOWN: usize = 48;

/// The fields that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. None at all stands for an object without fields.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the body is not UTF-8"))?;
        // Neither nested without end, nor with a field twice, of which somebody else might take the other.
        Json::parse(text).map_err(|error| bad(format!("the body: {error}")))?;
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(bad("the body is not a JSON object")),
        }
    }

    /// A field as it is; also null, which may mean something else than a field that is left out.
    pub(super) fn raw(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A field; null counts as left out.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refused> {
        let Some(value) = self.raw(name).filter(|value| !value.is_null()) else { return Ok(None) };
        // The value is not repeated: it may be a secret in the wrong place.
        serde_json::from_value(value).map(Some).map_err(|_| bad(format!("`{name}`: not of the type that it must have")))
    }

    /// All that is left, as it is.
    pub(super) fn rest(self) -> Value {
        Value::Object(self.0)
    }

    /// Refuses what is known to nobody, by its name: it may be meant to restrict something.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refused> {
        let Some(name) = self.0.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
        let shown: String = name.chars().take(NAME_SHOWN).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(bad(format!("unknown field {shown:?}; known are {known}")))
    }

    /// The names of the fields that are left.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}
