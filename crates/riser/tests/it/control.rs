//! `riser tenant`, `key`, `quota` and `gateway` against a development cluster.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{Dev, Folder, http, nowhere, riser};

/// How often is looked for what must come: each time a program starts, which takes some milliseconds.
const LOOKS: usize = 2_000;

/// What a tool wrote, and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tool(dev: &Dev, args: &[&str]) -> Said {
    let mut command = riser(args);
    let (url, secret) = (dev.text("control"), dev.text("control_credential"));
    command.env("RISER_CONTROL_URL", url).env("RISER_CONTROL_CREDENTIAL", secret);
    outcome(command.stdin(Stdio::null()))
}

fn outcome(command: &mut Command) -> Said {
    let output = command.output().expect("it starts");
    let utf8 = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: utf8(output.stdout), err: utf8(output.stderr) }
}

#[track_caller]
fn good(dev: &Dev, args: &[&str]) -> String {
    let said = tool(dev, args);
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.err);
    said.out
}

fn presence(dev: &Dev, key: &str, building: &str) -> Value {
    let (_, body) = http(&dev.url("http", 0), &format!("GET /v1/presence?building={building}"), Some(key), "");
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn an_operator_makes_tenants_and_keys_and_takes_them_away() {
    let dev = Dev::start(&["--flats", "1"]);
    let listed = good(&dev, &["tenant", "list"]);
    assert!(
        listed.lines().nth(1).is_some_and(|row| row.starts_with("dev ")) && listed.contains("neighbour"),
        "{listed}"
    );
    good(&dev, &["tenant", "create", "acme"]);
    let taken = tool(&dev, &["tenant", "create", "acme"]);
    assert!(taken.code == Some(3) && taken.err.contains("there is a tenant of this name"), "{}", taken.err);
    let key = good(&dev, &["key", "create", "acme", "k", "--grant", "*/*:read"]);
    assert!(key.starts_with("rk_") && key.lines().count() == 1, "{key}");
    let keys: Value = serde_json::from_str(&good(&dev, &["key", "list", "acme", "--json"])).expect("JSON");
    let id = keys["keys"][0]["id"].as_str().expect("an id");
    let rotated = good(&dev, &["key", "rotate", "acme", id, "--old-ends", "1h"]);
    assert_ne!(rotated, key);
    assert!(!good(&dev, &["key", "list", "acme"]).contains("rk_"));
    good(&dev, &["key", "revoke", "acme", id]);
    let quotas = good(&dev, &["quota", "set", "acme", "gateway_sessions=5", "held_commands=7"]);
    assert!(quotas.contains("gateway_sessions  5"), "{quotas}");
    let quotas = good(&dev, &["quota", "set", "acme", "held_commands=none"]);
    assert!(quotas.contains("gateway_sessions") && !quotas.contains("held_commands"), "{quotas}");
    good(&dev, &["tenant", "suspend", "acme"]);
    assert!(good(&dev, &["tenant", "show", "acme"]).contains("suspended"));
    good(&dev, &["tenant", "resume", "acme"]);
    // The simulated flat connects when it connects.
    let listed = (0..LOOKS).any(|_| good(&dev, &["gateway", "list", "dev"]).contains("b1/f0101"));
    assert!(listed, "the simulated flat is not listed");
    let kept = tool(&dev, &["tenant", "delete", "acme"]);
    assert_eq!(kept.code, Some(64), "without --yes: {}", kept.err);
    assert!(good(&dev, &["tenant", "delete", "acme", "--yes"]).contains("erased"));
    assert_eq!(tool(&dev, &["tenant", "show", "acme"]).code, Some(3));
    let denied = riser(&["tenant", "list", "--control", &dev.text("control")])
        .env("RISER_CONTROL_CREDENTIAL", "x".repeat(43))
        .output()
        .expect("it starts");
    assert_eq!(denied.status.code(), Some(77));
}

#[test]
fn a_list_of_flats_is_registered_once_and_its_bad_lines_are_named() {
    let dev = Dev::start(&["--flats", "0"]);
    let folder = Folder::new();
    let (list, qr) = (folder.0.join("flats.csv"), folder.0.join("codes"));
    let [list, qr] = [&list, &qr].map(|path| path.to_str().expect("UTF-8").to_owned());
    let mut text = "address,name,floor\nb9/f1,\"Meyer, left\",1\nb9/f2\nb9\nb9/f1,twice\n".to_owned();
    text.extend((0..250).map(|n| format!("b10/f{n}\n")));
    fs::write(&list, text).expect("a file");
    let said = tool(&dev, &["gateway", "import", "dev", &list, "--qr", &qr]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("line 4: the address is") && said.err.contains("line 5: the address stands"),
        "{}",
        said.err
    );
    assert!(said.err.contains("252 flats registered, 252 of them new; 252 codes made; 2 bad lines"), "{}", said.err);
    assert_eq!(said.out.lines().count(), 253);
    let code = said.out.lines().find_map(|line| line.strip_prefix("b9/f1,\"Meyer, left\",")).expect("a code");
    assert!(code.starts_with("dev/b9/f1/"), "{code}");
    assert!(fs::read_to_string(format!("{qr}/b9-f1.svg")).expect("a picture").starts_with("<svg "));
    let again = tool(&dev, &["gateway", "import", "dev", &list]);
    assert!(again.err.contains("252 flats registered, 0 of them new; 0 codes made"), "{}", again.err);
    let row = &presence(&dev, &dev.text("api_key"), "b9")["gateways"][0];
    assert_eq!(
        (&row["of"], &row["name"], &row["reason"]),
        (&"b9/f1".into(), &"Meyer, left".into(), &"never_connected".into())
    );
    let body = format!("{{\"code\":\"{code}\"}}");
    let (status, body) = http(&dev.url("http", 0), "POST /v1/enrol", None, &body);
    assert!(status == 201 && body.contains("\"token\""), "{status} {body}");
}

/// A control plane that answers so many calls with these, and who asked it what.
fn plane(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serve = move |(status, body): (u16, String)| {
        let (mut stream, _) = listener.accept().expect("a call");
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a head");
            let lower = line.to_lowercase();
            length = lower.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().expect("a number"));
        }
        let mut asked = vec![0; length];
        reader.read_exact(&mut asked).expect("a body");
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).expect("it reads");
        String::from_utf8(asked).expect("UTF-8")
    };
    (url, thread::spawn(move || answers.into_iter().map(serve).collect()))
}

