//! Tokens that nobody issued, and keys that nobody has: threats T1 and T2.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use riser_core::{Peer, Verb};
use riser_edge::auth::new_api_key;

use super::*;

#[test]
fn a_good_token_is_believed() {
    let identity = check(&token(&[])).expect("a good token");
    assert_eq!(identity.tenant, id("acme"));
    assert_eq!(identity.peer, Peer::Client { subject: "alice".into() });
    assert_eq!(identity.grants.len(), 1);
    assert_eq!(identity.grants[0].may, [Verb::Read]);
    assert_eq!(identity.expires_at_ms, Some(NOW_MS + 900_000));
    assert_eq!(identity.lifetime_ms, Some(900_000));
}

/// Made with Python's `hmac`, `hashlib` and `base64`: what Riser verifies is what others sign.
#[test]
fn a_token_that_another_program_signed_is_believed() {
    let foreign = "eyJhbGciOiAiSFMyNTYiLCAia2lkIjogImsxIiwgInR5cCI6ICJKV1QifQ.eyJpc3MiOiAiYWNtZSIsICJhdWQiOiB\
         bInJpc2VyIl0sICJzdWIiOiAiYjEyL2YwMzA0IiwgInBlZXIiOiAiZ2F0ZXdheSIsICJpYXQiOiAxODAwMDAwMDAwL\
         CAibmJmIjogMTgwMDAwMDAwMCwgImV4cCI6IDE4MzE1MzYwMDAsICJqdGkiOiAiMGIxYyJ9.AfZXZ9ajzgNJfkRqPB\
         gvnUKZ0C8seiSqabXFNqJVFt8";
    let identity = check(foreign).expect("a good token");
    assert_eq!(identity.peer, Peer::Gateway { address: "b12/f0304".parse().expect("an address") });
}

