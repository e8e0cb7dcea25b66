//! Dates and times in MySQL's binlog encodings (`sql/my_time.cc`, `my_*_packed_from_binary`), as fields, and
//! as the model's values.

use tandem_model::Value;

use crate::cursor::{Cursor, Malformed};

/// The fields of a date and time of day. As in MySQL, they need not be a valid date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DateTimeFields {
    /// The year, 0 to 9999.
    pub year: u16,
    /// The month, 0 to 12.
    pub month: u8,
    /// The day of the month, 0 to 31.
    pub day: u8,
    /// The hour.
    pub hour: u8,
    /// The minute.
    pub minute: u8,
    /// The second.
    pub second: u8,
    /// Microseconds within the second.
    pub micros: u32,
}

const DAY_US: i64 = 86_400_000_000;

impl DateTimeFields {
    /// Days since 1970-01-01. `None` if the fields are not a day of the calendar.
    ///
    /// That is the case for zero and partial dates, for dates such as the 31st of February
    /// (ALLOW_INVALID_DATES), and for the year 0: MySQL's own arithmetic does not treat it as a year of the
    /// proleptic calendar.
    pub(crate) fn days(self) -> Option<i32> {
        let (year, month, day) = (i32::from(self.year), i32::from(self.month), i32::from(self.day));
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + i32::from(leap),
            _ => return None,
        };
        if year == 0 || day < 1 || day > length {
            return None;
        }
        // The algorithm "days from civil": years begin in March, and eras have 400 years.
        let y = if month <= 2 { year - 1 } else { year };
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
    }

    /// The fields of a day since 1970-01-01, if its year is within MySQL's range.
    fn from_days(days: i64) -> Option<Self> {
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        Some(Self {
            year: u16::try_from(year).ok().filter(|y| *y <= 9999)?,
            month: month as u8,
            day: (doy - (153 * mp + 2) / 5 + 1) as u8,
            ..Self::default()
        })
    }

    /// Microseconds since 1970-01-01T00:00:00.
    pub(crate) fn micros_since_epoch(self) -> Option<i64> {
        let seconds = (i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second);
        Some(i64::from(self.days()?) * DAY_US + seconds * 1_000_000 + i64::from(self.micros))
    }

    fn from_micros_since_epoch(micros: i64) -> Option<Self> {
        let date = Self::from_days(micros.div_euclid(DAY_US))?;
        let in_day = micros.rem_euclid(DAY_US);
        let seconds = in_day / 1_000_000;
        Some(Self {
            hour: (seconds / 3600) as u8,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
            micros: (in_day % 1_000_000) as u32,
            ..date
        })
    }

    /// Reads the packed form in JSON (`TIME_from_longlong_datetime_packed`): year × 13 + month, then 5 bits
    /// for the day, 5 for the hour, 6 for the minute, 6 for the second and 24 for microseconds.
    pub(crate) fn from_packed(packed: i64) -> Result<Self, Malformed> {
        let packed = packed.unsigned_abs();
        let year_month = packed >> 46;
        Ok(Self {
            year: year(year_month / 13)?,
            month: (year_month % 13) as u8,
            day: (packed >> 41 & 31) as u8,
            hour: (packed >> 36 & 31) as u8,
            minute: (packed >> 30 & 63) as u8,
            second: (packed >> 24 & 63) as u8,
            micros: micros(packed & 0xff_ffff)?,
        })
    }

    /// The text as MySQL prints it. With a number of fraction digits it is a date and time, otherwise a date.
    pub(crate) fn text(self, fsp: Option<u8>) -> DateText {
        let mut text = DateText { bytes: *b"0000-00-00 00:00:00.000000", len: 10 };
        text.digits(0..4, self.year.into());
        text.digits(5..7, self.month.into());
        text.digits(8..10, self.day.into());
        if let Some(fsp) = fsp {
            text.digits(11..13, self.hour.into());
            text.digits(14..16, self.minute.into());
            text.digits(17..19, self.second.into());
            text.digits(20..26, self.micros);
            text.len = if fsp == 0 { 19 } else { 20 + usize::from(fsp.min(6)) };
        }
        text
    }

    fn invalid(self, fsp: Option<u8>) -> Value {
        Value::InvalidDate(self.text(fsp).as_str().to_owned())
    }

    /// The value of a DATE column.
    pub fn date(self) -> Value {
        self.days().map_or_else(|| self.invalid(None), Value::Date)
    }

    /// The value of a DATETIME column.
    pub fn date_time(self, fsp: u8) -> Value {
        self.micros_since_epoch().map_or_else(|| self.invalid(Some(fsp)), Value::DateTime)
    }

    /// The value of a TIMESTAMP column, from fields in UTC.
    pub fn timestamp(self, fsp: u8) -> Value {
        self.micros_since_epoch().map_or_else(|| self.invalid(Some(fsp)), Value::Timestamp)
    }

    /// The fields of a DATE, DATETIME, TIMESTAMP or invalid date. `None` for other values, and for values
    /// outside MySQL's range.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Date(days) => Self::from_days((*days).into()),
            Value::DateTime(micros) | Value::Timestamp(micros) => Self::from_micros_since_epoch(*micros),
            Value::InvalidDate(text) => Self::parse(text),
            _ => None,
        }
    }

    /// Parses a text form that this module wrote.
    fn parse(text: &str) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<u16>().ok());
        let small = |range| number(range).and_then(|n| u8::try_from(n).ok());
        let date = Self { year: number(0..4)?, month: small(5..7)?, day: small(8..10)?, ..Self::default() };
        if text.len() == 10 {
            return Some(date);
        }
        let micros = match text.get(20..) {
            Some(digits) if digits.len() <= 6 => format!("{digits:0<6}").parse().ok()?,
            Some(_) => return None,
            None => 0,
        };
        Some(Self { hour: small(11..13)?, minute: small(14..16)?, second: small(17..19)?, micros, ..date })
    }
}

