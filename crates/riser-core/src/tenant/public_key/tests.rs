//! Public keys in every form they come in, and what is none.

use serde_json::json;

use super::*;

const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAM7UFg3IF5x/zDwrIP1nLGIKb07RrXbOIMnNRVQJRfGw=\n\
    -----END PUBLIC KEY-----";
const P256: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEB1HMxV+cTwDtpRvJGgI9zHv5PFwY\n\
    nmPrIuLX43o/6KdkEV4Mf402Dl2Rf9ZlFpz8xD25nIco0Binw31DYyQeXQ==\n\
    -----END PUBLIC KEY-----";
const RSA: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4xBcXQuhp+7/MKr+OQ2\n\
    jwIO4kdd6LvBf9dXmasDbahJwWop6s5rUJvUri3LnTiaXhjASfFJAGBbCETWZkTu\n\
    i/wq7pJweqhaYGozGDLqmJDN7t3cHztiILaCjlYpaeENWuQVrxPMNcXGMpih40sZ\n\
    4FgRs81wtLe20hBH031rWb/pVsJM9qaXRNIyQHOMw62tVAsfwp5WHYscBThb2rEv\n\
    qBnGEpBKmzKJbfcsknl8LK+lldkUieDTme7OqAvhWzMDodhbYzZJTV0AxNBKXxw8\n\
    YY7SMXqMx3HfXDq+oS3m5FxKvKOtMIWZAzi2HNK5wGgjS+ad01VqufwlQNN+m3rF\n\
    dQIDAQAB\n\
    -----END PUBLIC KEY-----";
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDndrtK2umT5t6S2nEFRJqep9rr\n\
    AIV97mWFdJMJdAyfTrHvck+P+l0Xx8gPRPthw2srmW4vAZcAil4RbPfnQLV/Ee3/\n\
    bbJftGS3tQuvIDAs+OD/+LjNnB6XNhLcBLwJEsnyBDMkrXzVLWNG2X+eIPsQRI3q\n\
    OEeibinCutjds6jb3QIDAQAB\n\
    -----END PUBLIC KEY-----";
const P384: &str = "-----BEGIN PUBLIC KEY-----\n\
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE/2uwEosJ7bCb8LMz1rme0upd3M4OqHLb\n\
    EmqWGhZf1MjYVv8+9Vv29dPTbY1dIuwAKKo6ge8IOlQFAVuJy1nAf3+NMdiBiX95\n\
    yuczM8BaH7lNv+/usRQXJ9E0izIyhmBk\n\
    -----END PUBLIC KEY-----";

fn pem(text: &str) -> Result<PublicKey, PublicKeyError> {
    PublicKey::read(&json!(text))
}

#[test]
fn pem_and_jwk_are_the_same_key() {
    for (text, algorithm) in [(ED25519, Algorithm::EdDsa), (P256, Algorithm::Es256), (RSA, Algorithm::Rs256)] {
        let key = pem(text).expect(text);
        assert_eq!(key.algorithm(), algorithm);
        let jwk = serde_json::to_value(&key).expect("a JWK");
        assert_eq!(PublicKey::read(&jwk), Ok(key.clone()));
        let mut named = jwk.clone();
        named["alg"] = algorithm.as_str().into();
        named["use"] = "sig".into();
        named["kid"] = "any".into();
        named["key_ops"] = json!(["verify"]);
        assert_eq!(PublicKey::read(&named), Ok(key.clone()));
        assert_eq!(pem(&format!("  {}\r\n", text.replace('\n', "\r\n"))), Ok(key));
    }
}

#[test]
fn a_jwk_for_something_else_is_refused() {
    use PublicKeyError::{Kind, Length, Malformed, Private, Purpose, RsaBits, RsaNumbers};
    let with = |text: &str, member: &str, value: Value| {
        let mut jwk = serde_json::to_value(pem(text).expect("a key")).expect("a JWK");
        jwk[member] = value;
        PublicKey::read(&jwk)
    };
    for (text, member, value, error) in [
        (ED25519, "d", json!("AAAA"), Private),
        (RSA, "p", json!("AAAA"), Private),
        (ED25519, "alg", json!("HS256"), Purpose),
        (ED25519, "alg", json!("none"), Purpose),
        (RSA, "alg", json!("PS256"), Purpose),
        (P256, "use", json!("enc"), Purpose),
        (P256, "key_ops", json!(["sign"]), Purpose),
        (P256, "key_ops", json!("verify"), Purpose),
        (P256, "crv", json!("P-384"), Kind),
        (ED25519, "crv", json!("X25519"), Kind),
        (ED25519, "kty", json!("oct"), Kind),
        (ED25519, "kty", json!(null), Malformed),
        (ED25519, "x", json!("AAAA"), Length),
        (ED25519, "x", json!("A A"), Malformed),
        (P256, "y", json!(""), Length),
        (RSA, "n", json!("AQAB"), RsaBits),
        (RSA, "e", json!("AQ"), RsaNumbers),
        (RSA, "e", json!("BA"), RsaNumbers),
        (RSA, "e", json!(""), RsaNumbers),
        (RSA, "e", json!("________"), RsaNumbers),
    ] {
        assert_eq!(with(text, member, value.clone()), Err(error), "{member} {value}");
    }
    assert_eq!(PublicKey::read(&json!({"kty": "oct", "k": "AAAA"})), Err(Private));
    for none in [json!(1), json!(null), json!([]), json!({})] {
        assert_eq!(PublicKey::read(&none), Err(Malformed), "{none}");
    }
}

#[test]
fn what_is_no_pem_of_one_public_key_is_refused() {
    use PublicKeyError::{Kind, Malformed, Private, RsaBits};
    for (text, error) in [
        (String::new(), Malformed),
        (ED25519.replace("PUBLIC", "PRIVATE"), Private),
        (RSA.replace("PUBLIC", "RSA PRIVATE"), Private),
        (ED25519.replace("PUBLIC KEY", "CERTIFICATE"), Malformed),
        (format!("{ED25519}\n{ED25519}"), Malformed),
        (ED25519.replace("MCow", "MCo!"), Malformed),
        (ED25519.replace("fGw=", ""), Malformed),
        (format!("{ED25519}{}", " ".repeat(PEM_BYTES)), Malformed),
        (RSA_1024.to_owned(), RsaBits),
        (P384.to_owned(), Kind),
    ] {
        assert_eq!(pem(&text), Err(error), "{text}");
    }
}

#[test]
fn der_that_is_cut_or_changed_anywhere_never_panics_nor_passes_for_longer() {
    let der = |text: &str| {
        let inner: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(inner).expect("base64")
    };
    for text in [ED25519, P256, RSA] {
        let good = der(text);
        for end in 0..good.len() {
            assert!(PublicKey::from_spki(&good[..end]).is_err(), "{end}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(PublicKey::from_spki(&longer), Err(PublicKeyError::Malformed));
        for at in 0..good.len().min(40) {
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[at] ^= 1 << bit;
                // Whatever it is, it is not taken for the same key.
                assert_ne!(PublicKey::from_spki(&changed), PublicKey::from_spki(&good), "{at} {bit}");
            }
        }
    }
    // A length in more bytes than it needs, and a negative modulus.
    assert_eq!(PublicKey::from_spki(&[0x30, 0x81, 0x02, 0x05, 0x00]), Err(PublicKeyError::Malformed));
    assert!(Der(&[INTEGER, 1, 0x80]).positive().is_err() && Der(&[INTEGER, 2, 0, 1]).positive().is_err());
}
