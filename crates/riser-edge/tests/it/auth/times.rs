//! Claims that are signed and wrong: threat T3.

use riser_core::grant::gateway_grants;
use riser_core::{Address, Peer};

use super::*;

#[test]
fn a_token_for_another_audience_is_refused() {
    for other in [
        r#""Riser""#,
        r#""riser ""#,
        r#""other""#,
        r#""""#,
        "[]",
        r#"["other"]"#,
        r#"["riser","other"]"#,
        r#"["riser","riser"]"#,
    ] {
        assert_eq!(check(&token(&[("aud", other)])), Err(AuthError::WrongAudience), "{other}");
    }
    for none in ["", "null", "7", "{}", r#"{"riser":1}"#, "[7]", r#"[["riser"]]"#] {
        assert_eq!(check(&token(&[("aud", none)])), Err(AuthError::BadClaims), "{none}");
    }
    for good in [r#""riser""#, r#"["riser"]"#] {
        assert!(check(&token(&[("aud", good)])).is_ok(), "{good}");
    }
}

#[test]
fn every_required_claim_is_required() {
    for name in ["iss", "aud", "sub", "peer", "grants", "iat", "exp", "jti"] {
        assert_eq!(check(&token(&[(name, "")])), Err(AuthError::BadClaims), "without {name}");
        assert_eq!(check(&token(&[(name, "null")])), Err(AuthError::BadClaims), "{name} null");
        assert_eq!(check(&token(&[(name, "true")])), Err(AuthError::BadClaims), "{name} true");
        assert_eq!(check(&token(&[(name, "{}")])), Err(AuthError::BadClaims), "{name} an object");
    }
    assert!(check(&token(&[("extra", r#"{"a":[1]}"#)])).is_ok(), "a claim that is not known is ignored");
}

#[test]
fn a_date_is_whole_seconds_in_range() {
    let bad = [
        "-1",
        "-0",
        "0.5",
        "1900000000.0",
        "1.9e9",
        r#""1900000000""#,
        "null",
        "true",
        "[1900000000]",
        "{}",
        "9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "1e300",
    ];
    for name in ["exp", "iat", "nbf"] {
        for date in bad {
            assert_eq!(check(&token(&[(name, date)])), Err(AuthError::BadClaims), "{name} {date}");
        }
    }
    // The latest date there is counts, and multiplying it wraps nothing around.
    let identity = check(&token(&[("exp", "9007199254740991")])).expect("the latest date");
    assert_eq!(identity.expires_at_ms, Some(9_007_199_254_740_991_000));
    assert_eq!(check(&token(&[("nbf", "9007199254740991")])), Err(AuthError::NotYetValid));
    assert_eq!(check(&token(&[("exp", "0")])), Err(AuthError::Expired));
    assert!(check(&token(&[("iat", "0")])).is_ok());
}

/// T3: the edges of the leeway, to the millisecond.
#[test]
fn clocks_may_be_off_by_a_minute_and_no_more() {
    let minute = 60_000;
    let exp = (NOW_S + 900) * 1000;
    let good = token(&[]);
    for (at, expected) in [
        (NOW_MS - minute - 1, Some(AuthError::NotYetValid)),
        (NOW_MS - minute, None),
        (NOW_MS, None),
        (exp, None),
        (exp + 59_000, None),
        (exp + minute - 1, None),
        (exp + minute, Some(AuthError::Expired)),
        (exp + 61_000, Some(AuthError::Expired)),
        (0, Some(AuthError::NotYetValid)),
        (u64::MAX, Some(AuthError::Expired)),
    ] {
        assert_eq!(check_at(&good, at).err(), expected, "at {at}");
    }
    for name in ["nbf", "iat"] {
        for (ahead, expected) in [(59, None), (60, None), (61, Some(AuthError::NotYetValid))] {
            let early = token(&[(name, &(NOW_S + ahead).to_string())]);
            assert_eq!(check(&early).err(), expected, "{name} {ahead} s ahead");
        }
    }
    // An `nbf` in the past does not excuse an `iat` to come.
    let both = token(&[("nbf", &(NOW_S - 900).to_string()), ("iat", &(NOW_S + 61).to_string())]);
    assert_eq!(check(&both), Err(AuthError::NotYetValid));
}

#[test]
fn within_the_leeway_a_token_may_end_before_it_begins() {
    let now = NOW_S.to_string();
    let later = (NOW_S + 30).to_string();
    let identity = check(&token(&[("iat", &later), ("exp", &now)])).expect("clocks differ");
    assert_eq!(identity.lifetime_ms, Some(0));
}

#[test]
fn a_gateways_token_names_its_address_and_nothing_more() {
    let gateway = |sub: &str| token(&[("peer", r#""gateway""#), ("sub", sub), ("grants", "")]);
    let identity = check(&gateway(r#""b12/f0304""#)).expect("a gateway");
    let address: Address = "b12/f0304".parse().expect("an address");
    assert_eq!(identity.grants, gateway_grants(&address));
    assert_eq!(identity.peer, Peer::Gateway { address });
    for bad in [
        r#""b12/_""#,
        r#""_/_""#,
        r#""_/x""#,
        r#""b12/*""#,
        r#""*/*""#,
        r#""b12""#,
        r#""""#,
        r#""b12/f/x""#,
        r#""b.12/f""#,
        r#""b12/f\u0000""#,
        r#""b12/>""#,
        r#""b12/\u202ef""#,
        r#""b12/e\u0301""#,
        "7",
        "null",
        "",
    ] {
        assert_eq!(check(&gateway(bad)), Err(AuthError::BadClaims), "{bad}");
    }
    for grants in [r#"[{"to":"*/*","may":["read"]}]"#, "[]", "null"] {
        let bad = token(&[("peer", r#""gateway""#), ("sub", r#""b12/f0304""#), ("grants", grants)]);
        assert_eq!(check(&bad), Err(AuthError::BadClaims), "{grants}");
    }
    for peer in [r#""Gateway""#, r#""edge""#, r#""""#, r#"["client"]"#] {
        assert_eq!(check(&token(&[("peer", peer)])), Err(AuthError::BadClaims), "{peer}");
    }
}

#[test]
fn a_subject_is_short_and_hides_nothing() {
    let long = |n: usize| format!("\"{}\"", "s".repeat(n));
    for bad in [r#""""#, r#""a\n""#, r#""a\u0000""#, r#""a\u202eb""#, r#""a\u2028b""#, r#""\u001b[31m""#, &long(129)] {
        assert_eq!(check(&token(&[("sub", bad)])), Err(AuthError::BadClaims), "{bad:.40}");
    }
    for good in [r#""alice@example.org""#, r#""Ålice 7/8""#, r#""*""#, &long(128)] {
        assert!(check(&token(&[("sub", good)])).is_ok(), "{good:.40}");
    }
    for bad in [r#""""#, "7", &long(129)] {
        assert_eq!(check(&token(&[("jti", bad)])), Err(AuthError::BadClaims), "{bad:.40}");
    }
}

#[test]
fn a_grant_that_is_not_understood_is_void_and_the_others_stay() {
    let good = r#"{"to":"b12/*","may":["read"]}"#;
    let void = [
        r#"{"to":"*/*","may":["read","fly"]}"#,
        r#"{"to":"*/*","may":["read"],"until":5}"#,
        r#"{"to":"*/*"}"#,
        r#"{"to":"*","may":["read"]}"#,
        r#"{"to":"*/*","may":["read"],"path":[]}"#,
        r#"{"to":"*/*","may":["read"],"path":null}"#,
        r#"{"to":"*/*","may":"read"}"#,
        r#"{"to":"_/*","may":["read"]}"#,
        "7",
        "null",
        "[]",
    ];
    for bad in void {
        let identity = check(&token(&[("grants", &format!("[{bad},{good}]"))])).expect("a credential");
        assert_eq!(identity.grants.len(), 1, "{bad}");
        assert_eq!(identity.grants[0].to.to_string(), "b12/*");
        let identity = check(&token(&[("grants", &format!("[{bad}]"))])).expect("a credential");
        assert_eq!(identity.grants, [], "{bad}");
    }
    let many = |n: usize| format!("[{}]", vec![good; n].join(","));
    assert_eq!(check(&token(&[("grants", &many(64))])).expect("a credential").grants.len(), 64);
    for bad in ["[]", &many(65), "{}", "7", good] {
        assert_eq!(check(&token(&[("grants", bad)])), Err(AuthError::BadClaims), "{bad:.40}");
    }
}

#[test]
fn every_refusal_has_its_own_reason_and_an_answer() {
    let reasons: std::collections::BTreeSet<&str> = AuthError::ALL.iter().map(|error| error.reason()).collect();
    assert_eq!(reasons.len(), AuthError::ALL.len());
    for error in AuthError::ALL {
        let (status, code) = match error {
            AuthError::Suspended | AuthError::WrongAddress => (403, 4502),
            AuthError::Revoked => (401, 4504),
            AuthError::LockedOut => (429, 4003),
            _ => (401, 4501),
        };
        assert_eq!((error.http_status().as_u16(), error.close_code().number()), (status, code), "{error:?}");
    }
    let unproven = [AuthError::UnknownTenant, AuthError::UnknownKey, AuthError::BadSignature, AuthError::UnknownApiKey];
    for error in unproven {
        assert_eq!(error.to_string(), AuthError::BadSignature.to_string(), "a stranger learns what there is");
    }
}
