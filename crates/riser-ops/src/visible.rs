//! Text of peers made safe to show: no character that moves a cursor, begins a line or turns the reading direction.

use std::borrow::Cow;
use std::fmt::Write as _;

use riser_core::path::is_hidden;

/// The text with every hidden character written as `\u001b`, the way that JSON writes it: inside a JSON text it
/// still means the same.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            // Hidden characters are all in the basic plane, and writing to a string cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A JSON text as one line that means the same: line feeds can stand only between its parts, and hidden characters
/// only inside its strings.
pub fn json_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(visible(&text.replace(['\n', '\r', '\t'], " ")).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_text_becomes_one_line_that_means_the_same() {
        assert_eq!(json_line("{\"a\":\r\n\t[1,\n\"\u{202e}\u{7f}\"]}"), r#"{"a":   [1, "\u202e\u007f"]}"#);
        assert_eq!(json_line(r#"{"a":"\n"}"#), r#"{"a":"\n"}"#);
    }

    #[test]
    fn what_is_seen_stays_and_what_is_hidden_is_named() {
        assert_eq!(visible("Küche 日本 \\"), "Küche 日本 \\");
        assert_eq!(visible("a\u{1b}[2J\r\nb"), "a\\u001b[2J\\u000d\\u000ab");
        assert_eq!(visible("\u{9b}\u{7f}\u{202e}\u{2067}\u{2028}"), "\\u009b\\u007f\\u202e\\u2067\\u2028");
    }
}
