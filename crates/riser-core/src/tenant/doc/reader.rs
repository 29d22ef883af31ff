//! Takes a JSON object apart field by field, so that an error names the field by its whole path.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{DocError, Writer};
use crate::frame::MAX_N;

/// How much of an unknown field's name is repeated, in characters.
const NAME_SHOWN: usize = 48;

/// One object, and where it stands.
pub(super) struct Reader {
    fields: Map<String, Value>,
    /// Its path, with a dot behind it when it is not the whole text.
    at: String,
    writer: Writer,
    known: Vec<String>,
}

/// One element of a list.
pub(super) struct At(String);

impl At {
    pub(super) fn error(&self, why: impl Display) -> DocError {
        DocError { field: self.0.clone(), why: why.to_string() }
    }
}

impl Reader {
    pub(super) fn new(value: Value, at: String, writer: Writer) -> Result<Self, DocError> {
        let Value::Object(fields) = value else {
            let field = if at.is_empty() { ".".into() } else { at };
            return Err(DocError { field, why: "not an object".into() });
        };
        let at = if at.is_empty() { at } else { at + "." };
        Ok(Self { fields, at, writer, known: Vec::new() })
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer
    }

    pub(super) fn error(&self, name: &str, why: impl Display) -> DocError {
        DocError { field: format!("{}{name}", self.at), why: why.to_string() }
    }

    /// A field as it is; `null` counts as left out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, DocError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.error(name, "not a text")),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, DocError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.error(name, "neither true nor false")),
        }
    }

    pub(super) fn number(&mut self, name: &str, of: RangeInclusive<u64>) -> Result<Option<u64>, DocError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| of.contains(number));
        let why = || self.error(name, format!("not a whole number from {} to {}", of.start(), of.end()));
        number.map(Some).ok_or_else(why)
    }

    /// A list of at most so many, each read by `read`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&At, &Value) -> Result<T, DocError>,
    ) -> Result<Option<Vec<T>>, DocError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() <= most);
        let list = list.ok_or_else(|| self.error(name, format!("not a list of at most {most}")))?;
        let one = |(i, value)| read(&At(format!("{}{name}[{i}]", self.at)), value);
        list.iter().enumerate().map(one).collect::<Result<_, _>>().map(Some)
    }

    /// A list of at most so many objects; an empty one when it is left out.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&mut Reader) -> Result<T, DocError>,
    ) -> Result<Vec<T>, DocError> {
        let writer = self.writer;
        let one = |at: &At, value: &Value| inside(value.clone(), at.0.clone(), writer, &read);
        Ok(self.list(name, most, one)?.unwrap_or_default())
    }

    pub(super) fn object<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut Reader) -> Result<T, DocError>,
    ) -> Result<Option<T>, DocError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        inside(value, format!("{}{name}", self.at), self.writer, read).map(Some)
    }

    /// An object of at most so many times by names, each read by `key`.
    pub(super) fn times<K: Ord>(
        &mut self,
        name: &str,
        most: usize,
        key: impl Fn(&str) -> Option<K>,
    ) -> Result<BTreeMap<K, u64>, DocError> {
        let Some(value) = self.take(name) else { return Ok(BTreeMap::new()) };
        let Value::Object(fields) = value else { return Err(self.error(name, "not an object")) };
        if fields.len() > most {
            return Err(self.error(name, format!("more than {most}")));
        }
        let one = |(of, time): (String, Value)| {
            let time = time.as_u64().filter(|time| *time <= MAX_N);
            let time = time.ok_or_else(|| self.error(name, "not names with times in Unix milliseconds"))?;
            Ok((key(&of).ok_or_else(|| self.error(name, "a name that is none"))?, time))
        };
        fields.into_iter().map(one).collect()
    }

    /// Refuses what is left, when people wrote it: it may be meant to restrict something.
    pub(super) fn end(&self) -> Result<(), DocError> {
        match self.fields.keys().next() {
            Some(name) if self.writer == Writer::Person => {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_SHOWN).collect();
                Err(self.error(&shown, format!("unknown; known are {}", self.known.join(", "))))
            }
            _ => Ok(()),
        }
    }
}

fn inside<T>(
    value: Value,
    at: String,
    writer: Writer,
    read: impl Fn(&mut Reader) -> Result<T, DocError>,
) -> Result<T, DocError> {
    let mut reader = Reader::new(value, at, writer)?;
    let read = read(&mut reader)?;
    reader.end()?;
    Ok(read)
}
