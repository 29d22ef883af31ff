//! `riser gateway import`: a list of flats becomes registered flats, and codes to enrol their gateways with.
//!
//! The file is read line by line and sent some lines at a time, so that a hundred thousand flats take no more memory than a
//! hundred. A bad line is named and left out; the others are registered, and doing it again changes nothing.

mod lines;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::Method;
use qrcode::{Color, QrCode};
use riser_client::End;
use riser_core::{Address, TenantId};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Desk, of};
use crate::exit::{self, Failure};
use lines::{Lines, Row};

/// Bytes of flats that one call registers, as they are sent: the admin API takes 64 KiB in all.
const BATCH_BYTES: usize = 48 * 1024;
/// Flats that one call registers.
const BATCH: usize = 100;
/// Bad lines that are named. A file of something else has one bad line after the other.
const BAD_NAMED: u64 = 1_000;
/// Between two words on how far it is.
const PROGRESS: Duration = Duration::from_secs(1);
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
struct Done {
    flats: u64,
    new: u64,
    codes: u64,
    bad: u64,
    /// When it was said last how far it is, if somebody looks.
    told: Option<Instant>,
}

impl Done {
    /// Names a bad line.
    fn bad(&mut self, number: u64, why: &str) {
        self.bad += 1;
        match self.bad {
            ..=BAD_NAMED => exit::say(&format!("line {number}: {why}")),
            at if at == BAD_NAMED + 1 => exit::say("further bad lines are counted, and not named"),
            _ => {}
        }
    }

    /// Says now and then how far it is.
    fn tell(&mut self, number: u64) {
        if self.told.is_some_and(|told| told.elapsed() >= PROGRESS) {
            exit::say(&format!("line {number}: {} flats so far", self.flats));
            self.told = Some(Instant::now());
        }
    }
}

/// Why no further call is made.
enum Stop {
    /// Nothing was done of these lines: the credential or the tenant is wrong.
    Refused(Failure),
    /// Any of these lines may have been done, and codes made that nobody saw: the control plane stores flats part by part,
    /// and may refuse or fail at a later part.
    Cut(Failure),
    /// All of these lines were done and their codes printed, and of so many there is no picture.
    Undrawn(u64),
}

impl Stop {
    fn of(end: End) -> Self {
        let is_refused = matches!(end, End::Refused { status: 401 | 403 | 404, .. });
        let failure = Failure::from(end);
        if is_refused { Self::Refused(failure) } else { Self::Cut(failure) }
    }
}

/// Flats that one call registers.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// As they are sent.
    bytes: usize,
    /// The numbers of the first line and of the last.
    lines: (u64, u64),
}