/// The text of a date, with or without a time.
pub(crate) struct DateText {
    bytes: [u8; 26],
    len: usize,
}

impl DateText {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("digits and signs are ASCII")
    }

    fn digits(&mut self, place: std::ops::Range<usize>, mut value: u32) {
        for digit in self.bytes[place].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
}

/// Reads a DATE: 3 bytes little-endian, with 5 bits for the day, 4 for the month and 15 for the year.
pub(crate) fn binlog_date(cursor: &mut Cursor<'_>) -> Result<DateTimeFields, Malformed> {
    let packed = cursor.uint(3)?;
    Ok(DateTimeFields {
        year: year(packed >> 9)?,
        month: (packed >> 5 & 15) as u8,
        day: (packed & 31) as u8,
        ..DateTimeFields::default()
    })
}

fn year(year: u64) -> Result<u16, Malformed> {
    if year > 9999 { Err("it has a date after the year 9999".into()) } else { Ok(year as u16) }
}

/// The size of the fraction in bytes, and its unit in microseconds.
fn fraction_layout(fsp: u8) -> Result<(usize, u64), Malformed> {
    match fsp {
        0 => Ok((0, 0)),
        1 | 2 => Ok((1, 10_000)),
        3 | 4 => Ok((2, 100)),
        5 | 6 => Ok((3, 1)),
        _ => Err("it has a time with more than 6 fraction digits".into()),
    }
}

fn fraction(cursor: &mut Cursor<'_>, fsp: u8) -> Result<u32, Malformed> {
    let (bytes, unit) = fraction_layout(fsp)?;
    micros(cursor.uint_be(bytes)? * unit)
}

fn micros(fraction: u64) -> Result<u32, Malformed> {
    if fraction >= 1_000_000 {
        return Err("it has a time with a fraction of a second or more".into());
    }
    Ok(fraction as u32)
}

/// Reads a DATETIME2: 5 bytes big-endian, then the fraction. The bits are the sign, 17 for year × 13 + month,
/// 5 for the day, 5 for the hour, 6 for the minute and 6 for the second.
pub(crate) fn binlog_date_time(cursor: &mut Cursor<'_>, fsp: u8) -> Result<DateTimeFields, Malformed> {
    let packed = cursor.uint_be(5)? & 0x7f_ffff_ffff;
    let year_month = packed >> 22;
    Ok(DateTimeFields {
        year: year(year_month / 13)?,
        month: (year_month % 13) as u8,
        day: (packed >> 17 & 31) as u8,
        hour: (packed >> 12 & 31) as u8,
        minute: (packed >> 6 & 63) as u8,
        second: (packed & 63) as u8,
        micros: fraction(cursor, fsp)?,
    })
}

