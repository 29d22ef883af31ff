//! `riser tenant`, `key`, `quota` and `gateway` against a development cluster.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use super::{Dev, Folder, http, riser};

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
    let output = command.stdin(Stdio::null()).output().expect("it starts");
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
