//! Ranges of IP addresses, as in `10.0.0.0/8`: which proxies are believed, and from where a key may be used.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::text_serde;

/// Bits of an IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) before the address itself.
const MAPPED_BITS: u8 = 96;

/// All addresses that begin with the same bits (RFC 4632, RFC 4291 §2.3).
///
/// An IPv4 address is the same however it is written: `::ffff:10.0.0.1`, which is how a socket that takes both families
/// shows it, is `10.0.0.1`. So IPv4 is only in ranges of IPv4, and `::/0` holds none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// Zero behind the first `bits` bits, and never IPv4 within IPv6.
    first: IpAddr,
    bits: u8,
}

/// Why a text is no range. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not an address with a number of bits.
    #[error("not a range of addresses, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")]
    Malformed,
    /// More bits than the address has.
    #[error("an IPv4 range has at most 32 bits, an IPv6 range at most 128")]
    Bits,
    /// Bits are set behind the prefix, so that either the address or the number is not what was meant.
    #[error("the address has bits behind the prefix: the range begins at {0}")]
    Behind(AddressRange),
}

impl AddressRange {
    /// Whether the address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => u32::from(first) == u32::from(address) & mask_v4(self.bits),
            (IpAddr::V6(first), IpAddr::V6(address)) => u128::from(first) == u128::from(address) & mask_v6(self.bits),
            _ => false,
        }
    }
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// The number of bits of a prefix, in plain digits: no sign, no leading zero.
fn bits(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let written: IpAddr = address.parse().map_err(|_| RangeError::Malformed)?;
        let all = if written.is_ipv4() { 32 } else { 128 };
        let bits = match prefix {
            Some(prefix) => bits(prefix).ok_or(RangeError::Malformed)?,
            None => all,
        };
        if bits > all {
            return Err(RangeError::Bits);
        }
        let (address, bits) = match (written, written.to_canonical()) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) if bits >= MAPPED_BITS => (mapped, bits - MAPPED_BITS),
            _ => (written, bits),
        };
        let first = match address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & mask_v4(bits)).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & mask_v6(bits)).into()),
        };
        let range = Self { first, bits };
        if first == address { Ok(range) } else { Err(RangeError::Behind(range)) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

text_serde!(AddressRange);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().expect(text)
    }

    fn holds(text: &str, address: &str) -> bool {
        range(text).contains(address.parse().expect(address))
    }

    #[test]
    fn a_range_holds_what_begins_like_it() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::/0", "2001:db8::1", "::ffff:10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:0.0.0.0/96", "10.1.2.3", "::1"),
        ] {
            assert!(holds(text, inside), "{text} {inside}");
            assert!(!holds(text, outside), "{text} {outside}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        use RangeError::{Bits, Malformed};
        for (text, error) in [
            ("", Malformed),
            ("10.0.0.0/", Malformed),
            ("10.0.0.0/08", Malformed),
            ("10.0.0.0/+8", Malformed),
            ("10.0.0.0/-1", Malformed),
            ("10.0.0.0/8/8", Malformed),
            ("10.0.0.0/256", Malformed),
            ("10.0.0/8", Malformed),
            ("010.0.0.0/8", Malformed),
            (" 10.0.0.0/8", Malformed),
            ("10.0.0.0/255.0.0.0", Malformed),
            ("fe80::1%eth0", Malformed),
            ("[::1]/128", Malformed),
            ("example.org", Malformed),
            ("10.0.0.0/33", Bits),
            ("::/129", Bits),
        ] {
            assert_eq!(text.parse::<AddressRange>(), Err(error), "{text}");
        }
        let error = "10.0.0.1/8".parse::<AddressRange>().expect_err("bits behind the prefix");
        assert_eq!(error.to_string(), "the address has bits behind the prefix: the range begins at 10.0.0.0/8");
        assert!(matches!("0.0.0.1/0".parse::<AddressRange>(), Err(RangeError::Behind(_))));
        assert!(matches!("2001:db8::1/64".parse::<AddressRange>(), Err(RangeError::Behind(_))));
    }

    proptest! {
        #[test]
        fn a_range_is_read_back_as_it_is_written(address: u128, v4: bool, bits in 0..=128_u8) {
            #[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
            let (first, bits) = if v4 {
                let bits = bits % 33;
                (IpAddr::V4((address as u32 & mask_v4(bits)).into()), bits)
            } else {
                (IpAddr::V6((address & mask_v6(bits)).into()), bits)
            };
            let range: AddressRange = format!("{first}/{bits}").parse().expect("a range");
            prop_assert_eq!(range.to_string().parse::<AddressRange>(), Ok(range));
            prop_assert_eq!(serde_json::from_str::<AddressRange>(&serde_json::to_string(&range).expect("text")).expect("read"), range);
            prop_assert!(range.contains(first));
        }
    }
}