impl Batch {
    fn push(&mut self, number: u64, row: Row) {
        let first = if self.rows.is_empty() { number } else { self.lines.0 };
        self.lines = (first, number);
        self.bytes += row.json().to_string().len();
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
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
    let mut input = BufReader::new(input);
    if !is_text(&mut input) {
        let file = wish.file.display();
        let text = format!("{file} is not a list in text: let the spreadsheet save it as CSV in UTF-8");
        return Err(Failure::Usage(text));
    }
    let told = io::stderr().is_terminal().then(Instant::now);
    let mut done = Done { flats: 0, new: 0, codes: 0, bad: 0, told };
    // Of each address eight bytes: the text of all of them would be most of what this takes.
    let mut seen = HashSet::new();
    let mut batch = Batch::default();
    if !exit::print("address,name,code\n")? {
        return Err(unread());
    }
    for (number, line) in Lines::new(input) {
        match line.and_then(|row| fresh(row, &mut seen)) {
            Ok(row) => batch.push(number, row),
            Err(why) => done.bad(number, &why),
        }
        if batch.is_full() {
            register(desk, wish, &std::mem::take(&mut batch), &mut done).await?;
            done.tell(number);
        }
    }
    if !batch.rows.is_empty() {
        register(desk, wish, &batch, &mut done).await?;
    }
    let Done { flats, new, codes, bad, .. } = done;
    exit::say(&format!("{flats} flats registered, {new} of them new; {codes} codes made; {bad} bad lines left out"));
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Whether what begins the file may be text. Spreadsheets' own files and UTF-16 have bytes of zero near their beginning.
fn is_text(input: &mut impl BufRead) -> bool {
    // What cannot be read is told with its line.
    input.fill_buf().map_or(true, |bytes| !bytes.contains(&0))
}

/// A row whose address was not in the file before.
fn fresh(row: Row, seen: &mut HashSet<u64>) -> Result<Row, String> {
    let mut hasher = DefaultHasher::new();
    row.address.hash(&mut hasher);
    if seen.insert(hasher.finish()) { Ok(row) } else { Err("the address stands in a line before".into()) }
}

/// Registers flats, or says where it stopped.
async fn register(desk: &Desk, wish: &Wish<'_>, batch: &Batch, done: &mut Done) -> Result<(), Failure> {
    let before = done.flats;
    let Err(stop) = send(desk, wish, batch, done).await else { return Ok(()) };
    let (first, last) = batch.lines;
    match stop {
        // Whose credential or tenant is wrong is told so at the first call, and nothing else.
        Stop::Refused(failure) if before == 0 => Err(failure),
        Stop::Refused(failure) | Stop::Cut(failure) => {
            let how = if wish.new_codes {
                format!("Import the list from line {first} on to go on")
            } else {
                "Import the list again to go on. Flats of these lines that get no code then have one that was not shown: \
                 import them with --new-codes"
                    .to_owned()
            };
            let text =
                format!("stopped in lines {first} to {last}; the {before} flats before them are registered. {how}");
            exit::say(&text);
            Err(failure)
        }
        Stop::Undrawn(missing) => {
            exit::say(&format!(
                "stopped after line {last}; the flats up to it are registered, and their codes are printed: pictures can be \
                 made of these. Import the lines after it, if there are any, to go on"
            ));
            Err(Failure::Other(anyhow!("{missing} pictures of codes in lines {first} to {last} are missing")))
        }
    }
}

/// What there is to say when standard output is closed.
fn unread() -> Failure {
    Failure::Other(anyhow!("nobody reads the codes any more"))
}

async fn send(desk: &Desk, wish: &Wish<'_>, batch: &Batch, done: &mut Done) -> Result<(), Stop> {
    let rows: Vec<Value> = batch.rows.iter().map(Row::json).collect();
    let mut body = json!({ "flats": rows, "codes": if wish.new_codes { "all" } else { "missing" } });
    if let Some(ttl) = wish.code_ttl {
        body["code_ttl_ms"] = json!(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    }
    let path = format!("{}/flats", of(wish.tenant));
    let said = desk.admin.call(Method::POST, &path, Some(&body), None).await.map_err(Stop::of)?.body;
    let sent: HashMap<String, &Row> = batch.rows.iter().map(|row| (row.address.to_string(), row)).collect();
    let (mut text, mut drawn) = (String::new(), vec![]);
    for flat in said["flats"].as_array().into_iter().flatten() {
        done.flats += 1;
        done.new += u64::from(flat["new"] == true);
        let Some(code) = flat["code"].as_str() else { continue };
        done.codes += 1;
        let row = flat["address"].as_str().and_then(|address| sent.get(address).copied());
        let name = row.and_then(|row| row.about[0].as_deref()).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{},{code}", super::table::cell(&flat["address"]), lines::quoted(name));
        drawn.extend(row.map(|row| (&row.address, code)));
    }
    if !exit::print(&text).map_err(|error| Stop::Cut(error.into()))? {
        return Err(Stop::Cut(unread()));
    }
    let Some(folder) = wish.qr else { return Ok(()) };
    let mut missing = 0;
    // One that fails keeps none from being drawn: the codes are not shown again, and each that is missing is named.
    for (address, code) in drawn {
        if let Err(error) = draw(folder, address, code) {
            missing += 1;
            exit::say(&format!("there is no picture of the code of {address}: {error:#}"));
        }
    }
    if missing == 0 { Ok(()) } else { Err(Stop::Undrawn(missing)) }
}

/// Writes a flat's code as an SVG picture.
fn draw(folder: &Path, address: &Address, code: &str) -> anyhow::Result<()> {
    let svg = svg(code).context("cannot draw it")?;
    let file = folder.join(format!("{}-{}.svg", address.building(), address.gateway()));
    fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))
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
    fn what_a_spreadsheet_saves_as_its_own_is_not_taken_for_a_list() {
        let utf16: Vec<u8> = "address\nb/f1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let rows: [(&[u8], bool); 4] =
            [(b"PK\x03\x04\x14\x00", false), (&utf16, false), (b"b/f1,\xff\n", true), (b"", true)];
        for (mut bytes, text) in rows {
            assert_eq!(is_text(&mut bytes), text, "{bytes:?}");
        }
    }

    #[test]
    fn a_code_is_drawn_with_room_around_it_and_two_codes_differ() {
        let [one, two] =
            ["acme/b1/f1/AAAA-BBBB-CCCC-DDDD", "acme/b1/f2/AAAA-BBBB-CCCC-DDDE"].map(|text| svg(text).expect("a code"));
        assert!(one.starts_with("<svg ") && one.ends_with("</svg>\n") && one.contains("M4 4h1v1h-1z"), "{one}");
        assert!(!one.contains("M0 ") && one != two);
    }
}
