//! Moments as text: RFC 3339, as issuers of licences write them, and the date of an HTTP answer.

use crate::payment::Timestamp;

const DAY: i64 = 86_400;

/// Reads `2026-01-31T12:00:00.5Z`, with any offset.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = fields(date, '-')?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = fields(time, ':')?;
    let millis = parse_fraction(fraction)?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, ..] => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let [hours, minutes] = [number(hours)?, number(minutes)?];
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        [] => return None,
    };
    let secs = at(year, month, day, [hour, minute, second])? - offset;
    let millis = u64::try_from(secs).ok()?.checked_mul(1000)? + millis;
    Some(Timestamp::from_millis(millis))
}

/// Writes a moment as issuers of licences do: `2026-01-31T12:00:00.500Z`.
#[must_use]
pub fn format(at: Timestamp) -> String {
    let millis = at.as_millis() % 1000;
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    let (day, second) = (secs / DAY, secs % DAY);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads the `Date` of an HTTP answer: `Sat, 21 Nov 2026 15:17:00 GMT`.
pub(super) fn parse_http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split_ascii_whitespace();
    let day = number(words.next()?)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year = number(words.next()?)?;
    let time = fields(words.next()?, ':')?;
    let secs = at(year, i64::try_from(month).ok()?, day, time)?;
    (words.next() == Some("GMT")).then_some(())?;
    Some(Timestamp::from_secs(u64::try_from(secs).ok()?))
}

fn number(digits: &str) -> Option<i64> {
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

fn fields(text: &str, between: char) -> Option<[i64; 3]> {
    let mut fields = text.split(between).map(number);
    let three = [fields.next()??, fields.next()??, fields.next()??];
    fields.next().is_none().then_some(three)
}

fn parse_fraction(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let three: String = digits.chars().chain("000".chars()).take(3).collect();
    three.parse().ok()
}

fn at(year: i64, month: i64, day: i64, [hour, minute, second]: [i64; 3]) -> Option<i64> {
    let sane = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let days = days(year, month, day);
    // The calendar is asked back: there is no 30 February.
    let exists = sane && date(days) == (year, month, day);
    exists.then_some(days * DAY + hour * 3600 + minute * 60 + second)
}

/// Days from the epoch. Years begin in March here, so that the odd day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way round.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_with_any_offset() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2024-11-07T17:20:00.5+00:00", 1_731_000_000_500),
            ("2024-11-07T19:20:00+02:00", 1_731_000_000_000),
            ("2024-11-07 12:20:00.123456-05:00", 1_731_000_000_123),
            ("2100-01-01T00:00:00Z", 4_102_444_800_000),
        ] {
            assert_eq!(parse(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "2024-11-07",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00+2",
            "1969-12-31T23:59:59Z",
            "2024-01-01T00:00:00.xZ",
            "2024-01-01T00:00:00é",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for day in 0..60_000u64 {
            let at = Timestamp::from_millis(day * 86_400_000 + 45_296_789);
            assert_eq!(parse(&format(at)), Some(at));
        }
        assert_eq!(
            format(Timestamp::from_secs(1_731_000_000)),
            "2024-11-07T17:20:00.000Z"
        );
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(
            parse_http_date("Thu, 07 Nov 2024 17:20:00 GMT"),
            Some(Timestamp::from_secs(1_731_000_000))
        );
        assert_eq!(parse_http_date("Thu, 07 Nov 2024 17:20:00 CET"), None);
    }
}
