//! The times that JetStream writes, RFC 3339 in UTC, as Unix milliseconds.

/// Reads `2026-11-26T11:09:34.215042633Z`, with any number of digits behind the point or none. Times before 1970 are 0:
/// JetStream writes the year 1 for "never".
pub fn millis(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date.split('-'))?;
    let [hours, minutes, seconds] = numbers(time.split(':'))?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hours < 24 && minutes < 60 && seconds <= 60;
    if !in_range || year > 9_999 || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = fraction.bytes().chain(*b"00").take(3).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let seconds = days(year, month, day) * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    Some(u64::try_from(seconds * 1_000 + thousandths).unwrap_or(0))
}

fn numbers<'a>(parts: impl Iterator<Item = &'a str>) -> Option<[i64; 3]> {
    let numbers: Option<Vec<_>> = parts.map(|part| part.parse::<u16>().ok().map(i64::from)).collect();
    numbers?.try_into().ok()
}

/// Days from 1970 on. A year begins with March here, so that the day that leap years add is its last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let before_month = (153 * month + 2) / 5;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::millis;

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("1970-01-02T00:00:00Z", 86_400_000),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2024-12-31T23:59:59.9Z", 1_735_689_599_900),
            ("2025-01-01T00:00:00.12Z", 1_735_689_600_120),
            ("2026-11-26T11:09:34.215999999Z", 1_795_691_374_215),
            ("0001-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for bad in [
            "",
            "Z",
            "2026-11-26",
            "2026-11-26T11:09:34",
            "2026-11-26T11:09:34+01:00",
            "2026-11-26T11:09:34.Z",
            "2026-11-26T11:09:34.xZ",
            "2026-13-26T11:09:34Z",
            "2026-00-26T11:09:34Z",
            "2026-11-26T24:09:34Z",
            "2026-11T11:09:34Z",
            "99999-11-26T11:09:34Z",
        ] {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
    }
}
