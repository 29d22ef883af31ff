//! Tables for people: columns as wide as what is in them.

use serde_json::Value;

/// Widest column, in characters, so that one long text does not push the others off the screen.
const WIDEST: usize = 60;

/// A value as it stands in a table. What another wrote cannot move the cursor.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => riser_ops::visible(text).into_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        value => riser_ops::visible(&value.to_string()).into_owned(),
    }
}

/// A time in Unix milliseconds, in UTC to the second.
pub(super) fn time(value: &Value) -> String {
    let moment = value.as_u64().map(crate::clock::rfc3339);
    moment.map_or_else(|| "-".to_owned(), |moment| moment.chars().take(19).collect())
}

/// Lines of columns, with a head unless that is empty.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = Some(head).into_iter().filter(|head| !head.is_empty()).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widths = rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count());
        widths.max().unwrap_or(0).min(WIDEST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]];
        let shown = table(&["NAME", "N"], rows.into_iter());
        assert_eq!(shown, "NAME    N\na       1\nlonger  22\n");
        assert_eq!(table(&[], std::iter::empty()), "");
    }

    #[test]
    fn what_another_wrote_is_shown_and_not_obeyed() {
        assert!(!cell(&json!("\u{1b}[2J\n")).chars().any(char::is_control));
        assert_eq!((cell(&json!(null)), cell(&json!(true)), cell(&json!(7))), ("-".into(), "yes".into(), "7".into()));
    }
}
