//! Short texts that peers choose and others see: bounded, and without characters that are not seen.

/// Makes a type for a short text: 1 to so many bytes of UTF-8 without control or bidirectional-control characters. It
/// serialises as the text, and an error never repeats the text.
macro_rules! short_text {
    ($(#[$doc:meta])* $name:ident, $bytes:expr, $error:ty, $why:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;
            fn from_str(s: &str) -> Result<Self, $error> {
                let good = (1..=$bytes).contains(&s.len()) && !s.chars().any(crate::path::is_hidden);
                if good { Ok(Self(s.into())) } else { Err($why) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        crate::id::text_serde!($name);
    };
}
pub(crate) use short_text;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// 64 hexadecimal digits as bytes.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits: [u32; 64] = digits?.try_into().ok()?;
    let byte = |at: usize| u8::try_from(digits[2 * at] * 16 + digits[2 * at + 1]).unwrap_or_default();
    Some(std::array::from_fn(byte))
}