/// Reads a TIMESTAMP2: seconds since the epoch in 4 bytes big-endian, then the fraction. Returns
/// microseconds, or `None` for 0, which is the zero date.
pub(crate) fn binlog_timestamp(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Option<i64>, Malformed> {
    let seconds = cursor.uint_be(4)? as i64;
    let micros = fraction(cursor, fsp)?;
    Ok((seconds != 0).then_some(seconds * 1_000_000 + i64::from(micros)))
}

/// Reads a TIME2. Returns microseconds.
///
/// It is 3 bytes (10 bits for the hour, 6 for the minute, 6 for the second) and the fraction, together one
/// big-endian number with an offset of half its range. So a negative time with a fraction is one two's
/// complement number, not a negative whole with a positive fraction.
pub(crate) fn binlog_time(cursor: &mut Cursor<'_>, fsp: u8) -> Result<i64, Malformed> {
    let (bytes, unit) = fraction_layout(fsp)?;
    let fraction_bits = 8 * bytes as u32;
    let packed = cursor.uint_be(3 + bytes)? as i64 - (0x80_0000 << fraction_bits);
    let magnitude = packed.unsigned_abs();
    let whole = magnitude >> fraction_bits;
    let fraction = micros((magnitude & ((1 << fraction_bits) - 1)) * unit)?;
    let seconds = ((whole >> 12 & 0x3ff) * 60 + (whole >> 6 & 63)) * 60 + (whole & 63);
    let micros = (seconds * 1_000_000 + u64::from(fraction)) as i64;
    Ok(if packed < 0 { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(bytes: &[u8], fsp: u8) -> i64 {
        binlog_time(&mut Cursor::new(bytes), fsp).unwrap()
    }

    #[test]
    fn negative_times_with_fractions() {
        // The cases are from the comment above my_time_packed_from_binary in MySQL's source.
        assert_eq!(time(&[0x80, 0, 0, 0], 2), 0);
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xff], 2), -10_000);
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0x9d], 2), -990_000);
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0x00], 2), -1_000_000);
        assert_eq!(time(&[0x7f, 0xff, 0xfe, 0xff], 2), -1_010_000);
        assert_eq!(time(&[0x7f, 0xff, 0xfe, 0xf6], 2), -1_100_000);
        assert_eq!(time(&[0x7f, 0xff, 0xff], 0), -1_000_000);
    }

    #[test]
    fn invalid_dates_have_no_day() {
        let at = |year, month, day| DateTimeFields { year, month, day, ..DateTimeFields::default() }.date();
        assert_eq!(at(1970, 1, 1), Value::Date(0));
        assert_eq!(at(2000, 2, 29), Value::Date(11_016));
        assert_eq!(at(9999, 12, 31), Value::Date(2_932_896));
        assert_eq!(at(1, 1, 1), Value::Date(-719_162));
        for (year, month, day, text) in [
            (0, 0, 0, "0000-00-00"),
            (2024, 0, 5, "2024-00-05"),
            (2024, 5, 0, "2024-05-00"),
            (2023, 2, 29, "2023-02-29"),
            (0, 3, 1, "0000-03-01"),
        ] {
            assert_eq!(at(year, month, day), Value::InvalidDate(text.into()));
        }
        assert_eq!(
            DateTimeFields { micros: 120_000, ..DateTimeFields::default() }.timestamp(3),
            Value::InvalidDate("0000-00-00 00:00:00.120".into())
        );
    }

    proptest! {
        #[test]
        fn fields_round_trip(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let fields = DateTimeFields::of(&Value::DateTime(micros)).unwrap();
            prop_assert_eq!(fields.date_time(6), Value::DateTime(micros));
            prop_assert_eq!(DateTimeFields::parse(fields.text(Some(6)).as_str()), Some(fields));
            let days = micros.div_euclid(DAY_US) as i32;
            prop_assert_eq!(DateTimeFields::of(&Value::Date(days)).unwrap().date(), Value::Date(days));
        }

        #[test]
        fn times_round_trip(micros in -3_020_399_999_999i64..=3_020_399_999_999, fsp in 0u8..=6) {
            let unit = 10i64.pow(6 - u32::from(fsp));
            let micros = micros / unit * unit;
            let magnitude = micros.unsigned_abs();
            let (seconds, fraction) = (magnitude / 1_000_000, magnitude % 1_000_000);
            let (bytes, per_unit) = fraction_layout(fsp).unwrap();
            let whole = ((seconds / 3600) << 12) | ((seconds / 60 % 60) << 6) | (seconds % 60);
            let stored = fraction.checked_div(per_unit).unwrap_or(0);
            let packed = ((whole << (8 * bytes)) | stored) as i64;
            let packed = if micros < 0 { -packed } else { packed } + (0x80_0000i64 << (8 * bytes));
            prop_assert_eq!(time(&packed.to_be_bytes()[5 - bytes..], fsp), micros);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..9), fsp in 0u8..9) {
            let _ = binlog_time(&mut Cursor::new(&bytes), fsp);
            let _ = binlog_date_time(&mut Cursor::new(&bytes), fsp);
            let _ = binlog_timestamp(&mut Cursor::new(&bytes), fsp);
            let _ = binlog_date(&mut Cursor::new(&bytes));
        }
    }
}