/// The command that imports a list, which it puts into the folder, with a control plane at this URL.
fn importing(folder: &Folder, url: &str, list: &[u8]) -> Command {
    let file = folder.0.join("flats.csv");
    fs::write(&file, list).expect("a file");
    let mut command = riser(&["gateway", "import", "acme", file.to_str().expect("UTF-8"), "--control", url]);
    command.env("RISER_CONTROL_CREDENTIAL", "x".repeat(43));
    command
}

/// Imports a list with a control plane at this URL.
fn import(url: &str, list: &[u8]) -> Said {
    outcome(&mut importing(&Folder::new(), url, list))
}

#[test]
fn an_import_that_is_cut_off_says_where_and_prints_what_was_done() {
    let mut list = String::new();
    list.extend((0..250).map(|n| format!("b1/f{n}\n")));
    let row = |n: usize| format!(r#"{{"address":"b1/f{n}","new":true,"code":"acme/b1/f{n}/X"}}"#);
    let rows: Vec<String> = (0..100).map(row).collect();
    let good = format!(r#"{{"flats":[{}],"codes_until_ms":1}}"#, rows.join(","));
    let (url, asked) = plane(vec![(200, good), (503, r#"{"code":"unavailable","detail":"the bucket"}"#.into())]);
    let said = import(&url, list.as_bytes());
    assert_eq!(said.code, Some(69), "{}", said.err);
    assert!(said.err.contains("stopped in lines 101 to 200; the 100 flats before them are registered"), "{}", said.err);
    assert_eq!(said.out.lines().count(), 101);
    let asked = asked.join().expect("no panic");
    assert!(asked[1].contains("\"b1/f199\"") && !asked[1].contains("\"b1/f200\""), "{}", asked[1]);
    let (url, asked) = plane(vec![(404, r#"{"code":"not_found","detail":"there is no tenant of this name"}"#.into())]);
    let said = import(&url, list.as_bytes());
    assert!(said.code == Some(3) && said.err.contains("no tenant") && !said.err.contains("stopped"), "{}", said.err);
    asked.join().expect("no panic");
    // A building may have taken its part of the call before another refused its own.
    let (url, asked) = plane(vec![(409, r#"{"code":"conflict","detail":"others change this building"}"#.into())]);
    let said = import(&url, list.as_bytes());
    assert!(said.code == Some(3) && said.err.contains("stopped in lines 1 to 100; the 0 flats"), "{}", said.err);
    assert!(said.err.contains("--new-codes"), "{}", said.err);
    asked.join().expect("no panic");
}

#[test]
fn an_import_whose_codes_nobody_reads_registers_nothing() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let folder = Folder::new();
    let said = outcome(importing(&folder, &nowhere(), b"b1/f1\n").stdout(writer));
    assert!(said.code == Some(1) && said.err.contains("nobody reads the codes any more"), "{}", said.err);
}

#[test]
fn an_import_that_cannot_draw_a_picture_says_which_and_that_the_codes_are_printed() {
    let folder = Folder::new();
    let row = |n: usize| format!(r#"{{"address":"b1/f{n}","new":true,"code":"acme/b1/f{n}/X"}}"#);
    let (url, asked) = plane(vec![(200, format!(r#"{{"flats":[{},{}],"codes_until_ms":1}}"#, row(1), row(2)))]);
    // No file can be written where a folder is.
    fs::create_dir_all(folder.0.join("codes/b1-f1.svg")).expect("a folder");
    let said = outcome(importing(&folder, &url, b"b1/f1\nb1/f2\n").arg("--qr").arg(folder.0.join("codes")));
    asked.join().expect("no panic");
    assert!(said.code == Some(1) && said.out.contains("b1/f1,,acme/b1/f1/X\n"), "{}{}", said.out, said.err);
    let told = ["no picture of the code of b1/f1: ", "their codes are printed", "1 pictures of codes in lines 1 to 2"];
    assert!(told.iter().all(|text| said.err.contains(text)) && !said.err.contains("--new-codes"), "{}", said.err);
    assert!(fs::read_to_string(folder.0.join("codes/b1-f2.svg")).expect("a picture").starts_with("<svg "));
}

#[test]
fn what_is_no_list_is_refused_and_not_named_line_by_line() {
    let url = nowhere();
    let utf16: Vec<u8> = "b1/f1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let said = import(&url, &utf16);
    assert!(said.code == Some(64) && said.err.contains("is not a list in text") && said.out.is_empty(), "{}", said.err);
    let said = import(&url, "x\n".repeat(1_500).as_bytes());
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("line 1000: ") && !said.err.contains("line 1001: "), "{}", said.err);
    assert!(said.err.contains("further bad lines are counted") && said.err.contains("1500 bad lines left out"));
}

#[test]
fn flats_whose_gateways_tokens_end_soon_are_listed_with_those_that_end_first_at_the_top() {
    let dev = Dev::start(&["--flats", "0"]);
    let folder = Folder::new();
    let list = folder.0.join("flats.csv");
    fs::write(&list, "b9/f1,one\nb9/f2,two\nb9/f3,three\n").expect("a file");
    good(&dev, &["gateway", "import", "dev", list.to_str().expect("UTF-8")]);
    for (address, days) in [("b9/f1", 20), ("b9/f2", 10), ("b9/f3", 40)] {
        let order = format!("{{\"peer\":\"gateway\",\"address\":\"{address}\",\"ttl_s\":{}}}", days * 86_400);
        let (status, body) = http(&dev.url("http", 0), "POST /v1/tokens", Some(&dev.text("api_key")), &order);
        assert_eq!(status, 201, "{body}");
    }
    let within = |time: &str| good(&dev, &["gateway", "list", "dev", "--building", "b9", "--token-ends-within", time]);
    // They are noted some seconds after they were made.
    let noted = (0..LOOKS).any(|_| within("3650d").lines().count() == 4);
    assert!(noted, "{}", within("3650d"));
    let listed = within("30d");
    let rows: Vec<Vec<&str>> = listed.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ADDRESS", "NAME", "TOKEN", "ENDS"]);
    assert_eq!(rows[1..].iter().map(|row| &row[..2]).collect::<Vec<_>>(), [["b9/f2", "two"], ["b9/f1", "one"]]);
    assert!(rows[1][2] < rows[2][2], "{listed}");
    // No gateway of it ever connected.
    assert_eq!(good(&dev, &["gateway", "list", "dev", "--token-ends-within", "30d"]).lines().count(), 1);
    let refused = tool(&dev, &["gateway", "list", "dev", "--token-ends-within", "36h"]);
    assert!(refused.code == Some(64) && refused.err.contains("whole days from 1d to 3650d"), "{}", refused.err);
}
