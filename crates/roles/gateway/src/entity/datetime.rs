//! Dates and times in ISO 8601 (RFC 3339 where there is a zone).

use time::{Date, Time, UtcOffset};

const DAY_US: i64 = 86_400_000_000;
/// The Julian day of 1970-01-01.
const EPOCH: i32 = 2_440_588;
/// MySQL's longest TIME, 838:59:59, in seconds.
const LONGEST_TIME: i64 = 3_020_399;

/// The text of a date, given in days since 1970-01-01.
pub(crate) fn date_text(days: i32) -> String {
    match Date::from_julian_day(days.saturating_add(EPOCH)) {
        Ok(date) => format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()),
        // Outside MySQL's range of dates.
        Err(_) => format!("{days} days"),
    }
}

fn fraction_text(micros: u64, fsp: u8) -> String {
    if fsp == 0 { String::new() } else { format!(".{micros:06}")[..=usize::from(fsp.min(6))].to_owned() }
}

/// The text of a date and time, given in microseconds since 1970-01-01T00:00:00, with `fsp` fraction digits.
pub(crate) fn date_time_text(us: i64, fsp: u8) -> String {
    let date = date_text(us.div_euclid(DAY_US) as i32);
    format!("{date}T{}", time_text(us.rem_euclid(DAY_US), fsp))
}

/// The text of a TIME, given in microseconds, with `fsp` fraction digits.
pub(crate) fn time_text(us: i64, fsp: u8) -> String {
    let (seconds, micros) = (us.unsigned_abs() / 1_000_000, us.unsigned_abs() % 1_000_000);
    let sign = if us < 0 { "-" } else { "" };
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{sign}{hours:02}:{minutes:02}:{:02}{}", seconds % 60, fraction_text(micros, fsp))
}

/// Parses text that consists of ASCII digits only.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Parses a date from 0001-01-01 to 9999-12-31.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let (year, rest) = text.split_at_checked(4)?;
    let (month, day) = rest.strip_prefix('-')?.split_once('-')?;
    if month.len() != 2 || day.len() != 2 {
        return None;
    }
    let year = digits(year).filter(|year| *year > 0)?;
    let month = time::Month::try_from(digits(month)? as u8).ok()?;
    let date = Date::from_calendar_date(year as i32, month, digits(day)? as u8).ok()?;
    Some(date.to_julian_day() - EPOCH)
}

/// Parses `12` or `12.5` into whole seconds and microseconds. Digits beyond `fsp` must be zeros.
fn parse_seconds(text: &str, fsp: u8) -> Option<(u32, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() != 2 || text.ends_with('.') || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (kept, beyond) = fraction.split_at(fraction.len().min(fsp.into()));
    if beyond.bytes().any(|b| b != b'0') {
        return None;
    }
    Some((digits(whole)?, if kept.is_empty() { 0 } else { format!("{kept:0<6}").parse().ok()? }))
}

/// Parses a TIME: `[-]H…H:MM:SS[.f]`.
pub(crate) fn parse_time(text: &str, fsp: u8) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    if !(2..=3).contains(&hours.len()) || minutes.len() != 2 {
        return None;
    }
    let (seconds, micros) = parse_seconds(seconds, fsp)?;
    let minutes = digits(minutes).filter(|m| *m < 60)?;
    let whole = i64::from(digits(hours)?) * 3600 + i64::from(minutes * 60);
    let whole = whole + i64::from(Some(seconds).filter(|s| *s < 60)?);
    if whole > LONGEST_TIME {
        return None;
    }
    let us = whole * 1_000_000 + i64::from(micros);
    Some(if negative { -us } else { us })
}

/// Parses a date and a time of day, separated by `T` or a space. Also returns the zone's offset in microseconds,
/// if there is one.
pub(crate) fn parse_date_time(text: &str, fsp: u8) -> Option<(i64, Option<i64>)> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, zone) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, None),
        Some(at) => (&rest[..at], Some(parse_zone(&rest[at..])?)),
    };
    let (hour, minute, seconds) = (clock.get(..2)?, clock.get(3..5)?, clock.get(6..)?);
    if clock.get(2..3) != Some(":") || clock.get(5..6) != Some(":") {
        return None;
    }
    let (second, micros) = parse_seconds(seconds, fsp)?;
    let clock =
        Time::from_hms_micro(digits(hour)? as u8, digits(minute)? as u8, second as u8, micros).ok()?;
    let days = i64::from(parse_date(date)?);
    Some((days * DAY_US + (clock - Time::MIDNIGHT).whole_microseconds() as i64, zone))
}

fn parse_zone(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = text.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)? as i8, digits(minutes).filter(|m| *m < 60)? as i8);
    let offset = UtcOffset::from_hms(hours, minutes, 0).ok()?;
    let us = i64::from(offset.whole_seconds()) * 1_000_000;
    Some(if sign == "-" { -us } else { us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        for (days, text) in
            [(0, "1970-01-01"), (-719_162, "0001-01-01"), (2_932_896, "9999-12-31"), (11_016, "2000-02-29")]
        {
            assert_eq!((date_text(days).as_str(), parse_date(text)), (text, Some(days)));
        }
    }

    #[test]
    fn malformed_times_are_rejected() {
        for text in ["", "2024-1-01", "2024-13-01", "2024-01-00", "02024-01-1", "+024-01-01", "０000-01-01"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in
            ["1:00:00", "00:60:00", "00:00:60", "00:00", "00:00:00.", "00:00:0.1", "--1:00:00", "00:00:00.x"]
        {
            assert_eq!(parse_time(text, 6), None, "{text}");
        }
        for text in [
            "2024-01-01",
            "2024-01-01T24:00:00",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+26:00",
            "2024-01-01T00:00:00Zx",
            "2024-01-01X00:00:00",
            "2024-01-01T00-00-00",
            "2024-01-01é",
        ] {
            assert_eq!(parse_date_time(text, 6), None, "{text}");
        }
        assert_eq!(parse_time("00:00:00.500000000", 1), Some(500_000));
        assert_eq!(parse_time("00:00:00.51", 1), None);
        assert_eq!(parse_date_time("1970-01-01T00:00:00-01:30", 0), Some((0, Some(-5_400_000_000))));
    }
}
