//! Reading what Redis answers.

use redis::Value;

/// The items of one answer, taken one after the other. What is not there, or not what was expected, is none.
pub(super) struct Items(std::vec::IntoIter<Value>);

impl Items {
    /// The items of an array; none when it is something else.
    pub(super) fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(items) => Some(Self(items.into_iter())),
            _ => None,
        }
    }

    pub(super) fn value(&mut self) -> Option<Value> {
        self.0.next()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        number(&self.0.next()?)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.number()? == 1)
    }

    /// A text; none when there is none, or something else.
    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        bytes(self.0.next()?)
    }

    /// Something that is made from a text.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(&self.bytes()?).ok()?.parse().ok()
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The fields of a hash, or the members of a sorted set with their scores.
pub(super) fn pairs(value: Value) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut items = Items::of(value)?;
    let mut pairs = Vec::with_capacity(items.left() / 2);
    while items.left() > 0 {
        pairs.push((items.bytes()?, items.bytes()?));
    }
    Some(pairs)
}

/// The clock, as the command `TIME` tells it.
pub(super) fn time_ms(value: Value) -> Option<u64> {
    let mut items = Items::of(value)?;
    let (seconds, micros) = (items.number()?, items.number()?);
    Some(seconds * 1_000 + micros / 1_000)
}
