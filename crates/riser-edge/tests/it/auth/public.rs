//! Tokens that tenants sign with keys of their own: the cluster has the public half, which signs nothing.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};
use riser_core::Peer;
use riser_core::tenant::PublicKey;
use riser_edge::auth::{MintError, TokenOrder, mint};
use serde_json::json;

use super::*;

/// A key of 2 048 bits whose private half was thrown away.
const RSA: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4xBcXQuhp+7/MKr+OQ2\n\
    jwIO4kdd6LvBf9dXmasDbahJwWop6s5rUJvUri3LnTiaXhjASfFJAGBbCETWZkTu\n\
    i/wq7pJweqhaYGozGDLqmJDN7t3cHztiILaCjlYpaeENWuQVrxPMNcXGMpih40sZ\n\
    4FgRs81wtLe20hBH031rWb/pVsJM9qaXRNIyQHOMw62tVAsfwp5WHYscBThb2rEv\n\
    qBnGEpBKmzKJbfcsknl8LK+lldkUieDTme7OqAvhWzMDodhbYzZJTV0AxNBKXxw8\n\
    YY7SMXqMx3HfXDq+oS3m5FxKvKOtMIWZAzi2HNK5wGgjS+ad01VqufwlQNN+m3rF\n\
    dQIDAQAB\n\
    -----END PUBLIC KEY-----";
/// What it signed before: the claims that [`claims`] makes.
const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0.eyJpc3MiOiJhY21lIiwiYXVkIjoicmlzZXIiLCJzdWIiOiJh\
    bGljZSIsInBlZXIiOiJjbGllbnQiLCJncmFudHMiOlt7InRvIjoiYjEyLyoiLCJtYXkiOlsicmVhZCJdfV0sImlhdCI6MTgwMDAw\
    MDAwMCwiZXhwIjoxODAwMDAwOTAwLCJqdGkiOiJqMSJ9.PyJoR8SVlx0YDZrQAzdbljUDNXaUMVZXqzZSqLImDhkXUnD1nORzBhW\
    9a07kXvB1qfgTqbKUFs0Byv9Gxf263vLG8rV6GCw5BikcBFUBfzEkpjqZkMwUPhcxAK46d55x63b2gs-HdsgWglTMDZQTN7cFWJS\
    EjmlpBWJQ0Vh62cAbGu3NNVAGRWUHuKaikiooAmHTIgJ904qC9H9d-d8iPxQFJCEIyHywcBA8ZedkkIkKmHKp5s3s4IpdMvutbg6\
    pTTw-0Uoqmt3yYWmwKn63yN0BMn6JdxBz7KE81kdszqdyyxOOBpcYgCBK7rQieBFcJjgMGljosnN-fzn0Hvu3ag";
/// What it signed in another way, RSA-PSS.
const PSS: &str = "rdE_ZrHjqjYyWycnKn103WKQ1NsUB3gtZwQtZT3Wq38VeD9alv4nWYK6AOcbyF1GmIhVjWV-2mebTc686X1A5RxCtL_5DawAb8A3\
    CBQqk3-XndljHA8SsD4qzh8P9RDYlgzB6o1m66-eJcUKCv4_3EyE8_GzoGJ0mIBdUrPMk5TyMZQyoBctQSX2PaO2tGMbdYO3uZE0\
    LavMAEo3QwDdjzFP4orgr8tpfWvCVezAylZIYCPjEICRQdu5J-o0Jxk1HECSxPlT7P2CtikyXp0Bmp-lXeBAhyhYhFBLgHWdjTcN\
    CG-mmzs6HIuMFO2UrkbKv20U-Xcv6ENW61iRSXns1A";

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A tenant's key pair, and how it signs.
struct Pair {
    public: PublicKey,
    sign: Box<Sign>,
}

fn ed25519() -> Pair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key pair");
    let public = PublicKey::Ed25519(pair.public_key().as_ref().try_into().expect("32 bytes"));
    Pair { public, sign: Box::new(move |signed| pair.sign(signed).as_ref().to_vec()) }
}

fn p256(form: &'static EcdsaSigningAlgorithm) -> Pair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(form, &random).expect("randomness");
    let pair = EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).expect("a key pair");
    let public = PublicKey::P256(pair.public_key().as_ref()[1..].try_into().expect("64 bytes"));
    let sign = move |signed: &[u8]| pair.sign(&random, signed).expect("a signature").as_ref().to_vec();
    Pair { public, sign: Box::new(sign) }
}

