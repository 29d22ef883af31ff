//! Who may use the admin API: the secrets in a file, each with the name that the audit shows.

use sha2::{Digest, Sha256};

/// Shortest secret, in bytes: 32 random ones in base64url.
pub const SECRET_BYTES: usize = 43;
/// Longest line of the file, in bytes.
const LINE_BYTES: usize = 1_024;
/// Most secrets: one for each person and program, twice while they are changed.
const SECRETS: usize = 64;
/// The name of a secret that has none.
const NAME: &str = "admin";

/// Why a file of credentials was refused. It repeats nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// A line.
    #[error("line {0}: not a secret of at least {SECRET_BYTES} visible characters, with or without a name before it")]
    Line(usize),
    /// Nothing in it, or too much.
    #[error("it must hold 1 to {SECRETS} secrets, each on a line of its own")]
    Number,
}

/// The secrets that are good, as their hashes.
#[derive(Clone)]
pub struct Credentials(Vec<(String, [u8; 32])>);

impl Credentials {
    /// Reads a file: on each line a secret, or a name, a blank and a secret. Lines that begin with `#` and empty ones are left
    /// out.
    pub fn read(text: &str) -> Result<Self, CredentialError> {
        let mut known = vec![];
        for (at, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (name, secret) = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [secret] => (NAME, secret),
                [name, secret] => (name, secret),
                _ => return Err(CredentialError::Line(at + 1)),
            };
            let good = secret.len() >= SECRET_BYTES
                && line.len() <= LINE_BYTES
                && secret.bytes().chain(name.bytes()).all(|byte| byte.is_ascii_graphic());
            if !good {
                return Err(CredentialError::Line(at + 1));
            }
            known.push((name.to_owned(), hash(secret)));
        }
        if (1..=SECRETS).contains(&known.len()) { Ok(Self(known)) } else { Err(CredentialError::Number) }
    }

    /// Whose secret this is. All are compared to their ends, and as hashes, so that the time tells nothing of how much of a
    /// secret was right.
    pub fn whose(&self, secret: &str) -> Option<&str> {
        let given = hash(secret);
        let mut whose = None;
        for (name, known) in &self.0 {
            let differs = known.iter().zip(&given).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                whose = Some(name.as_str());
            }
        }
        whose
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_and_what_is_near_it_is_not() {
        let (anna, plain) = ("a".repeat(43), "b".repeat(44));
        let known = Credentials::read(&format!("# ours\n\n anna {anna}\n{plain}\n")).expect("a good file");
        assert_eq!(known.whose(&anna), Some("anna"));
        assert_eq!(known.whose(&plain), Some("admin"));
        for other in ["", "anna", &anna[1..], &format!("{anna}a"), &format!("{anna} "), &"a".repeat(42)] {
            assert_eq!(known.whose(other), None, "{other}");
        }
        assert!(!format!("{known:?}").contains(&anna));
    }

    #[test]
    fn a_file_without_a_good_secret_is_refused() {
        let good = "a".repeat(43);
        for (text, error) in [
            (String::new(), CredentialError::Number),
            ("# nothing\n".into(), CredentialError::Number),
            ("\nshort\n".into(), CredentialError::Line(2)),
            (format!("one two {good}"), CredentialError::Line(1)),
            (format!("{good}\u{7f}"), CredentialError::Line(1)),
            ("x".repeat(2_000), CredentialError::Line(1)),
            (format!("{good}\n").repeat(65), CredentialError::Number),
        ] {
            assert_eq!(Credentials::read(&text).expect_err("no good file"), error, "{text}");
        }
    }
}
