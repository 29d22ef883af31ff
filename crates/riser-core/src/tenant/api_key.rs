//! API keys: what their text looks like, what is kept of them, and what they may do.
//!
//! The text is `rk_<43 of base64url>_<6 of base62>`: 256 random bits, and a CRC-32 of all before it. A typing error, half
//! a key and most of what a guesser makes up are so told apart without a look at any table, and programs that search
//! repositories for secrets find keys without false alarms. Keys from before the checksum stay valid.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::grant::{Grant, SUBJECT_BYTES};
use crate::range::AddressRange;
use crate::text::{hex, unhex};

/// What every API key starts with. No token does: those start with the base64url of `{`.
pub const API_KEY_PREFIX: &str = "rk_";
/// Random bytes in an API key: so many that not even its plain hash can be searched.
pub const API_KEY_BYTES: usize = 32;
/// Letters that [`API_KEY_BYTES`] take.
const RANDOM_LETTERS: usize = 43;
/// Letters of the checksum: as many as 32 bits take in base62.
const CHECK_LETTERS: usize = 6;
/// Most ranges of addresses that one key may be used from.
pub const API_KEY_RANGES: usize = 64;
/// Keys of one name that may be live at a time: the one in use, and the one that takes its place.
pub const KEYS_PER_NAME: usize = 2;
/// Shortest secret that keys are hashed with, in bytes.
pub const HASH_KEY_BYTES: usize = 32;

/// Writes an API key of random bytes.
pub fn api_key_text(random: &[u8; API_KEY_BYTES]) -> String {
    let body = format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    format!("{body}_{}", checksum(&body))
}

/// Whether a text can be an API key at all: with the right checksum, or from before there was one.
pub fn is_api_key(text: &str) -> bool {
    const BODY: usize = API_KEY_PREFIX.len() + RANDOM_LETTERS;
    let letters = |part: &str| part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    if !text.starts_with(API_KEY_PREFIX) || !text.is_ascii() || !letters(text) {
        return false;
    }
    match text.split_at_checked(BODY) {
        Some((_, "")) => true,
        Some((body, check)) => check.strip_prefix('_').is_some_and(|check| check == checksum(body)),
        None => false,
    }
}

fn checksum(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut left = crc32(text.as_bytes()) as usize;
    let mut digits = [b'0'; CHECK_LETTERS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[left % DIGITS.len()];
        left /= DIGITS.len();
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// CRC-32 as in IEEE 802.3, bit by bit: keys are short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// The secret that keys are hashed with: known to edges and to the control plane, and to no table.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey(Vec<u8>);

impl HashKey {
    /// None when it is shorter than [`HASH_KEY_BYTES`].
    pub fn new(secret: impl Into<Vec<u8>>) -> Option<Self> {
        Some(Self(secret.into())).filter(|key| key.0.len() >= HASH_KEY_BYTES)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

/// What is kept of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyHash {
    /// SHA-256 of the whole text.
    Sha256([u8; 32]),
    /// HMAC-SHA-256 of the whole text with the cluster's [`HashKey`]: who reads the table cannot even try keys on it, and
    /// who can write into it cannot make a key of his own.
    HmacSha256([u8; 32]),
}

impl KeyHash {
    /// Hashes a key: with the cluster's secret when there is one.
    pub fn of(text: &str, with: Option<&HashKey>) -> Self {
        match with {
            None => Self::Sha256(Sha256::digest(text.as_bytes()).into()),
            Some(HashKey(secret)) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
                mac.update(text.as_bytes());
                Self::HmacSha256(mac.finalize().into_bytes().into())
            }
        }
    }

    /// Reads `sha256:` or `hmac-sha256:` and 64 hexadecimal digits.
    pub fn read(text: &str) -> Option<Self> {
        let (kind, digits) = text.split_once(':')?;
        match kind {
            "sha256" => unhex(digits).map(Self::Sha256),
            "hmac-sha256" => unhex(digits).map(Self::HmacSha256),
            _ => None,
        }
    }

    /// What stands for the key in a session: 32 bytes that no other key has.
    pub fn bytes(&self) -> &[u8; 32] {
        let (Self::Sha256(bytes) | Self::HmacSha256(bytes)) = self;
        bytes
    }
}

impl std::fmt::Display for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::HmacSha256(_) => "hmac-sha256",
        };
        write!(f, "{kind}:{}", hex(self.bytes()))
    }
}

/// An API key as it is kept, under its [`KeyHash`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in logs and as a session's subject; tells nothing about the key.
    pub name: String,
    /// What it may do.
    pub scope: Vec<Grant>,
    /// When it was made, Unix milliseconds; 0 when nobody noted it.
    pub created_at_ms: u64,
    /// When it stops working, Unix milliseconds; never when none.
    pub expires_at_ms: Option<u64>,
    /// From where it may be used; from anywhere when empty.
    pub from: Vec<AddressRange>,
}

impl ApiKey {
    /// A key without an end that may be used from anywhere.
    pub fn new(name: impl Into<String>, scope: Vec<Grant>) -> Self {
        Self { name: name.into(), scope, created_at_ms: 0, expires_at_ms: None, from: Vec::new() }
    }

    /// Whether it has not run out.
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|end| now_ms < end)
    }

    /// Whether it may be used from this address. Without an address only a key for everywhere may.
    pub fn may_come_from(&self, address: Option<IpAddr>) -> bool {
        self.from.is_empty() || address.is_some_and(|address| self.from.iter().any(|range| range.contains(address)))
    }
}

/// Whether an API key may be called so: 1 to 128 bytes without control characters.
pub fn is_key_name(name: &str) -> bool {
    (1..=SUBJECT_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_form_that_scanners_look_for() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of the catalogue of CRCs");
        let key = api_key_text(&[7; 32]);
        assert_eq!(key, "rk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc_173BRk");
        assert!(is_api_key(&key));
    }

    #[test]
    fn a_key_with_any_letter_changed_is_none() {
        let key = api_key_text(&[0xa5; 32]);
        for at in 0..key.len() {
            let mut wrong = key.clone().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert!(!is_api_key(&wrong), "{at}");
        }
        for end in 0..key.len() {
            // As long as the old form, it is taken for one of those, and for the table to know.
            assert_eq!(is_api_key(&key[..end]), end == 46, "{end}");
        }
        assert!(!is_api_key(&format!("{key}A")) && !is_api_key(&format!(" {key}")) && !is_api_key("rk_"));
        assert!(!is_api_key(&format!("rk_{}", "ä".repeat(22))));
    }

    #[test]
    fn a_keyed_hash_hangs_on_the_secret() {
        let [a, b] = [1_u8, 2].map(|n| HashKey::new([n; 32]).expect("a long secret"));
        let key = api_key_text(&[7; 32]);
        let hashes = [KeyHash::of(&key, None), KeyHash::of(&key, Some(&a)), KeyHash::of(&key, Some(&b))];
        assert_ne!(hashes[0].bytes(), hashes[1].bytes());
        assert_ne!(hashes[1], hashes[2]);
        for hash in hashes {
            assert_eq!(KeyHash::read(&hash.to_string()), Some(hash));
        }
        assert_eq!(HashKey::new([1; 31]), None);
        assert_eq!(KeyHash::read(&format!("md5:{}", "0".repeat(64))), None);
        assert_eq!(KeyHash::read(&"0".repeat(64)), None);
    }
}
