//! Lines of a list of flats: `address,name,floor,note`, the last three optional, as spreadsheets write them.

use std::io::BufRead;

use riser_core::Address;
use serde_json::{Value, json};

/// Longest line, in bytes: several times what a flat's texts may take.
const LINE_BYTES: u64 = 4_096;
/// The columns, in their order. A first line of these names is a head.
const COLUMNS: [&str; 4] = ["address", "name", "floor", "note"];

/// A flat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: Address,
    /// Its name, floor and note.
    pub(super) about: [Option<String>; 3],
}

impl Row {
    /// As the admin API takes it.
    pub(super) fn json(&self) -> Value {
        let [name, floor, note] = &self.about;
        json!({ "address": self.address, "name": name, "floor": floor, "note": note })
    }
}

/// The rows of a file with the numbers of their lines, bad ones too. Empty lines and a head are left out.
pub(super) struct Lines<R> {
    from: R,
    number: u64,
    over: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, number: 0, over: false }
    }

    /// The next line without its end; none when there is none.
    fn line(&mut self) -> Option<Result<Vec<u8>, String>> {
        let mut line = vec![];
        let read = std::io::Read::take(&mut self.from, LINE_BYTES).read_until(b'\n', &mut line);
        match read {
            Err(error) => {
                self.over = true;
                Some(Err(format!("cannot be read: {error}")))
            }
            Ok(0) => None,
            Ok(_) if !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES => {
                self.skip();
                Some(Err(format!("longer than {LINE_BYTES} bytes")))
            }
            Ok(_) => Some(Ok(line)),
        }
    }

    /// Goes to the end of a line that is too long.
    fn skip(&mut self) {
        loop {
            let mut rest = vec![];
            match std::io::Read::take(&mut self.from, LINE_BYTES).read_until(b'\n', &mut rest) {
                Ok(1..) if !rest.ends_with(b"\n") => {}
                _ => return,
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = (u64, Result<Row, String>);
    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            let line = self.line()?;
            self.number += 1;
            let cells = line.and_then(|line| {
                let text = String::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
                // What some spreadsheets put before everything.
                cells(text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']))
            });
            match cells {
                Ok(cells) if cells.iter().all(|cell| cell.trim().is_empty()) => {}
                Ok(cells) if self.number == 1 && cells[0].trim().eq_ignore_ascii_case(COLUMNS[0]) => {}
                Ok(cells) => return Some((self.number, row(&cells))),
                Err(why) => return Some((self.number, Err(why))),
            }
        }
        None
    }
}

fn row(cells: &[String]) -> Result<Row, String> {
    if cells.len() > COLUMNS.len() {
        return Err(format!("{} columns; there are {}", cells.len(), COLUMNS.join(", ")));
    }
    let address: Address = cells[0].trim().parse().map_err(|error| {
        let hint = if cells[0].contains([';', '\t']) { "; columns are separated by commas" } else { "" };
        format!("the address is {error}{hint}")
    })?;
    if !address.is_gateway() {
        return Err("a building or a tenant is no flat".into());
    }
    let about = |at: usize| cells.get(at).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty());
    let row = Row { address, about: [about(1), about(2), about(3)] };
    match row.about.iter().flatten().find(|text| !riser_tenants::flats::is_about(text)) {
        Some(_) => Err("a name, floor or note has at most 128 bytes and nothing hidden".into()),
        None => Ok(row),
    }
}

/// The cells of a line. A cell in quotes may hold commas, and quotes that are doubled.
fn cells(line: &str) -> Result<Vec<String>, String> {
    let (mut cells, mut cell, mut rest) = (vec![], String::new(), line.chars().peekable());
    let mut quotes = false;
    while let Some(c) = rest.next() {
        match (c, quotes) {
            ('"', true) if rest.peek() == Some(&'"') => {
                cell.push('"');
                rest.next();
            }
            ('"', true) => {
                quotes = false;
                if !matches!(rest.peek(), None | Some(',')) {
                    return Err("something stands behind a closing quote".into());
                }
            }
            ('"', false) if cell.is_empty() => quotes = true,
            (',', false) => cells.push(std::mem::take(&mut cell)),
            (c, _) => cell.push(c),
        }
    }
    if quotes {
        return Err("a quote is not closed".into());
    }
    cells.push(cell);
    Ok(cells)
}

/// A cell as it is written.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(u64, Result<String, String>)> {
        let shown = |row: Row| format!("{} {}", row.address, row.about.map(Option::unwrap_or_default).join("|"));
        Lines::new(text).map(|(number, row)| (number, row.map(shown))).collect()
    }

    #[test]
    fn flats_are_read_as_spreadsheets_write_them() {
        let text =
            "\u{feff}address,name,floor,note\r\nb/f1,1 left,1,\r\n\r\nb/f2,\"Meyer, \"\"Sunny\"\"\",2,dog\nb/f3\n,,,\n";
        let rows = read(text.as_bytes());
        let good = |number, text: &str| (number, Ok(text.to_owned()));
        assert_eq!(rows, [good(2, "b/f1 1 left|1|"), good(4, "b/f2 Meyer, \"Sunny\"|2|dog"), good(5, "b/f3 ||")]);
        assert_eq!(quoted("Meyer, \"Sunny\""), "\"Meyer, \"\"Sunny\"\"\"");
    }

    #[test]
    fn a_bad_line_is_named_and_the_next_is_read() {
        let long = "x".repeat(20_000);
        let name = "n".repeat(129);
        let text =
            format!("b/f1,a,b,c,d\nb\nb/_,entrance\n\"b/f1\nb/f1,\"a\"b\n{long}\nb/f2,{name}\nb/f3,\u{7}\nb/f4\n");
        let rows = read(text.as_bytes());
        assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let words =
            ["5 columns", "the address is", "no flat", "not closed", "behind a closing", "longer than", "128", "128"];
        for ((number, row), words) in rows.iter().zip(words) {
            assert!(row.as_ref().is_err_and(|why| why.contains(words)), "{number}: {row:?}");
        }
        assert_eq!(rows[8].1, Ok("b/f4 ||".to_owned()));
        assert_eq!(read(b"\xff\nb/f1\n").len(), 2);
        let german = read(b"b/f1;one;1\n");
        assert!(german[0].1.as_ref().is_err_and(|why| why.contains("separated by commas")), "{german:?}");
    }
}