/// T1: everything that a header can be made to say.
#[test]
fn a_header_that_is_not_allowed_is_refused() {
    use AuthError::{Malformed, UnknownKey};
    let with = |more: &str| format!(r#"{{"alg":"HS256","kid":"k1",{more}}}"#);
    let rows = [
        (r#"{"alg":"none","kid":"k1"}"#.to_owned(), UnknownKey),
        (r#"{"alg":"None","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"NONE","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"nOnE","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"hs256","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"HS512","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"RS256","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":"ES256","kid":"k1"}"#.into(), UnknownKey),
        (r#"{"alg":["HS256"],"kid":"k1"}"#.into(), Malformed),
        (r#"{"alg":null,"kid":"k1"}"#.into(), Malformed),
        (r#"{"kid":"k1"}"#.into(), Malformed),
        (r#"{"alg":"HS256"}"#.into(), Malformed),
        (r#"{"alg":"HS256","alg":"none","kid":"k1"}"#.into(), Malformed),
        (r#"{"alg":"none","\u0061lg":"HS256","kid":"k1"}"#.into(), Malformed),
        (r#"{"alg":"HS256","kid":"k1","kid":"k2"}"#.into(), Malformed),
        (with(r#""typ":7"#), Malformed),
        (with(r#""crit":["exp"]"#), Malformed),
        (with(r#""crit":null"#), Malformed),
        (with(r#""jku":"http://127.0.0.1:1/keys""#), Malformed),
        (with(r#""jwk":{"kty":"oct","k":"AAAA"}"#), Malformed),
        (with(r#""x5u":"http://127.0.0.1:1/cert""#), Malformed),
        (with(r#""x5c":["AAAA"]"#), Malformed),
        (with(r#""b64":false"#), Malformed),
        (with(r#""zip":"DEF""#), Malformed),
        ("[]".into(), Malformed),
        ("null".into(), Malformed),
        (String::new(), Malformed),
        (format!("{HEADER} {HEADER}"), Malformed),
        (with(&format!(r#""typ":{}{}"#, "[".repeat(1_000), "]".repeat(1_000))), Malformed),
    ];
    for (header, expected) in rows {
        assert_eq!(check(&forge(ACME_SECRET, &header, &claims(&[]))), Err(expected), "{header}");
    }
    for good in [r#"{"alg":"HS256","kid":"k1"}"#, r#"{"kid":"k1","typ":"at+jwt","alg":"HS256"}"#] {
        assert!(check(&forge(ACME_SECRET, good, &claims(&[]))).is_ok(), "{good}");
    }
}

#[test]
fn a_text_that_is_no_token_is_refused() {
    let good = token(&[]);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (header, body) = signed.split_once('.').expect("three parts");
    let rows = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        signed.into(),
        header.into(),
        format!(".{body}.{signature}"),
        format!("{header}..{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{signed}.{header}.{signature}"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("Bearer {good}"),
        format!("{signed}.{}", signature.replace(['-', '_'], "+") + "+"),
        "\0".into(),
        "ey\u{202e}.a.b".into(),
        "a".repeat(1 << 20),
        format!("{}.{}.{}", "a".repeat(1 << 20), "a".repeat(1 << 20), "a".repeat(1 << 20)),
    ];
    for bad in rows {
        let error = check(&bad).expect_err("no token");
        assert_eq!(error, AuthError::Malformed, "{} bytes", bad.len());
    }
    // Of the right form and the wrong length: no signature at all, one byte, 31, 64.
    for length in [0, 1, 31, 33, 64] {
        let other = URL_SAFE_NO_PAD.encode(vec![7; length]);
        assert_eq!(check(&format!("{signed}.{other}")), Err(AuthError::BadSignature), "{length} bytes");
    }
}

#[test]
fn claims_that_can_be_read_in_two_ways_are_refused() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let rows = [
        r#"{"iss":"acme","iss":"other"}"#.to_owned(),
        claims(&[("iss", r#""acme","\u0069ss":"other""#)]),
        claims(&[("sub", r#""alice","sub":"root""#)]),
        claims(&[("exp", "1900000000,\"exp\":1")]),
        claims(&[("extra", r#"{"a":1,"a":2}"#)]),
        claims(&[("grants", r#"[{"to":"b12/*","may":["read"],"may":["command"]}]"#)]),
        claims(&[("extra", &deep(2_000))]),
        deep(2_900),
        deep(10_000),
        "{".repeat(5_000),
        "[".repeat(10_000),
        r#""acme""#.into(),
        "null".into(),
        "7".into(),
        String::new(),
        claims(&[]) + "x",
        claims(&[("extra", "NaN")]),
    ];
    for bad in rows {
        assert_eq!(check(&forge(ACME_SECRET, HEADER, &bad)), Err(AuthError::Malformed), "{bad:.80}");
    }
    let not_text = URL_SAFE_NO_PAD.encode(b"{\"iss\":\"\xff\"}");
    let head = URL_SAFE_NO_PAD.encode(HEADER);
    assert_eq!(check(&format!("{head}.{not_text}.{head}")), Err(AuthError::Malformed));
}

#[test]
fn a_token_as_long_as_allowed_is_read_and_a_longer_one_is_not() {
    let padded = |n: usize| token(&[("extra", &format!("\"{}\"", "x".repeat(n)))]);
    let fits = (0..6_144).rev().find(|&n| padded(n).len() <= 8_192).expect("some length fits");
    assert!(padded(fits).len() > 8_188);
    assert!(check(&padded(fits)).is_ok());
    assert_eq!(check(&padded(fits + 4)), Err(AuthError::Malformed));
}

/// T1: the public half of a key pair is no secret, whatever a header calls it.
#[test]
fn what_everybody_knows_signs_nothing() {
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    for secret in [&b""[..], &[0; 32], b"secret", public.as_bytes(), HEADER.as_bytes(), b"k1", b"acme"] {
        assert_eq!(check(&forge(secret, HEADER, &claims(&[]))), Err(AuthError::BadSignature));
    }
}

/// T2: names that would mean something to a file system, a database or a log.
#[test]
fn a_key_name_is_only_ever_a_name() {
    let long = "k".repeat(65);
    let huge = "k".repeat(65_536);
    let rows = [
        "",
        " k1",
        "k1 ",
        "../../etc/passwd",
        "/dev/null",
        "k1/../k1",
        "k1\\u0000",
        "k1\\u0000.pem",
        "' OR '1'='1",
        "k1';--",
        "k1\\n",
        "k1\\u202e",
        "k\\u0430",
        "*",
        "k?",
        "{}",
        "http://127.0.0.1:1/k",
        &long,
        &huge,
    ];
    for kid in rows {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        assert_eq!(check(&forge(ACME_SECRET, &header, &claims(&[]))), Err(AuthError::Malformed), "{kid:.40}");
    }
    for kid in ["k2", "K1", "k", "k11", "..", "-", &"k".repeat(64)] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        assert_eq!(check(&forge(ACME_SECRET, &header, &claims(&[]))), Err(AuthError::UnknownKey), "{kid}");
    }
}

/// T2: both orders, since a cache by key name alone goes wrong only in one of them.
#[test]
fn a_key_of_one_tenant_never_vouches_for_another() {
    let mine = [("acme", ACME_SECRET), ("other", OTHER_SECRET)];
    for (first, second) in [(0, 1), (1, 0)] {
        for _ in 0..2 {
            let ((a, a_secret), (b, b_secret)) = (mine[first], mine[second]);
            let of = |tenant: &str| claims(&[("iss", &format!("\"{tenant}\""))]);
            assert_eq!(check(&forge(a_secret, HEADER, &of(a))).expect("its own key").tenant, id(a));
            assert_eq!(check(&forge(a_secret, HEADER, &of(b))), Err(AuthError::BadSignature));
            assert_eq!(check(&forge(b_secret, HEADER, &of(a))), Err(AuthError::BadSignature));
            assert_eq!(check(&forge(b_secret, HEADER, &of(b))).expect("its own key").tenant, id(b));
        }
    }
}

#[test]
fn an_issuer_is_a_tenant_of_the_table() {
    for unknown in
        ["nobody", "acm", "acme-", "Acme", "acme.", "*", ">", "", "acme\\u0000", "a/b", "\\u0430cme", "acme/../other"]
    {
        let bad = token(&[("iss", &format!("\"{unknown}\""))]);
        assert_eq!(check(&bad), Err(AuthError::UnknownTenant), "{unknown:?}");
    }
    for bad in ["", "null", "7", r#"["acme"]"#, r#"{"acme":1}"#] {
        assert_eq!(check(&token(&[("iss", bad)])), Err(AuthError::BadClaims), "{bad}");
    }
}

#[test]
fn a_key_is_believed_while_the_table_has_it() {
    let mut table = table();
    let old = Credential::new(token(&[]));
    table.update(&id("acme"), |acme| {
        acme.signing_keys.extend([key("k2", OTHER_SECRET)]);
        acme.signing_kid = "k2".into();
    });
    assert!(verify(&table, &old, NOW_MS).is_ok());
    table.update(&id("acme"), |acme| drop(acme.signing_keys.remove(&("k1".into(), Algorithm::Hs256))));
    assert_eq!(verify(&table, &old, NOW_MS), Err(AuthError::UnknownKey));
}

#[test]
fn a_secret_that_can_be_guessed_is_no_key() {
    for secret in [&b""[..], b"x", &[7; 31]] {
        let table = TenantTable::from_iter([(id("acme"), tenant(secret))]);
        let forged = Credential::new(forge(secret, HEADER, &claims(&[])));
        assert_eq!(verify(&table, &forged, NOW_MS), Err(AuthError::UnknownKey), "{} bytes", secret.len());
    }
}

#[test]
fn a_suspended_tenants_credentials_are_refused_and_forged_ones_learn_nothing() {
    let mut table = table();
    table.update(&id("acme"), |acme| acme.status = Status::Suspended);
    let at = |text: &str| verify(&table, &Credential::new(text), NOW_MS);
    assert_eq!(at(&token(&[])), Err(AuthError::Suspended));
    assert_eq!(at(API_KEY), Err(AuthError::Suspended));
    assert_eq!(at(&forge(OTHER_SECRET, HEADER, &claims(&[]))), Err(AuthError::BadSignature));
    assert!(at(&forge(OTHER_SECRET, HEADER, &claims(&[("iss", r#""other""#)]))).is_ok());
}

#[test]
fn an_api_key_is_a_client_with_the_keys_scope() {
    let identity = check(API_KEY).expect("a good key");
    assert_eq!(identity.tenant, id("acme"));
    assert_eq!(identity.peer, Peer::Client { subject: "backend".into() });
    assert_eq!(identity.grants, [Grant::everything()]);
    assert_eq!((identity.expires_at_ms, identity.lifetime_ms), (None, None));
}

#[test]
fn an_api_key_with_any_byte_wrong_is_unknown() {
    for at in "rk_".len()..API_KEY.len() {
        let mut bad = API_KEY.as_bytes().to_vec();
        bad[at] = b'1';
        let bad = String::from_utf8(bad).expect("ASCII");
        assert_eq!(check(&bad), Err(AuthError::UnknownApiKey), "at {at}");
    }
    for bad in ["rk_", &API_KEY[..45], &format!("{API_KEY}0"), &format!("{API_KEY} "), "rk_\0", "rk_a.b.c"] {
        assert_eq!(check(bad), Err(AuthError::UnknownApiKey), "{bad:?}");
    }
    assert_eq!(check(&format!("rk_{}", "0".repeat(8_192))), Err(AuthError::Malformed));
    assert_eq!(check(&API_KEY.to_uppercase()), Err(AuthError::Malformed));
}

#[test]
fn a_new_api_key_is_text_of_one_form_and_never_the_same() {
    let (one, hash) = new_api_key(None);
    let (two, other) = new_api_key(None);
    for key in [&one, &two] {
        let random = key.strip_prefix("rk_").expect("the prefix").get(..43).expect("the random part");
        assert_eq!(URL_SAFE_NO_PAD.decode(random).expect("base64url").len(), 32);
        assert_eq!(key.len(), 53);
    }
    assert_eq!(hash, KeyHash::of(&one, None));
    assert!(one != two && hash != other);
}

#[test]
fn no_token_with_one_character_changed_verifies() {
    let good = token(&[("grants", r#"[{"to":"*/*","may":["read"]}]"#)]);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ ";
    let table = table();
    for at in 0..good.len() {
        for &c in alphabet.iter().filter(|&&c| c != good.as_bytes()[at]) {
            let mut bad = good.clone().into_bytes();
            bad[at] = c;
            let bad = String::from_utf8(bad).expect("ASCII");
            assert!(verify(&table, &Credential::new(bad), NOW_MS).is_err(), "{} at {at}", char::from(c));
        }
    }
}

#[test]
fn no_token_cut_and_put_together_otherwise_verifies() {
    let good = token(&[]);
    let config = Config { cases: 4_096, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() };
    let span = (0..=good.len(), 0..=good.len());
    let strategy = (span.clone(), span, "[A-Za-z0-9_.-]{0,8}");
    let run = TestRunner::new(config).run(&strategy, |((a, b), (c, d), new)| {
        // What stood from `a` to `b` is replaced by another stretch of the token and by new text.
        let (a, b, c, d) = (a.min(b), a.max(b), c.min(d), c.max(d));
        let bad = format!("{}{new}{}{}", &good[..a], &good[c..d], &good[b..]);
        prop_assume!(bad != good);
        prop_assert!(check(&bad).is_err());
        Ok(())
    });
    run.expect("every other token is refused");
}
