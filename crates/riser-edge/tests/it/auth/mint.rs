//! Tokens that Riser makes: what may be ordered, and that what was made verifies.

use http::StatusCode;
use riser_core::grant::gateway_grants;
use riser_core::{Address, ErrorCode, Peer};
use riser_edge::auth::{MintError, TokenOrder, mint, renew};

use super::*;

const YEAR_S: u64 = 365 * 86_400;

/// An API key with this scope.
fn minter(scope: &str) -> Identity {
    let grants = serde_json::from_str(scope).expect("grants");
    let peer = Peer::Client { subject: "backend".into() };
    Identity { tenant: id("acme"), peer, grants, expires_at_ms: None, lifetime_ms: None }
}

fn everything() -> Identity {
    Identity { grants: vec![Grant::everything()], ..minter("[]") }
}

fn address() -> Address {
    "b12/f0304".parse().expect("an address")
}

fn gateway(ttl_s: u64) -> TokenOrder {
    TokenOrder { peer: Peer::Gateway { address: address() }, grants: Vec::new(), ttl_s }
}

fn client(grants: Vec<Grant>) -> TokenOrder {
    TokenOrder { peer: Peer::Client { subject: "alice".into() }, grants, ttl_s: 900 }
}

fn minted(order: &TokenOrder, now_ms: u64) -> String {
    mint(&id("acme"), &tenant(ACME_SECRET), order, now_ms).expect("a token").token
}

#[test]
fn a_token_that_was_made_verifies_as_what_was_ordered() {
    let grants = r#"[{"to":"b12/*","path":["hall/#","+/light"],"may":["read","listen"]},{"to":"_/_","may":["event"]}]"#;
    let order = client(serde_json::from_str(grants).expect("grants"));
    let now_ms = NOW_MS + 999;
    let made = mint(&id("acme"), &tenant(ACME_SECRET), &order, now_ms).expect("a token");
    let identity = check_at(&made.token, now_ms).expect("a good token");
    assert_eq!(identity.tenant, id("acme"));
    assert_eq!(identity.peer, order.peer);
    assert_eq!(identity.grants, order.grants);
    assert_eq!(identity.expires_at_ms, Some(made.expires_at_ms));
    assert_eq!(made.expires_at_ms, NOW_MS + 900_000);
    assert_eq!(identity.lifetime_ms, Some(900_000));

    let identity = check(&minted(&gateway(YEAR_S), NOW_MS)).expect("a good token");
    assert_eq!(identity.peer, Peer::Gateway { address: address() });
    assert_eq!(identity.grants, gateway_grants(&address()));
    assert_eq!(identity.lifetime_ms, Some(YEAR_S * 1000));
}

#[test]
fn two_tokens_of_one_order_differ_and_neither_shows_in_a_log() {
    let made = |_| mint(&id("acme"), &tenant(ACME_SECRET), &gateway(60), NOW_MS).expect("a token");
    let [one, two] = [0, 1].map(made);
    assert_ne!(one.token, two.token);
    let shown = format!("{one:?}");
    assert!(one.token.split('.').all(|part| !shown.contains(part)), "{shown}");
}

