//! Events that this side tells.

use riser_core::event::EventId;
use riser_core::{Address, Json, Path};
use serde::Serialize;
use serde_json::json;

use crate::order::unique;

/// Something that happened, to be stored. It has an id, so that telling it again is the same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The sender's own name for it, 1 to 128 bytes; made at random by [`Notice::new`].
    pub id: String,
    /// What kind of event, 1 to 64 bytes.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which device or property; none when it is about the address itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// The sender's own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts_ms: Option<i64>,
}

impl Notice {
    /// An event of this kind, about the address itself.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { id: unique(), kind: kind.into(), path: None, data: None, ts_ms: None }
    }

    /// The same about a device or property.
    #[must_use]
    pub fn at(self, path: Path) -> Self {
        Self { path: Some(path), ..self }
    }

    /// The same with something to say.
    #[must_use]
    pub fn data(self, data: Json) -> Self {
        Self { data: Some(data), ..self }
    }

    /// The event as the HTTP API takes it. Values stay the text that they are.
    pub(crate) fn body(&self) -> String {
        self.json(None, None)
    }

    /// The frame without its number; a gateway tells of its own address, and names none.
    pub(crate) fn frame(&self, to: Option<&Address>) -> String {
        self.json(Some("event"), to)
    }

    fn json(&self, t: Option<&str>, to: Option<&Address>) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            t: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            to: Option<&'a Address>,
            #[serde(flatten)]
            notice: &'a Notice,
        }
        Json::of(&Body { t, to, notice: self }).as_str().to_owned()
    }
}

/// The frame, without its number, that somebody has seen a notice.
pub(crate) fn seen(of: &Address, id: &EventId) -> String {
    json!({"t": "seen", "of": of, "id": id}).to_string()
}
