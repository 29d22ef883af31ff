//! `riser gateway import`: a list of flats becomes registered flats, and codes to enrol their gateways with.
//!
//! The file is read line by line and sent some lines at a time, so that a hundred thousand flats take no more memory than a
//! hundred. A bad line is named and left out; the others are registered, and doing it again changes nothing.

mod lines;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use qrcode::{Color, QrCode};
use riser_core::{Address, TenantId};
use serde_json::{Value, json};

use super::{Desk, of};
use crate::exit::{self, Failure};
use lines::{Lines, Row};

/// Bytes of flats that one call registers, as they are sent: the admin API takes 64 KiB in all.
const BATCH_BYTES: usize = 48 * 1024;
/// Flats that one call registers.
const BATCH: usize = 100;
/// Empty squares around a QR code, as its standard wants them.
const QUIET: usize = 4;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) file: &'a Path,
    pub(super) new_codes: bool,
    pub(super) code_ttl: Option<Duration>,
    /// A folder for QR codes.
    pub(super) qr: Option<&'a Path>,
}

/// What was done so far.
#[derive(Default)]
struct Done {
    flats: u64,
    new: u64,
    codes: u64,
    bad: u64,
}

pub(super) async fn run(desk: &Desk, wish: &Wish<'_>) -> Result<ExitCode, Failure> {
    if let Some(folder) = wish.qr {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let input: Box<dyn Read> = if wish.file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let failed = |error| Failure::Usage(format!("cannot read {}: {error}", wish.file.display()));
        Box::new(File::open(wish.file).map_err(failed)?)
    };
    let mut done = Done::default();
    // Of each address eight bytes: the text of all of them would be most of what this takes.
    let mut seen = HashSet::new();
    let (mut batch, mut bytes) = (vec![], 0);
    exit::print("address,name,code\n")?;
    for (number, line) in Lines::new(BufReader::new(input)) {
        match line.and_then(|row| fresh(row, &mut seen)) {
            Ok(row) => {
                bytes += row.json().to_string().len();
                batch.push(row);
            }
            Err(why) => {
                done.bad += 1;
                exit::say(&format!("line {number}: {why}"));
            }
        }
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            send(desk, wish, std::mem::take(&mut batch), &mut done).await?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        send(desk, wish, batch, &mut done).await?;
    }
    let Done { flats, new, codes, bad } = done;
    exit::say(&format!("{flats} flats registered, {new} of them new; {codes} codes made; {bad} bad lines left out"));
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// A row whose address was not in the file before.
fn fresh(row: Row, seen: &mut HashSet<u64>) -> Result<Row, String> {
    let mut hasher = DefaultHasher::new();
    row.address.hash(&mut hasher);
    if seen.insert(hasher.finish()) { Ok(row) } else { Err("the address stands in a line before".into()) }
}

async fn send(desk: &Desk, wish: &Wish<'_>, batch: Vec<Row>, done: &mut Done) -> Result<(), Failure> {
    let rows: Vec<Value> = batch.iter().map(Row::json).collect();
    let mut body = json!({ "flats": rows, "codes": if wish.new_codes { "all" } else { "missing" } });
    if let Some(ttl) = wish.code_ttl {
        body["code_ttl_ms"] = json!(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    }
    let said = desk.ask(Method::POST, &format!("{}/flats", of(wish.tenant)), Some(&body)).await?.body;
    let mut text = String::new();
    for flat in said["flats"].as_array().into_iter().flatten() {
        done.flats += 1;
        done.new += u64::from(flat["new"] == true);
        let Some(code) = flat["code"].as_str() else { continue };
        done.codes += 1;
        let row = batch.iter().find(|row| flat["address"] == row.address.to_string());
        let name = row.and_then(|row| row.about[0].as_deref()).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{},{code}", super::table::cell(&flat["address"]), lines::quoted(name));
        if let (Some(folder), Some(row)) = (wish.qr, row) {
            draw(folder, &row.address, code)?;
        }
    }
    exit::print(&text)?;
    if io::stderr().is_terminal() {
        exit::say(&format!("{} flats so far", done.flats));
    }
    Ok(())
}

/// Writes a flat's code as an SVG picture.
fn draw(folder: &Path, address: &Address, code: &str) -> Result<(), Failure> {
    let svg = svg(code).with_context(|| format!("cannot draw the code of {address}"))?;
    let file = folder.join(format!("{}-{}.svg", address.building(), address.gateway()));
    Ok(fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?)
}

/// A QR code as SVG: black squares on white.
fn svg(text: &str) -> Result<String, qrcode::types::QrError> {
    let code = QrCode::new(text)?;
    let (width, size) = (code.width(), code.width() + 2 * QUIET);
    let mut path = String::new();
    for (at, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let _ = write!(path, "M{} {}h1v1h-1z", at % width + QUIET, at / width + QUIET);
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/><path d=\"{path}\"/></svg>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_with_room_around_it_and_two_codes_differ() {
        let [one, two] =
            ["acme/b1/f1/AAAA-BBBB-CCCC-DDDD", "acme/b1/f2/AAAA-BBBB-CCCC-DDDE"].map(|text| svg(text).expect("a code"));
        assert!(one.starts_with("<svg ") && one.ends_with("</svg>\n") && one.contains("M4 4h1v1h-1z"), "{one}");
        assert!(!one.contains("M0 ") && one != two);
    }
}
