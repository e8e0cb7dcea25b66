//! Prints a DOUBLE in JSON as MySQL does (`my_gcvt` in `strings/dtoa.cc`).
//!
//! MySQL prints the shortest digits that identify the number. It uses an exponent for integers of more than
//! 15 digits, and for numbers whose first digit is more than 15 places after the point.

use std::fmt::Write as _;

/// The maximum distance between the first digit and the decimal point without an exponent. The limit to the
/// right applies only to integers.
const PLAIN: i32 = 15;

/// Appends the text of a number.
pub(crate) fn put_double(out: &mut String, value: f64) {
    // If two shortest texts are equally near, MySQL takes the even one, as rounding does.
    let shortest = format!("{value:e}");
    let places = shortest.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.0$e}", places.saturating_sub(1));
    // At a power of two, that text may identify the number below instead.
    let scientific = if even.parse() == Ok(value) { even } else { shortest };
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        // NaN or an infinity. JSON has no such numbers, and MySQL does not store them.
        out.push_str("null");
        return;
    };
    let mantissa = match mantissa.strip_prefix('-') {
        Some(positive) => {
            out.push('-');
            positive
        }
        None => mantissa,
    };
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // The number of digits before the decimal point.
    let point = exponent + 1;
    if value == 0.0 {
        out.push_str("0.0");
    } else if point < 1 - PLAIN || point > PLAIN && digits.len() <= point as usize {
        let _ = write!(out, "{mantissa}e{exponent}");
    } else if point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        out.push_str(&digits);
    } else {
        let whole = point as usize;
        let (before, after) = digits.split_at(whole.min(digits.len()));
        out.push_str(before);
        out.extend(std::iter::repeat_n('0', whole - before.len()));
        out.push('.');
        out.push_str(if after.is_empty() { "0" } else { after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_mysql() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (123_456_789_012_345.0, "123456789012345.0"),
            (100_000_000_000_000.0, "100000000000000.0"),
            (1e15, "1e15"),
            (1_950_662_499_942_183.0, "1.950662499942183e15"),
            (1_950_662_499_942_183.2, "1950662499942183.2"),
            (1.5e300, "1.5e300"),
            (5e-324, "5e-324"),
            (2f64.powi(-44), "0.00000000000005684341886080802"),
            (1e-15, "0.000000000000001"),
            (1.25e-16, "1.25e-16"),
        ] {
            let mut out = String::new();
            put_double(&mut out, value);
            assert_eq!(out, text);
        }
    }
}