/// What goes out, byte by byte but for the `jti`.
#[test]
fn a_token_says_what_the_protocol_says() {
    let token = minted(&gateway(60), NOW_MS);
    let part = |n: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(n).expect("a part")).expect("base64url");
        String::from_utf8(bytes).expect("UTF-8")
    };
    assert_eq!(part(0), r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#);
    let claims = part(1);
    let (head, jti) = claims.rsplit_once(r#","jti":""#).expect("a jti");
    assert_eq!(
        head,
        r#"{"iss":"acme","aud":"riser","sub":"b12/f0304","peer":"gateway","iat":1800000000,"exp":1800000060"#
    );
    assert_eq!(URL_SAFE_NO_PAD.decode(jti.trim_end_matches("\"}")).expect("base64url").len(), 16);
}

#[test]
fn an_order_that_no_token_can_follow_is_refused() {
    let acme = tenant(ACME_SECRET);
    let make = |order: &TokenOrder| mint(&id("acme"), &acme, order, NOW_MS).map(|_| ());
    let all = Grant::everything;
    let building = Peer::Gateway { address: "b12/_".parse().expect("an address") };
    let subject = |subject: &str| TokenOrder { peer: Peer::Client { subject: subject.into() }, ..client(vec![all()]) };
    for bad in [
        TokenOrder { peer: building, ..gateway(60) },
        TokenOrder { grants: vec![all()], ..gateway(60) },
        gateway(0),
        client(Vec::new()),
        client(vec![all(); 65]),
        subject(""),
        subject("a\n"),
        subject(&"s".repeat(129)),
    ] {
        assert!(matches!(make(&bad), Err(MintError::BadOrder(_))), "{bad:?}");
    }
    let paths: Vec<String> = (0..64).map(|n| format!("{}{n}", "p".repeat(200))).collect();
    let path = riser_core::PathFilter::parse(&paths).expect("a filter");
    assert_eq!(make(&client(vec![Grant { path, ..all() }])), Err(MintError::TooLarge));
    assert_eq!(make(&client(vec![all(); 64])), Ok(()));
    assert!(check(&minted(&client(vec![all(); 64]), NOW_MS)).is_ok(), "the most grants fit into a token");
    assert!(check(&minted(&gateway(u64::MAX), NOW_MS)).is_ok(), "the longest life is cut to the latest date");
}

#[test]
fn nothing_is_signed_without_a_key_that_is_believed() {
    let mut unnamed = tenant(ACME_SECRET);
    unnamed.signing_kid = "k2".into();
    let mut odd = tenant(ACME_SECRET);
    odd.signing_kid = "../k1".into();
    odd.signing_keys = BTreeMap::from([key("../k1", ACME_SECRET)]);
    for tenant in [unnamed, odd, tenant(b"short")] {
        assert_eq!(mint(&id("acme"), &tenant, &gateway(60), NOW_MS), Err(MintError::NoSigningKey));
    }
}

#[test]
fn a_renewed_token_has_the_same_rights_and_lasts_as_long() {
    let acme = tenant(ACME_SECRET);
    let identity = check(&minted(&gateway(YEAR_S), NOW_MS)).expect("a good token");
    let later_ms = NOW_MS + 1000 * (YEAR_S - 5);
    let fresh = renew(&identity, &acme, later_ms).expect("a token");
    let renewed = check_at(&fresh.token, later_ms).expect("a good token");
    assert_eq!(renewed.expires_at_ms, Some(later_ms + YEAR_S * 1000));
    assert_eq!(Identity { expires_at_ms: identity.expires_at_ms, ..renewed }, identity);
}

#[test]
fn who_may_not_renew_gets_nothing() {
    let acme = tenant(ACME_SECRET);
    let own = check(&minted(&gateway(600), NOW_MS)).expect("a good token");
    let end_ms = NOW_MS + 600_000 + 60_000;
    assert!(renew(&own, &acme, end_ms - 1).is_ok());
    assert_eq!(renew(&own, &acme, end_ms), Err(MintError::Forbidden), "run out");
    assert_eq!(renew(&own, &Tenant { renewal: false, ..acme.clone() }, NOW_MS), Err(MintError::Forbidden));
    assert_eq!(renew(&own, &Tenant { status: Status::Suspended, ..acme.clone() }, NOW_MS), Err(MintError::Forbidden));
    let user = check(&token(&[])).expect("a good token");
    assert_eq!(renew(&user, &acme, NOW_MS), Err(MintError::Forbidden), "a client asks for its tokens elsewhere");
    assert_eq!(renew(&everything(), &acme, NOW_MS), Err(MintError::Forbidden), "an API key");
    assert_eq!(MintError::Forbidden.code(), ErrorCode::Forbidden);
}

#[test]
fn orders_are_read_with_their_defaults() {
    let order = |body: &str| TokenOrder::parse(body.as_bytes(), &everything()).expect(body);
    assert_eq!(order(r#"{"peer":"gateway","address":"b12/f0304"}"#), gateway(YEAR_S));
    assert_eq!(order(r#"{"peer":"gateway","address":"b12/f0304","ttl_s":1}"#), gateway(1));
    assert_eq!(order(r#"{"peer":"gateway","address":"b12/f0304","ttl_s":315360000}"#), gateway(10 * YEAR_S));
    let asked = r#"{"to":"b12/*","path":["hall/#"],"may":["command","read","read"]}"#;
    let given = r#"[{"to":"b12/*","path":["hall/#"],"may":["read","command"]}]"#;
    let order_read = order(&format!(r#"{{"peer":"client","subject":"alice","grants":[{asked}]}}"#));
    assert_eq!(order_read, client(serde_json::from_str(given).expect("grants")));
    assert_eq!(check(&minted(&order_read, NOW_MS)).expect("a good token").grants, order_read.grants);
    let long = r#"{"peer":"client","subject":"alice","ttl_s":2592000,"grants":[{"to":"b12/*","may":["read"]}]}"#;
    assert_eq!(order(long).ttl_s, 2_592_000);
}

#[test]
fn an_order_with_a_mistake_is_refused_and_the_mistake_is_named() {
    let rows = [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"{"peer":"client","peer":"gateway"}"#, "a field twice"),
        ("{}", "`peer` is missing"),
        (r#"{"peer":7}"#, "`peer`: wrong type"),
        (r#"{"peer":"edge"}"#, "`peer`: neither"),
        (r#"{"peer":"gateway"}"#, "`address` is missing"),
        (r#"{"peer":"gateway","address":"b12/*"}"#, "`address`: not an address"),
        (r#"{"peer":"gateway","address":"b12/_"}"#, "`address`: a building"),
        (r#"{"peer":"gateway","address":"b12/f","grants":[]}"#, "unknown field \"grants\""),
        (r#"{"peer":"gateway","address":"b12/f","uses":1}"#, "unknown field \"uses\""),
        (r#"{"peer":"gateway","address":"b12/f","a\u202eb\n":1}"#, r#"unknown field "a\u{202e}b\n""#),
        (r#"{"peer":"gateway","address":"b12/f","ttl_s":0}"#, "`ttl_s`: not between 1 and 315360000"),
        (r#"{"peer":"gateway","address":"b12/f","ttl_s":315360001}"#, "`ttl_s`: not between"),
        (r#"{"peer":"gateway","address":"b12/f","ttl_s":-1}"#, "`ttl_s`: wrong type"),
        (r#"{"peer":"gateway","address":"b12/f","ttl_s":"60"}"#, "`ttl_s`: wrong type"),
        (r#"{"peer":"gateway","address":"b12/f","ttl_s":1.5}"#, "`ttl_s`: wrong type"),
        (r#"{"peer":"client","grants":[]}"#, "`subject` is missing"),
        (r#"{"peer":"client","subject":"","grants":[]}"#, "`subject`: not 1 to 128"),
        (r#"{"peer":"client","subject":"a"}"#, "`grants` is missing"),
        (r#"{"peer":"client","subject":"a","grants":[]}"#, "`grants`: not 1 to 64"),
        (r#"{"peer":"client","subject":"a","grants":{}}"#, "`grants`: wrong type"),
        (r#"{"peer":"client","subject":"a","grants":[],"address":"b12/f"}"#, "unknown field \"address\""),
        (r#"{"peer":"client","subject":"a","ttl_s":2592001,"grants":[]}"#, "not between 1 and 2592000"),
    ];
    for (body, expected) in rows {
        assert_refused(body, StatusCode::BAD_REQUEST, ErrorCode::BadFrame, expected);
    }
    let bad = TokenOrder::parse(b"\xff", &everything()).expect_err("no text");
    assert_eq!((bad.status, bad.code), (StatusCode::BAD_REQUEST, ErrorCode::BadFrame));
    let huge = format!(r#"{{"peer":"{}"}}"#, "x".repeat(16_384));
    assert_refused(&huge, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooMany, "16384 bytes");
}

#[test]
fn a_mistake_in_a_grant_is_named_with_its_place() {
    let rows = [
        ("7", "not an object"),
        ("null", "not an object"),
        (r#"{"to":"b12/*","to":"*/*","may":["read"]}"#, "not an object with each member once"),
        (r#"{"may":["read"]}"#, "`to` is missing"),
        (r#"{"to":"b*/*","may":["read"]}"#, "`to`: not a pattern"),
        (r#"{"to":"b12/*"}"#, "`may` is missing"),
        (r#"{"to":"b12/*","may":[]}"#, "`may` is empty"),
        (r#"{"to":"b12/*","may":["read","fly"]}"#, "`may`: unknown variant `fly`"),
        (r#"{"to":"b12/*","may":["read"],"until":5}"#, "unknown field \"until\""),
        (r#"{"to":"b12/*","may":["read"],"path":null}"#, "`path` is null"),
        (r#"{"to":"b12/*","may":["read"],"path":[]}"#, "`path`: an empty list"),
        (r#"{"to":"b12/*","may":["read"],"path":["a/#/b"]}"#, "`path`: not a path pattern"),
    ];
    for (grant, expected) in rows {
        let good = r#"{"to":"b12/*","may":["read"]}"#;
        let body = format!(r#"{{"peer":"client","subject":"a","grants":[{good},{grant}]}}"#);
        assert_refused(&body, StatusCode::BAD_REQUEST, ErrorCode::BadFrame, expected);
        assert_refused(&body, StatusCode::BAD_REQUEST, ErrorCode::BadFrame, "`grants`[1]");
    }
}

fn assert_refused(body: &str, status: StatusCode, code: ErrorCode, expected: &str) {
    let problem = TokenOrder::parse(body.as_bytes(), &everything()).expect_err(body);
    assert_eq!((problem.status, problem.code), (status, code), "{body:.200}");
    assert!(problem.detail.contains(expected), "{body:.200}: {}", problem.detail);
}

#[test]
fn a_key_makes_no_token_that_may_more_than_itself() {
    let scope = minter(
        r#"[{"to":"b12/*","path":["hall/#"],"may":["read","command"]},
            {"to":"b13/g","may":["read","command","event","listen","speak"]},
            {"to":"b13/h","may":["read","command","event","listen"]},
            {"to":"b13/i","path":["hall/#"],"may":["read","command","event","listen","speak"]}]"#,
    );
    let ask =
        |body: &str| TokenOrder::parse(body.as_bytes(), &scope).map_err(|problem| (problem.status, problem.detail));
    let client = |grant: &str| ask(&format!(r#"{{"peer":"client","subject":"a","grants":[{grant}]}}"#));
    for good in [
        r#"{"to":"b12/*","path":["hall/#"],"may":["read","command"]}"#,
        r#"{"to":"b12/f","path":["hall/lock"],"may":["read"]}"#,
        r#"{"to":"b13/g","may":["speak"]}"#,
    ] {
        assert!(client(good).is_ok(), "{good}");
    }
    for bad in [
        r#"{"to":"b12/*","may":["read"]}"#,
        r#"{"to":"b12/*","path":["hall/lock"],"may":["read","event"]}"#,
        r#"{"to":"*/*","path":["hall/lock"],"may":["read"]}"#,
        r#"{"to":"b13/*","may":["read"]}"#,
        r#"{"to":"b14/g","may":["read"]}"#,
    ] {
        let (status, detail) = client(bad).expect_err(bad);
        assert_eq!(status, StatusCode::FORBIDDEN, "{bad}");
        assert!(detail.contains("`grants`[0]"), "{detail}");
    }
    assert!(ask(r#"{"peer":"gateway","address":"b13/g"}"#).is_ok());
    for bad in ["b12/f", "b13/h", "b13/i", "b14/g"] {
        let (status, detail) = ask(&format!(r#"{{"peer":"gateway","address":"{bad}"}}"#)).expect_err(bad);
        assert_eq!(status, StatusCode::FORBIDDEN, "{bad}");
        assert!(detail.contains("`address`"), "{detail}");
    }
}

#[test]
fn a_token_makes_no_tokens() {
    let all = r#"[{"to":"*/*","may":["read","command","event","listen","speak"]}]"#;
    for bearer in [token(&[("grants", all)]), minted(&gateway(60), NOW_MS)] {
        let identity = check(&bearer).expect("a good token");
        let body = br#"{"peer":"client","subject":"a","grants":[{"to":"b12/_","may":["read"]}]}"#;
        let problem = TokenOrder::parse(body, &identity).expect_err("no API key");
        assert_eq!((problem.status, problem.code), (StatusCode::FORBIDDEN, ErrorCode::Forbidden));
    }
}