impl Pair {
    fn token_with(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode((self.sign)(signed.as_bytes())))
    }

    fn token(&self, claims: &str) -> String {
        self.token_with(&header(self.public.algorithm()), claims)
    }
}

fn header(algorithm: Algorithm) -> String {
    format!(r#"{{"alg":"{}","typ":"JWT","kid":"k1"}}"#, algorithm.as_str())
}

/// Tenants whose only key, `k1`, is this one.
fn table_of(keys: &[(&str, &PublicKey)]) -> TenantTable {
    let tenant = |key: &PublicKey| Tenant {
        signing_keys: BTreeMap::from([SigningKey::public("k1", key.clone()).entry()]),
        ..Tenant::default()
    };
    keys.iter().map(|(name, key)| (id(name), tenant(key))).collect()
}

fn look(table: &TenantTable, token: &str) -> Result<Identity, AuthError> {
    let result = verify(table, &Credential::new(token), NOW_MS);
    if let Err(error) = result {
        assert_tells_nothing(error, token);
    }
    result
}

fn rsa() -> PublicKey {
    PublicKey::read(&json!(RSA)).expect("a public key")
}

#[test]
fn a_tenants_own_signature_is_believed() {
    for pair in [ed25519(), p256(&ECDSA_P256_SHA256_FIXED_SIGNING)] {
        let table = table_of(&[("acme", &pair.public)]);
        let identity = look(&table, &pair.token(&claims(&[]))).expect("a good token");
        assert_eq!(identity.peer, Peer::Client { subject: "alice".into() });
        assert_eq!(look(&table, &pair.token(&claims(&[("aud", r#""x""#)]))), Err(AuthError::WrongAudience));
    }
    let identity = look(&table_of(&[("acme", &rsa())]), RS256).expect("a good token");
    assert_eq!(identity.peer, Peer::Client { subject: "alice".into() });
}

#[test]
fn a_token_with_any_part_changed_is_not() {
    let [ed, ec] = [ed25519(), p256(&ECDSA_P256_SHA256_FIXED_SIGNING)];
    let rows = [
        (ed.public.clone(), ed.token(&claims(&[]))),
        (ec.public.clone(), ec.token(&claims(&[]))),
        (rsa(), RS256.to_owned()),
    ];
    for (public, good) in rows {
        let table = table_of(&[("acme", &public)]);
        assert!(look(&table, &good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).expect("ASCII");
            assert!(look(&table, &bad).is_err(), "{:?} at {at}", public.algorithm());
        }
        let (signed, _) = good.rsplit_once('.').expect("three parts");
        for length in [0, 1, 31, 32, 63, 64, 65, 96, 255, 256, 257, 512] {
            let other = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(vec![1; length]));
            assert_eq!(look(&table, &other), Err(AuthError::BadSignature), "{length} bytes");
            let zeros = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(vec![0; length]));
            assert_eq!(look(&table, &zeros), Err(AuthError::BadSignature), "{length} zeros");
        }
    }
}

/// T1: whoever takes the public key for a secret lets everybody in.
#[test]
fn a_public_key_is_never_a_secret() {
    let ed = ed25519();
    let rsa = rsa();
    let jwk = serde_json::to_string(&ed.public).expect("a JWK");
    let PublicKey::Ed25519(raw) = &ed.public else { panic!("an Ed25519 key") };
    let PublicKey::Rsa { n, .. } = &rsa else { panic!("an RSA key") };
    let pem = RSA.to_owned() + "\n";
    for secret in [&raw[..], jwk.as_bytes(), n, RSA.as_bytes(), pem.as_bytes(), b""] {
        let forged = forge(secret, HEADER, &claims(&[]));
        for public in [&ed.public, &rsa] {
            let mut table = table_of(&[("acme", public)]);
            assert_eq!(look(&table, &forged), Err(AuthError::UnknownKey));
            // And beside a secret of the same name.
            table.update(&id("acme"), |acme| acme.signing_keys.extend([key("k1", ACME_SECRET)]));
            assert_eq!(look(&table, &forged), Err(AuthError::BadSignature));
            assert!(look(&table, &token(&[])).is_ok());
        }
    }
}

#[test]
fn the_key_says_the_algorithm_and_the_token_does_not() {
    let pairs = [ed25519(), p256(&ECDSA_P256_SHA256_FIXED_SIGNING)];
    for pair in &pairs {
        let table = table_of(&[("acme", &pair.public)]);
        for algorithm in Algorithm::ALL.into_iter().filter(|other| *other != pair.public.algorithm()) {
            let forged = pair.token_with(&header(algorithm), &claims(&[]));
            assert_eq!(look(&table, &forged), Err(AuthError::UnknownKey), "{algorithm:?}");
        }
        for name in ["EDDSA", "eddsa", "Ed25519", "es256", "ES256K", "ES384", "RS512", "PS256", "HS512", "none", ""] {
            let header = format!(r#"{{"alg":"{name}","kid":"k1"}}"#);
            let forged = pair.token_with(&header, &claims(&[]));
            assert_eq!(look(&table, &forged), Err(AuthError::UnknownKey), "{name}");
        }
    }
    // A table that calls a key by another's algorithm opens nothing with it.
    let mut table = table_of(&[("acme", &pairs[0].public)]);
    table.update(&id("acme"), |acme| {
        let key = SigningKey::public("k1", pairs[0].public.clone());
        acme.signing_keys =
            Algorithm::ALL.into_iter().map(|algorithm| (("k1".into(), algorithm), key.clone())).collect();
    });
    for algorithm in [Algorithm::Hs256, Algorithm::Es256, Algorithm::Rs256] {
        let forged = pairs[0].token_with(&header(algorithm), &claims(&[]));
        assert_eq!(look(&table, &forged), Err(AuthError::UnknownKey), "{algorithm:?}");
    }
}

#[test]
fn a_signature_has_one_form() {
    // In DER, as TLS has it.
    let der = p256(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let table = table_of(&[("acme", &der.public)]);
    assert_eq!(look(&table, &der.token(&claims(&[]))), Err(AuthError::BadSignature));
    // RSA-PSS under the name of PKCS #1 v1.5.
    let (signed, _) = RS256.rsplit_once('.').expect("three parts");
    assert_eq!(look(&table_of(&[("acme", &rsa())]), &format!("{signed}.{PSS}")), Err(AuthError::BadSignature));
    // A point that is not on the curve.
    let table = table_of(&[("acme", &PublicKey::P256([1; 64]))]);
    assert_eq!(look(&table, &der.token(&claims(&[]))), Err(AuthError::BadSignature));
}

/// T2: the same `kid` in two tenants.
#[test]
fn a_public_key_of_one_tenant_never_vouches_for_another() {
    let [mine, others] = [ed25519(), ed25519()];
    let table = table_of(&[("acme", &mine.public), ("other", &others.public)]);
    let of = |tenant: &str| claims(&[("iss", &format!("\"{tenant}\""))]);
    assert_eq!(look(&table, &mine.token(&of("acme"))).expect("its own").tenant, id("acme"));
    assert_eq!(look(&table, &others.token(&of("other"))).expect("its own").tenant, id("other"));
    assert_eq!(look(&table, &mine.token(&of("other"))), Err(AuthError::BadSignature));
    assert_eq!(look(&table, &others.token(&of("acme"))), Err(AuthError::BadSignature));
}

#[test]
fn revoked_tokens_are_refused_whoever_signed_them() {
    let pair = ed25519();
    let good = pair.token(&claims(&[]));
    let revoked = |revoke: &dyn Fn(&mut Tenant)| {
        let mut table = table_of(&[("acme", &pair.public)]);
        table.update(&id("acme"), revoke);
        look(&table, &good)
    };
    assert_eq!(revoked(&|acme| acme.revoked.token("j1", 0).expect("room")), Err(AuthError::Revoked));
    assert!(revoked(&|acme| acme.revoked.token("j2", 0).expect("room")).is_ok());
    assert_eq!(revoked(&|acme| assert!(acme.revoked.subject("alice", NOW_MS).is_ok())), Err(AuthError::Revoked));
    assert!(revoked(&|acme| assert!(acme.revoked.subject("alice", NOW_MS - 1).is_ok())).is_ok());
}

#[test]
fn no_token_is_made_with_a_key_that_only_the_tenant_has() {
    let order =
        TokenOrder { peer: Peer::Gateway { address: "b/g".parse().expect("an address") }, grants: vec![], ttl_s: 60 };
    let mut table = table_of(&[("acme", &ed25519().public)]);
    table.update(&id("acme"), |acme| acme.signing_kid = "k1".into());
    let acme = table.get(&id("acme")).expect("acme");
    assert_eq!(mint(&id("acme"), acme, &order, NOW_MS), Err(MintError::NoSigningKey));
}
