//! A watch for pipes and files: a line for each change.

use std::fmt::Write as _;

use riser_client::view::Seen;
use riser_client::{Update, View};
use riser_core::Address;
use riser_ops::visible::json_line;

/// The lines of one update: `address path value`, or `address online`.
pub(super) fn of(view: &View, update: &Update) -> String {
    let mut text = String::new();
    match update {
        Update::Snapshot(of) => {
            if let Some(seen) = view.get(of) {
                presence(&mut text, of, seen);
                for (path, value) in &seen.values {
                    let mark = if value.stale { " (stale)" } else { "" };
                    line(&mut text, of, &format!("{path} {}{mark}", json_line(value.value.as_str())));
                }
            }
        }
        Update::State { of, set } => {
            for path in set {
                match view.get(of).and_then(|seen| seen.values.get(path)) {
                    Some(value) => line(&mut text, of, &format!("{path} {}", json_line(value.value.as_str()))),
                    None => line(&mut text, of, &format!("{path} deleted")),
                }
            }
        }
        Update::Presence(of) => {
            if let Some(seen) = view.get(of) {
                presence(&mut text, of, seen);
            }
        }
        Update::Synced { gone, .. } => {
            for of in gone {
                line(&mut text, of, "gone");
            }
        }
        // Nothing that a watch shows or subscribes to.
        Update::Event(_)
        | Update::Gap { .. }
        | Update::Opened(_)
        | Update::Closed(_)
        | Update::Outcome(_)
        | Update::Devices(_)
        | Update::Unsubscribed { .. } => {}
    }
    text
}

fn line(text: &mut String, of: &Address, rest: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{of} {rest}");
}

fn presence(text: &mut String, of: &Address, seen: &Seen) {
    let reason = seen.reason.map(|reason| format!(" ({})", reason.as_str())).unwrap_or_default();
    line(text, of, &format!("{}{reason}", if seen.online { "online" } else { "offline" }));
}

#[cfg(test)]
mod tests {
    use riser_client::Received;

    use super::*;

    fn lines(view: &mut View, frame: &str) -> String {
        let update = view.apply(Received::parse(frame).expect("a frame")).expect("an update");
        of(view, &update)
    }

    #[test]
    fn each_change_is_a_line_that_a_peer_cannot_break() {
        let mut view = View::default();
        let snapshot = "{\"t\":\"snapshot\",\"of\":\"b/g\",\"online\":true,\"since_ms\":5,\"epoch\":7,\"rev\":2,\"at_ms\":9,\
            \"state\":{\"a\":1,\"b\":\"\u{202e}x\u{7f}\"},\"stale\":[\"b\"]}";
        assert_eq!(lines(&mut view, snapshot), "b/g online\nb/g a 1\nb/g b \"\\u202ex\\u007f\" (stale)\n");
        let delta = r#"{"t":"state","of":"b/g","epoch":7,"rev":3,"set":{"a":null,"b":{"on":true}},"at_ms":9}"#;
        assert_eq!(lines(&mut view, delta), "b/g a deleted\nb/g b {\"on\":true}\n");
        let gone = r#"{"t":"presence","of":"b/g","online":false,"epoch":7,"reason":"edge_lost","at_ms":9}"#;
        assert_eq!(lines(&mut view, gone), "b/g offline (edge_lost)\n");
    }
}
